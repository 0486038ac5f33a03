"""What a host promises (``host.py``), asked of the real one and of the simulated one alike."""

from __future__ import annotations

import errno
import select
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from reference_runtime.errors import DoubleWait
from reference_runtime.gmp import G
from reference_runtime.host import READABLE, WRITABLE, Host
from reference_runtime.polldesc import PollWaiter
from reference_runtime.real_host import RealHost
from reference_runtime.sim.sim_host import SimHost
from tracer.errors import PretakeError

MS = 1_000_000
SIGURG = 23
NO_FD = 1_000_000


class Machine:
    """A host, and what differs in making things for it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.kept: list[Any] = []

    def run(self, *bodies: Callable[[], object]) -> list[object]:
        """Run each body on a thread of its own; their results, or the first that was raised."""
        results: list[object] = [None] * len(bodies)
        ended = [self.host.new_note() for _ in bodies]

        def start(number: int) -> None:
            def body() -> None:
                try:
                    results[number] = bodies[number]()
                except BaseException as error:
                    results[number] = error
                ended[number].wakeup()

            self.host.start_thread(body, f"thread {number}")

        for number in range(len(bodies)):
            start(number)
        for note in ended:
            self.host.wait_for_end(note)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def regular_file(self) -> int:
        """A descriptor of a regular file of 8 zero bytes."""
        if isinstance(self.host, SimHost):
            return self.host.open_file(0)
        file = tempfile.TemporaryFile()  # noqa: SIM115  it is closed with the machine
        file.write(bytes(8))
        file.flush()
        self.kept.append(file)
        return file.fileno()


@pytest.fixture(params=[RealHost, SimHost])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    host = request.param()
    machine = Machine(host)
    yield machine
    host.close()
    for file in machine.kept:
        file.close()


def waiter(goid: int = 1) -> PollWaiter:
    return PollWaiter(G(goid, None, iter(()), "waiter"))


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

    if isinstance(host, SimHost):
        pytest.skip("the simulated host is not asked in which call a thread is")
    assert machine.run(reader, watcher) == [b"x", (True, False)]


def test_a_note_remembers_one_wake_up(machine: Machine) -> None:
    host = machine.host
    note = host.new_note()

    def body() -> list[bool]:
        note.wakeup()
        note.wakeup()
        return [note.sleep_for(MS), note.sleep_for(MS), note.sleep_for(0)]

    assert machine.run(body) == [[True, False, False]]


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


# The network poller.


def test_the_poller_gives_a_waiter_back_once(machine: Machine) -> None:
    host = machine.host

    def body() -> list[list[PollWaiter]]:
        one, other = host.tcp_pair()
        first = waiter()
        host.netpoll_arm(one, READABLE, first)
        told = [host.netpoll(0)]
        host.write(other, b"x")
        told.append(host.netpoll(-1))
        told.append(host.netpoll(0))
        assert told[1] == [first]
        second = waiter()
        host.netpoll_arm(one, READABLE, second)  # it is ready already
        told.append(host.netpoll(-1))
        assert told[3] == [second]
        assert not first.evicted
        return told

    ((nothing, _, again, _),) = machine.run(body)  # type: ignore[misc]
    assert nothing == again == []


def test_a_reader_and_a_writer_wait_for_one_socket(machine: Machine) -> None:
    host = machine.host

    def body() -> None:
        one, other = host.tcp_pair()
        reader, writer = waiter(1), waiter(2)
        host.netpoll_arm(one, READABLE, reader)
        host.netpoll_arm(one, WRITABLE, writer)
        assert host.netpoll(-1) == [writer]
        host.write(other, b"x")
        assert host.netpoll(-1) == [reader]

    machine.run(body)


@pytest.mark.parametrize("order", [(READABLE, WRITABLE), (WRITABLE, READABLE)])
def test_the_other_end_closes_for_both(machine: Machine, order: tuple[int, int]) -> None:
    host = machine.host

    def body() -> None:
        one, other = host.tcp_pair()
        while True:  # until there is no room to write
            try:
                host.write(one, bytes(65536))
            except BlockingIOError:
                break
        waiters = [waiter(1), waiter(2)]
        for event, armed in zip(order, waiters, strict=True):
            host.netpoll_arm(one, event, armed)
        assert host.netpoll(0) == []
        host.close_fd(other)
        told: list[PollWaiter] = []
        while len(told) < 2:
            told += host.netpoll(-1)
        assert set(told) == set(waiters)
        assert not told[0].evicted
        host.close_fd(one)

    machine.run(body)


@pytest.mark.parametrize("event", [READABLE, WRITABLE])
def test_a_third_is_refused_and_leaves_the_others(machine: Machine, event: int) -> None:
    host = machine.host

    def body() -> None:
        one, other = host.tcp_pair()
        both = {READABLE: waiter(1), WRITABLE: waiter(2)}
        for wanted, armed in both.items():
            host.netpoll_arm(one, wanted, armed)
        with pytest.raises(DoubleWait):
            host.netpoll_arm(one, event, waiter(3))
        host.write(other, b"x")
        told: list[PollWaiter] = []
        while len(told) < 2:
            told += host.netpoll(-1)
        assert set(told) == set(both.values())
        host.close_fd(one)

    machine.run(body)


def test_those_who_wait_are_evicted_when_the_descriptor_is_closed(machine: Machine) -> None:
    host = machine.host

    def body() -> None:
        one, other = host.tcp_pair()
        reader, elsewhere = waiter(1), waiter(2)
        host.netpoll_arm(one, READABLE, reader)
        host.netpoll_arm(other, READABLE, elsewhere)
        host.close_fd(one)
        told: list[PollWaiter] = []
        while len(told) < 2:
            told += host.netpoll(-1)
        assert set(told) == {reader, elsewhere}
        assert (reader.evicted, elsewhere.evicted) == (True, False)

    machine.run(body)


def test_a_close_ends_the_wait_of_another_thread(machine: Machine) -> None:
    host = machine.host
    read_fd, write_fd = host.pipe()
    reader = waiter()
    armed = host.new_note()

    def poller() -> bool:
        host.netpoll_arm(read_fd, READABLE, reader)
        armed.wakeup()
        told: list[PollWaiter] = []
        while not told:
            told = host.netpoll(-1)
        return told == [reader] and reader.evicted

    def closer() -> None:
        armed.sleep()
        host.close_fd(read_fd)
        host.close_fd(write_fd)

    assert machine.run(poller, closer)[0] is True


def test_a_regular_file_cannot_be_waited_for(machine: Machine) -> None:
    host = machine.host
    fd = machine.regular_file()

    def body() -> None:
        for _ in range(2):  # the first left nothing behind
            with pytest.raises(PermissionError):
                host.netpoll_arm(fd, READABLE, waiter())
        assert host.netpoll(0) == []

    machine.run(body)


def test_what_is_disarmed_is_not_given_back(machine: Machine) -> None:
    host = machine.host

    def body() -> None:
        one, other = host.tcp_pair()
        first, second = waiter(1), waiter(2)
        host.netpoll_arm(one, READABLE, first)
        assert host.netpoll_disarm(one, first)
        assert not host.netpoll_disarm(one, first)
        host.netpoll_arm(one, READABLE, second)
        host.write(other, b"x")
        assert host.netpoll(-1) == [second]
        assert not host.netpoll_disarm(one, second)

    machine.run(body)


def test_a_number_serves_again_after_its_descriptor_was_closed(machine: Machine) -> None:
    host = machine.host

    def body() -> None:
        for _ in range(3):
            one, other = host.tcp_pair()
            reader = waiter()
            host.netpoll_arm(one, READABLE, reader)
            host.write(other, b"x")
            assert host.netpoll(-1) == [reader]
            host.close_fd(one)
            host.close_fd(other)

    machine.run(body)


def test_the_pollers_wait_ends_in_time_or_by_a_break(machine: Machine) -> None:
    host = machine.host

    def body() -> int:
        begin_ns = host.nanotime()
        assert host.netpoll(2 * MS) == []
        took_ns = host.nanotime() - begin_ns
        host.netpoll_break()
        assert host.netpoll(-1) == []  # remembered
        return took_ns

    (took_ns,) = machine.run(body)
    assert isinstance(took_ns, int)
    assert took_ns >= 2 * MS


# Switches and signals.


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


def test_only_the_simulated_kernel_makes_upcalls(machine: Machine) -> None:
    if isinstance(machine.host, SimHost):
        machine.host.watch_switches(True).close()
        return
    with pytest.raises(PretakeError, match="simulated host"):
        machine.host.watch_switches(True)


class FakeM:
    """A stopper only hands on what it was given."""


def test_a_stopper_stops_a_thread_in_a_kernel_and_lets_it_go_on(machine: Machine) -> None:
    host = machine.host
    host.end_loops(False)
    stopper = host.new_stopper()
    assert stopper is not None
    from reference_runtime.gmp import NO_G, NO_P, M, Sched
    from reference_runtime.policies.sysmon import SysmonPolicy
    from reference_runtime.record import Record

    sched = Sched(host, SysmonPolicy(), 1, 4, Record())
    m = M(0, sched, host.new_note(), host.new_note())
    there = host.new_note()
    slots: list[int] = []

    def loops() -> None:
        m.tid = host.thread_id()
        slots.append(stopper.thread_begins(m))
        stopper.runs_goroutines(slots[0], True)
        there.wakeup()
        host.endless_loop(False)
        stopper.thread_ends()

    def stops() -> list[object]:
        there.sleep()
        slot = slots[0]
        told: list[object] = [stopper.stopped(slot)]
        while not stopper.stopped(slot):
            seen = stopper.count()
            if stopper.ask(slot, m.tid, NO_P, NO_G):
                host.tgkill(m.tid, SIGURG)
            if not stopper.stopped(slot):
                stopper.wait(seen, MS)
        told.append(stopper.ask(slot, m.tid, NO_P, NO_G))  # it stands already
        host.end_loops(True)
        stopper.resume(slot, NO_P, NO_G)
        told.append(stopper.stopped(slot))
        return told

    assert machine.run(loops, stops)[1] == [False, False, False]
    host.tgkill(m.tid, SIGURG)  # it is gone, and that is no error
    assert stopper.end()[0] == 1
