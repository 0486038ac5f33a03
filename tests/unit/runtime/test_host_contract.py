"""What a host promises (``host.py``), asked of the real one and of the simulated one alike."""

from __future__ import annotations

import errno
import select
import sys
from itertools import pairwise
from typing import Any

import pytest

from reference_runtime.host import READABLE
from reference_runtime.real_host import RealHost
from reference_runtime.sim.sim_host import SimHost
from tests.unit.runtime.any_host import MS, NO_FD, Machine, waiter
from tracer.errors import PretakeError

POLLERR, POLLHUP = 8, 16


# Time, chance, threads.


def test_the_clock_goes_on_and_a_sleep_takes_its_time(machine: Machine) -> None:
    host = machine.host

    def body() -> list[int]:
        times = [host.nanotime()]
        host.usleep(3 * MS)
        times.append(host.nanotime())
        host.nanosleep(2 * MS)
        times.append(host.nanotime())
        host.spin_ns(MS)
        times.append(host.nanotime())
        return times

    (times,) = machine.run(body)
    assert isinstance(times, list)
    took = [after - before for before, after in pairwise(times)]
    assert [ns >= least * MS for ns, least in zip(took, (3, 2, 1), strict=True)] == [True] * 3


def test_random_numbers_are_below_their_bound(machine: Machine) -> None:
    numbers = {machine.host.random(3) for _ in range(200)}
    assert numbers == {0, 1, 2}


def test_threads_have_ids_and_a_cpu_clock_of_their_own(machine: Machine) -> None:
    host = machine.host
    there = [host.new_note(), host.new_note()]

    def body(me: int) -> tuple[int, bool]:
        there[me].wakeup()
        there[1 - me].sleep()  # both live at once
        before = host.thread_cpu_ns()
        host.spin_ns(2 * MS)
        return host.thread_id(), host.thread_cpu_ns() > before

    (one, other) = machine.run(lambda: body(0), lambda: body(1))
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    assert one[0] != other[0]
    assert one[1]
    assert other[1]


def test_a_blocked_thread_is_seen_as_such_and_in_which_call(machine: Machine) -> None:
    host = machine.host
    read_fd, write_fd = host.pipe()
    tids: list[int] = []

    def reader() -> bytes:
        tids.append(host.thread_id())
        return host.read(read_fd, 1)

    def watcher() -> tuple[bool, bool]:
        while not tids or not host.blocked_on(tids[0], read_fd):
            host.usleep(MS)
        seen = host.thread_blocked(tids[0]), host.blocked_on(tids[0], write_fd)
        host.write(write_fd, b"x")
        return seen

    assert machine.run(reader, watcher) == [b"x", (True, False)]


def test_a_note_remembers_one_wake_up(machine: Machine) -> None:
    host = machine.host
    note = host.new_note()

    def body() -> list[bool]:
        note.wakeup()
        note.wakeup()
        return [note.sleep_for(MS), note.sleep_for(MS), note.sleep_for(0)]

    assert machine.run(body) == [[True, False, False]]


def test_only_this_machine_without_a_gil_runs_threads_at_once(machine: Machine) -> None:
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert machine.host.is_parallel() is (type(machine.host) is RealHost and not has_gil)


def test_a_lock_lets_one_in(machine: Machine) -> None:
    host = machine.host
    lock = host.new_lock()
    counts = [0]

    def body() -> None:
        for _ in range(100):
            lock.acquire()
            counts[0] += 1
            lock.release()

    machine.run(body, body)
    assert counts == [200]


def test_who_is_busy_lets_others_at_what_they_share(machine: Machine) -> None:
    host = machine.host
    told: list[str] = []

    def busy() -> str:
        while not told:
            host.let_others_run()
        return "saw it"

    assert machine.run(busy, lambda: told.append("there")) == ["saw it", None]


def test_the_end_of_code_is_nothing_to_a_thread_that_is_gone(machine: Machine) -> None:
    host = machine.host
    (tid,) = machine.run(host.thread_id)
    assert isinstance(tid, int)
    host.end_code(tid)
    host.end_code(NO_FD)
    assert machine.run(lambda: 1) == [1]


