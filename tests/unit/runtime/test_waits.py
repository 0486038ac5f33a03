"""Waits of goroutines that end by something else than what they waited for, on both hosts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from reference_runtime import (
    Channel,
    Context,
    Deadlock,
    DoubleWait,
    FileClosed,
    Mutex,
    Runtime,
    WaitGroup,
    after,
    close,
    go,
    gosched,
    recv_case,
    select,
    sleep,
    wait_readable,
    wait_writable,
)
from reference_runtime.context import CANCELLED, DEADLINE_EXCEEDED
from reference_runtime.gmp import G_DEAD, G_WAITING, G
from reference_runtime.goroutines import current_host, getg, getm
from reference_runtime.host import Host
from reference_runtime.real_host import RealHost
from reference_runtime.sim.sim_host import SimHost

MS = 1_000_000
Main = Callable[[], Coroutine[Any, Any, Any]]

both_hosts = pytest.mark.parametrize("host", [RealHost, SimHost])
procs = pytest.mark.parametrize("procs", [1, 2])


def run(host: type[Host], main: Main, procs: int = 1) -> Any:  # noqa: ANN401  as main says
    return Runtime(procs, host=host()).run(main)


def full_socket() -> tuple[int, int]:
    """A socket without room to write, and its other end."""
    host = current_host()
    one, other = host.tcp_pair()
    while True:
        try:
            host.write(one, bytes(65536))
        except BlockingIOError:
            return one, other


async def until_all_wait(gs: list[G], many: int) -> None:
    """However long it takes: a goroutine that waits is on the poller's list before it parks."""
    while len(gs) < many or any(g.status not in (G_WAITING, G_DEAD) for g in gs):
        await gosched()


@both_hosts
@procs
def test_a_reader_and_a_writer_of_one_socket_both_wake(host: type[Host], procs: int) -> None:
    async def main() -> list[str]:
        one, other = full_socket()
        woken: list[str] = []
        gs: list[G] = []
        done = WaitGroup(2)

        async def reads() -> None:
            gs.append(getg())
            await wait_readable(one)
            woken.append("reader")
            done.done()

        async def writes() -> None:
            gs.append(getg())
            await wait_writable(one)
            woken.append("writer")
            done.done()

        go(reads())
        go(writes())
        await until_all_wait(gs, 2)
        current_host().write(other, b"x")
        while len(woken) < 2:  # makes room, as much as it takes
            try:
                current_host().read(other, 65536)
            except BlockingIOError:
                await gosched()
        await done.wait()
        return sorted(woken)

    assert run(host, main, procs) == ["reader", "writer"]


@both_hosts
def test_a_second_reader_is_refused_and_the_first_waits_on(host: type[Host]) -> None:
    async def main() -> int:
        one, other = current_host().tcp_pair()
        done = WaitGroup(1)
        gs: list[G] = []

        async def reads() -> None:
            gs.append(getg())
            await wait_readable(one)
            done.done()

        go(reads())
        await until_all_wait(gs, 1)
        with pytest.raises(DoubleWait, match=f"descriptor {one} is readable"):
            await wait_readable(one)
        waiters = int(getm().sched.netpoll_waiters)
        current_host().write(other, b"x")
        await done.wait()
        return waiters

    assert run(host, main) == 1


@both_hosts
@procs
def test_a_close_wakes_both_with_an_error(host: type[Host], procs: int) -> None:
    async def main() -> int:
        one, _ = full_socket()
        done = WaitGroup(2)
        gs: list[G] = []

        async def waits(how: Callable[[int], Coroutine[Any, Any, None]]) -> None:
            gs.append(getg())
            with pytest.raises(FileClosed, match="use of closed file") as told:
                await how(one)
            assert told.value.errno == errno.EBADF
            done.done()

        go(waits(wait_readable))
        go(waits(wait_writable))
        await until_all_wait(gs, 2)
        close(one)
        await done.wait()
        # The M that readied them counts them off only then, perhaps after others ran them.
        while getm().sched.netpoll_waiters:
            await gosched()
        return int(getm().sched.netpoll_waiters)

    assert run(host, main, procs) == 0


def test_a_number_that_was_closed_behind_our_back_is_waited_for_anew() -> None:
    """dup2 tells the runtime nothing; the next who waits for the number finds it out."""

    async def main() -> list[str]:
        told: list[str] = []
        done = WaitGroup(1)
        read_fd, write_fd = os.pipe()
        gs: list[G] = []

        async def forgotten() -> None:
            gs.append(getg())
            with pytest.raises(FileClosed):
                await wait_readable(read_fd)
            told.append("closed")
            done.done()

        go(forgotten())
        await until_all_wait(gs, 1)
        again, more = os.pipe()
        # Not a close and a new pipe: whatever else closes a file would have its number free too.
        os.dup2(again, read_fd)
        os.write(more, b"x")
        await wait_readable(read_fd)
        told.append("readable")
        await done.wait()
        for fd in (read_fd, again, more, write_fd):
            os.close(fd)
        return sorted(told)

    assert Runtime(1).run(main) == ["closed", "readable"]


