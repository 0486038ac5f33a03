"""Probes stand in one process, in a file that does not change meanwhile; the keeper sees to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracer.capture.keeper import Keeper
from tracer.capture.programs import Programs

pytestmark = pytest.mark.kernel

MAPPED = Path(__file__).parent / "programs" / "mapped.py"
OFFSET = 0x1000
CODE = bytes.fromhex("554889e55dc3909090909090")  # push %rbp; mov %rsp,%rbp; pop %rbp; ret
HANDLER = "reference_transition"
BREAKPOINT = 0xCC


class Mapped:
    """A process that has a file mapped as code, and tells its bytes."""

    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", MAPPED, file, str(OFFSET), str(len(CODE))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.code()  # so that it is there

    def code(self) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return bytes.fromhex(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    programs = Programs(buffer_bytes=1 << 20)
    yield programs
    programs.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "code"
    path.write_bytes(bytes(OFFSET) + CODE + bytes(4096))
    return path


@pytest.fixture
def target(file: Path) -> Iterator[Mapped]:
    process = Mapped(file)
    yield process
    process.end()


@pytest.fixture
def keeper(programs: Programs, target: Mapped) -> Iterator[Keeper]:
    keeper = programs.start_keeper(target.pid)
    yield keeper
    keeper.close()
    programs.keeper = None


def probe(keeper: Keeper, pid: int, file: Path, expected: bytes = CODE) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        keeper.probe(pid, fd, [(HANDLER, OFFSET, expected)])
    finally:
        os.close(fd)


def test_a_probe_is_in_its_process_and_in_no_other(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    earlier = Mapped(file)
    probe(keeper, target.pid, file)
    later = Mapped(file)
    assert target.code() == bytes([BREAKPOINT]) + CODE[1:]
    assert earlier.code() == later.code() == CODE
    keeper.leave(target.pid)
    assert target.code() == CODE
    earlier.end()
    later.end()


def overwrite(file: Path) -> None:
    file.write_bytes(bytes(len(CODE)) * 1000)


def append(file: Path) -> None:
    with file.open("ab") as more:
        more.write(b"x")


def truncate(file: Path) -> None:
    os.truncate(file, OFFSET + len(CODE))


@pytest.mark.parametrize("change", [append, truncate])
def test_the_probes_are_out_before_a_byte_of_the_file_changes(
    file: Path, target: Mapped, keeper: Keeper, change: Callable[[Path], None]
) -> None:
    probe(keeper, target.pid, file)
    assert target.code()[0] == BREAKPOINT
    change(file)
    assert target.code() == CODE
    # And they do not come back to what it is by now, unless somebody looks at it once more.
    later = Mapped(file)
    assert later.code() == CODE
    later.end()


def test_a_file_that_is_replaced_or_deleted_keeps_its_probes_to_itself(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    probe(keeper, target.pid, file)
    new = file.with_name("new")
    new.write_bytes(bytes(OFFSET) + CODE[::-1] + bytes(4096))
    new.rename(file)
    later = Mapped(file)
    assert target.code()[0] == BREAKPOINT
    assert later.code() == CODE[::-1]
    later.end()
    file.unlink()
    assert target.code()[0] == BREAKPOINT


def test_a_process_that_ends_leaves_nothing_in_the_file(programs: Programs, file: Path) -> None:
    target = Mapped(file)
    keeper = programs.start_keeper(target.pid)
    probe(keeper, target.pid, file)
    target.end()
    # Waits where it is still held.
    overwrite(file)
    later = Mapped(file)
    assert later.code() == bytes(len(CODE))
    later.end()
    keeper.close()
    programs.keeper = None


def test_another_file_than_was_looked_at_is_not_probed(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    with pytest.raises(OSError, match="not the one that was looked at"):
        probe(keeper, target.pid, file, CODE[::-1])
    assert target.code() == CODE


def test_a_file_that_somebody_may_write_is_not_probed(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    with file.open("r+b"), pytest.raises(OSError, match="cannot be held still"):
        probe(keeper, target.pid, file)
    assert target.code() == CODE
    probe(keeper, target.pid, file)
    assert target.code()[0] == BREAKPOINT


def test_it_answers_of_targets_only(file: Path, target: Mapped, keeper: Keeper) -> None:
    os.close(keeper.open(target.pid, "exe"))
    stranger = Mapped(file)
    for name in ("exe", "maps"):
        with pytest.raises(OSError, match="not a target"):
            keeper.open(stranger.pid, name)
    assert keeper.ahead_ns(target.pid) == 0
    assert keeper.ahead_ns(stranger.pid) is None
    with pytest.raises(OSError, match="not a target"):
        probe(keeper, stranger.pid, file)
    for name in ("mem", "root/etc/shadow", "../1/exe", "environ", "exe\n"):
        with pytest.raises(OSError, match="not a file that a capture reads"):
            keeper.open(target.pid, name)
    assert stranger.code() == CODE
    stranger.end()