def test_a_host_is_closed_beside_a_thread_that_waits_for_ever(machine: Machine) -> None:
    host = machine.host
    read_fd, write_fd = host.pipe()
    ended = host.new_note()
    begun = host.new_note()

    def stuck() -> None:
        begun.wakeup()
        host.read(read_fd, 1)
        ended.wakeup()

    def arms() -> None:
        begun.sleep()
        host.netpoll_arm(host.tcp_pair()[0], READABLE, waiter())

    host.start_thread(stuck, "stuck")
    machine.run(arms)
    host.close()
    if isinstance(host, SimHost):
        # Nothing of it is left.
        assert host.machine.threads == {}
    else:
        # A thread of the machine's cannot be ended in a call; it goes on when that returns.
        host.write(write_fd, b"x")
        ended.sleep()


def test_a_loop_goes_on_until_loops_are_ended(machine: Machine) -> None:
    host = machine.host
    host.end_loops(False)
    ended = host.new_note()
    told: list[str] = []

    def body() -> None:
        host.endless_loop(False)
        host.endless_loop(True)
        told.append("over")
        ended.wakeup()

    host.start_thread(body, "loop")
    assert not host.wait_for_end(ended, 2 * MS)
    assert told == []
    host.end_loops(True)
    assert host.wait_for_end(ended)
    assert told == ["over"]


# System calls.


def test_a_pipe_carries_bytes_and_an_end(machine: Machine) -> None:
    host = machine.host
    read_fd, write_fd = host.pipe()

    def body() -> list[object]:
        got: list[object] = [host.write(write_fd, b"abc"), host.read(read_fd, 2)]
        got.append(host.poll(read_fd, READABLE, 0) & READABLE)
        got.append(host.read(read_fd, 2))
        got.append(host.poll(read_fd, READABLE, MS))
        host.close_fd(write_fd)
        got.append(host.read(read_fd, 2))
        host.close_fd(read_fd)
        return got

    assert machine.run(body) == [[3, b"ab", READABLE, b"c", 0, b""]]


def test_a_read_waits_for_its_writer(machine: Machine) -> None:
    host = machine.host
    read_fd, write_fd = host.pipe()
    assert machine.run(lambda: host.read(read_fd, 9), lambda: host.write(write_fd, b"x")) == [
        b"x",
        1,
    ]


def test_a_non_blocking_socket_says_that_it_has_nothing(machine: Machine) -> None:
    host = machine.host

    def body() -> int:
        one, other = host.tcp_pair()
        with pytest.raises(BlockingIOError):
            host.read(one, 1)
        host.write(other, b"x")
        ready = host.poll(one, READABLE, -1) & READABLE
        assert host.read(one, 1) == b"x"
        host.close_fd(one)
        host.close_fd(other)
        return ready

    assert machine.run(body) == [READABLE]


@pytest.mark.parametrize("call", ["read", "write", "pread", "close_fd", "netpoll_arm"])
def test_what_is_no_descriptor_is_refused(machine: Machine, call: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "read": (1,),
        "write": (b"x",),
        "pread": (1, 0),
        "close_fd": (),
        "netpoll_arm": (READABLE, waiter()),
    }

    def body() -> int | None:
        with pytest.raises(OSError, match="Bad file descriptor") as told:
            getattr(machine.host, call)(NO_FD, *arguments[call])
        return told.value.errno

    assert machine.run(body) == [errno.EBADF]


def test_poll_tells_by_an_event_that_it_is_no_descriptor(machine: Machine) -> None:
    assert machine.run(lambda: machine.host.poll(NO_FD, READABLE, -1)) == [select.POLLNVAL]


def test_pread_of_a_regular_file(machine: Machine) -> None:
    fd = machine.regular_file()
    assert machine.run(lambda: machine.host.pread(fd, 4, 4)) == [bytes(4)]