@both_hosts
@pytest.mark.parametrize("how", [wait_readable, wait_writable])
def test_a_wait_that_cannot_be_leaves_a_deadlock_to_be_told(
    host: type[Host], how: Callable[[int], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await how(1_000_000)
        await Channel().recv()

    with pytest.raises(Deadlock, match="chan receive"):
        run(host, main)


@both_hosts
def test_a_regular_file_cannot_be_waited_for(host: type[Host]) -> None:
    async def main() -> None:
        machine = current_host()
        fd = (
            machine.open_file(0)
            if isinstance(machine, SimHost)
            else os.open(__file__, os.O_RDONLY)
        )
        with pytest.raises(PermissionError):
            await wait_readable(fd)
        close(fd)
        await Channel().recv()

    with pytest.raises(Deadlock, match="chan receive"):
        run(host, main)


# Timeouts.


async def recv(_fd: int) -> None:
    await Channel().recv(timeout_ns=2 * MS)


async def send(_fd: int) -> None:
    await Channel().send(1, timeout_ns=2 * MS)


async def lock(_fd: int) -> None:
    mutex = Mutex()
    await mutex.lock()
    await mutex.lock(timeout_ns=2 * MS)


async def wait(_fd: int) -> None:
    await WaitGroup(1).wait(timeout_ns=2 * MS)


async def read(fd: int) -> None:
    await wait_readable(fd, timeout_ns=2 * MS)


async def write(fd: int) -> None:
    await wait_writable(fd, timeout_ns=2 * MS)


@both_hosts
@procs
@pytest.mark.parametrize("wait", [recv, send, lock, wait, read, write])
def test_a_wait_ends_in_time(
    host: type[Host], procs: int, wait: Callable[[int], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> int:
        one, _ = full_socket()
        begin_ns = current_host().nanotime()
        with pytest.raises(TimeoutError):
            await wait(one)
        took_ns = current_host().nanotime() - begin_ns
        sched = getm().sched
        assert sched.timers.count == 0
        # The M that readied it counts it off only then, perhaps after another M ran it.
        while sched.netpoll_waiters:
            await gosched()
        return int(took_ns)

    assert run(host, main, procs) >= 2 * MS


@both_hosts
def test_a_wait_that_is_over_leaves_no_timer_behind(host: type[Host]) -> None:
    """A timer of an hour that still counted would keep the deadlock from being told."""

    async def main() -> None:
        hour_ns = 3_600_000 * MS
        channel, mutex, group = Channel(), Mutex(), WaitGroup(1)
        await mutex.lock()
        one, other = current_host().tcp_pair()

        async def serves() -> None:
            await sleep(MS)
            await channel.send(1)
            mutex.unlock()
            group.done()
            current_host().write(other, b"x")

        go(serves())
        assert await channel.recv(timeout_ns=hour_ns) == 1
        await mutex.lock(timeout_ns=hour_ns)
        await group.wait(timeout_ns=hour_ns)
        await wait_readable(one, timeout_ns=hour_ns)
        await Channel().recv()

    with pytest.raises(Deadlock, match="chan receive"):
        run(host, main)


@both_hosts
def test_who_gave_up_is_passed_over(host: type[Host]) -> None:
    async def main() -> list[object]:
        channel, mutex = Channel(), Mutex()
        await mutex.lock()
        got: list[object] = []
        done = WaitGroup(2)

        async def impatient() -> None:
            with pytest.raises(TimeoutError):
                await channel.recv(timeout_ns=MS)
            with pytest.raises(TimeoutError):
                await mutex.lock(timeout_ns=MS)
            done.done()

        async def patient() -> None:
            got.append(await channel.recv())
            await mutex.lock()
            got.append("locked")
            done.done()

        go(impatient())
        await gosched()
        go(patient())
        await sleep(20 * MS)
        await channel.send("value")
        await sleep(MS)
        mutex.unlock()
        await done.wait()
        return got

    assert run(host, main) == ["value", "locked"]


# after, and cancellation.


@both_hosts
@procs
def test_after_sends_the_time_once(host: type[Host], procs: int) -> None:
    async def main() -> tuple[int, int, int]:
        begin_ns = current_host().nanotime()
        late, soon = after(30 * MS), after(2 * MS)
        first, told_ns, _ = await select([recv_case(late), recv_case(soon)])
        if first == 1:
            await late.recv()
        assert isinstance(told_ns, int)
        return first, told_ns - begin_ns, current_host().nanotime() - begin_ns

    first, told_ns, took_ns = run(host, main, procs)
    assert told_ns >= 2 * MS
    # Both are due on a machine that is slow enough, and a select takes any.
    assert first == 1 or host is RealHost
    assert took_ns >= (30 * MS if first == 1 else 2 * MS)


@both_hosts
@procs
def test_a_job_is_called_off_with_those_under_it(host: type[Host], procs: int) -> None:
    async def main() -> list[str]:
        job = Context()
        parts = [Context(job), Context(Context(job)), Context(timeout_ns=3_600_000 * MS)]
        ended: list[str] = []
        done = WaitGroup(len(parts))

        async def work(context: Context) -> None:
            case, _, _ = await select([recv_case(Channel()), recv_case(context.done)])
            assert case == 1
            ended.append(context.error)
            done.done()

        for part in parts:
            go(work(part))
        await sleep(MS)
        job.cancel()
        job.cancel()
        while len(ended) < 2:
            await gosched()
        assert not parts[2].error
        parts[2].cancel()
        await done.wait()
        assert Context(job).error == CANCELLED
        assert getm().sched.timers.count == 0
        return ended

    assert run(host, main, procs) == [CANCELLED] * 3


@both_hosts
def test_a_job_ends_at_its_deadline(host: type[Host]) -> None:
    async def main() -> tuple[str, str]:
        job = Context(timeout_ns=2 * MS)
        under = Context(job)
        with pytest.raises(Exception, match="closed"):
            await under.done.recv()
        return job.error, under.error

    assert run(host, main) == (DEADLINE_EXCEEDED, DEADLINE_EXCEEDED)
