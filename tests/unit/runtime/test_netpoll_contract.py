"""What a host's network poller promises (``host.py``), of the real one and the simulated one."""

from __future__ import annotations

import pytest

from reference_runtime.errors import DoubleWait
from reference_runtime.host import READABLE, WRITABLE
from reference_runtime.polldesc import PollWaiter
from tests.unit.runtime.any_host import MS, Machine, waiter


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