def test_a_pipe_without_reader_is_broken(machine: Machine) -> None:
    host = machine.host

    def body() -> None:
        read_fd, write_fd = host.pipe()
        host.close_fd(read_fd)
        with pytest.raises(BrokenPipeError):
            host.write(write_fd, b"x")
        host.close_fd(write_fd)

    machine.run(body)


def test_what_is_of_no_length_never_waits(machine: Machine) -> None:
    """A read of nothing is no way to ask for readiness: it is over at once."""
    host = machine.host

    def body() -> list[object]:
        read_fd, write_fd = host.pipe()
        one, _ = host.tcp_pair()
        got: list[object] = [host.read(read_fd, 0), host.write(write_fd, b""), host.read(one, 0)]
        host.write(write_fd, b"xy")
        got += [host.read(read_fd, 0), host.read(read_fd, 1), host.read(read_fd, 1)]
        return got

    assert machine.run(body) == [[b"", 0, b"", b"", b"x", b"y"]]


def test_the_other_ends_close_is_told_unasked(machine: Machine) -> None:
    host = machine.host

    def body() -> tuple[int, int]:
        read_fd, write_fd = host.pipe()
        host.close_fd(write_fd)
        at_reader = host.poll(read_fd, 0, -1) & POLLHUP
        host.close_fd(read_fd)
        read_fd, write_fd = host.pipe()
        host.close_fd(read_fd)
        return at_reader, host.poll(write_fd, 0, -1) & POLLERR

    assert machine.run(body) == [(POLLHUP, POLLERR)]


def test_a_pipe_has_no_offsets(machine: Machine) -> None:
    host = machine.host

    def body() -> int | None:
        read_fd, _ = host.pipe()
        with pytest.raises(OSError, match="seek") as told:
            host.pread(read_fd, 1, 0)
        return told.value.errno

    assert machine.run(body) == [errno.ESPIPE]


# Switches.


def test_a_switch_watch_tells_who_blocks(machine: Machine) -> None:
    host = machine.host
    watch = host.watch_switches(False)
    read_fd, write_fd = host.pipe()
    there = host.new_note()

    def blocks() -> None:
        watch.add(host.thread_id(), 7)
        there.wakeup()
        host.read(read_fd, 1)

    def watches() -> list[int]:
        there.sleep()
        told: list[int] = []
        while not told:
            told = watch.wait(20 * MS)
        host.write(write_fd, b"x")
        watch.break_wait()
        watch.wait(1_000_000 * MS)  # broken for good
        watch.wait(1_000_000 * MS)
        return told

    assert machine.run(blocks, watches)[1] == [7]
    watch.close()


def test_a_block_watch_tells_who_blocks_in_a_call_and_not_on_a_note(machine: Machine) -> None:
    host = machine.host
    if not isinstance(host, SimHost):
        pytest.importorskip("pyarrow", reason="Arrow has no wheel for this Python")
    try:
        watch = host.watch_blocks()
    except PretakeError as refused:
        assert not isinstance(host, SimHost)
        pytest.skip(str(refused))
    read_fd, write_fd = host.pipe()
    there, parked, woken = host.new_note(), host.new_note(), host.new_note()

    def parks() -> None:
        watch.add(host.thread_id(), 3)
        parked.wakeup()
        woken.sleep()

    def blocks() -> None:
        parked.sleep()
        watch.add(host.thread_id(), 7)
        there.wakeup()
        host.read(read_fd, 1)

    def watches() -> list[int]:
        there.sleep()
        watch.add(host.thread_id(), 5)  # its own wait is none either
        told: list[int] = []
        while not told:
            told = watch.wait(20 * MS)
        host.write(write_fd, b"x")
        woken.wakeup()
        watch.break_wait()
        watch.wait(1_000_000 * MS)  # broken for good
        watch.wait(1_000_000 * MS)
        return told

    assert machine.run(parks, blocks, watches)[2] == [7]
    watch.close()


def test_only_the_simulated_kernel_makes_upcalls(machine: Machine) -> None:
    if isinstance(machine.host, SimHost):
        machine.host.watch_switches(True).close()
        return
    with pytest.raises(PretakeError, match="simulated host"):
        machine.host.watch_switches(True)
