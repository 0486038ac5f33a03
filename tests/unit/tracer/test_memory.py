"""Words of a process's memory, and the numbers of its threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.started import Started
from tracer.capture.memory import caught, follow, thread_numbers


@pytest.fixture
def memory() -> Iterator[int]:
    """Our own."""
    fd = os.open("/proc/self/mem", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_chains_are_followed_as_far_as_they_can_be_read(memory: int) -> None:
    last = (ctypes.c_int64 * 2)(-7, 8)
    middle = (ctypes.c_uint64 * 3)(1, 2, ctypes.addressof(last))
    first = ctypes.c_uint64(ctypes.addressof(middle))
    at = ctypes.addressof(first)
    told = follow(
        memory,
        [
            (at, ()),
            (at, (8,)),
            (at, (16, 0)),
            (at, (16, 8)),
            (at, (8, 0)),  # 2 is no address
            (2, (0,)),
            (-8, ()),
            (1 << 63, ()),
        ],
    )
    middle_at, last_at = ctypes.addressof(middle), ctypes.addressof(last)
    assert told == [
        [middle_at],
        [middle_at, 2],
        [middle_at, last_at, -7],
        [middle_at, last_at, 8],
        [middle_at, 2],
        [],
        [],
        [],
    ]


def test_a_word_is_caught_when_it_is_not_0(memory: int) -> None:
    words = (ctypes.c_uint64 * 3)(0, 0, 5)
    at = ctypes.addressof(words)
    nothing = [[(at, ()), (at + 16, ())], [(at + 8, ())]]
    assert caught(memory, nothing) is None
    words[1] = 6
    assert caught(memory, nothing) == (1, [[6]])
    words[0] = 4
    assert caught(memory, nothing) == (0, [[4], [5]])


def test_threads_are_numbered_as_they_know_it() -> None:
    told: list[int] = []
    both, go_on = threading.Barrier(2), threading.Event()

    def run() -> None:
        told.append(threading.get_native_id())
        both.wait()
        go_on.wait()

    thread = threading.Thread(target=run)
    thread.start()
    both.wait()
    assert {os.getpid(), *told} <= set(thread_numbers(os.getpid()))
    go_on.set()
    thread.join()


@pytest.mark.kernel
def test_threads_in_a_pid_namespace_are_numbered_as_they_know_it() -> None:
    with Started(
        ["unshare", "--pid", "--fork", "--kill-child", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as outside:
        assert outside.stdin is not None
        assert outside.stdout is not None
        outside.stdin.write(b"begun\n")
        outside.stdin.flush()
        # By then the first process in there is cat.
        assert outside.stdout.readline() == b"begun\n"
        (inside,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        assert thread_numbers(int(inside)) == [1]
        assert thread_numbers(outside.pid) == [outside.pid]
        outside.stdin.close()


def test_a_process_that_is_gone_is_told() -> None:
    with Started(["true"]) as gone:
        pass
    with pytest.raises(FileNotFoundError):
        thread_numbers(gone.pid)
