"""Waits for one of several: notifications of a channel, netstack's sleeper, on both hosts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from reference_runtime import (
    Channel,
    Deadlock,
    DoubleWait,
    Runtime,
    Sleeper,
    WaitGroup,
    Waker,
    close,
    go,
    gosched,
    notify_readable,
    notify_writable,
    sleep,
    wait_readable,
)
from reference_runtime.goroutines import current_host, getm
from reference_runtime.host import Host
from reference_runtime.real_host import RealHost
from reference_runtime.sim.sim_host import SimHost

MS = 1_000_000
Main = Callable[[], Coroutine[Any, Any, Any]]

both_hosts = pytest.mark.parametrize("host", [RealHost, SimHost])
procs = pytest.mark.parametrize("procs", [1, 2])
by_rules = pytest.mark.parametrize("like", ["lean", "go1.27"])


def run(host: type[Host], main: Main, procs: int = 1, like: str = "lean") -> Any:  # noqa: ANN401
    return Runtime(procs, host=host(), like=like).run(main)


# Notifications.


@both_hosts
@procs
@by_rules
def test_a_channel_is_told_of_each_that_is_ready(host: type[Host], procs: int, like: str) -> None:
    async def main() -> tuple[list[object], int]:
        pairs = [current_host().tcp_pair() for _ in range(5)]
        ready = Channel(5)
        for one, _ in pairs:
            notify_readable(one, ready)
        before = int(getm().sched.netpoll_waiters)
        for _, other in pairs[1:4]:
            current_host().write(other, b"x")
        told = {await ready.recv() for _ in range(3)}
        # Each tells once: of a byte more nobody hears until it is asked for again.
        current_host().write(pairs[1][1], b"y")
        with pytest.raises(TimeoutError):
            await ready.recv(timeout_ns=2 * MS)
        notify_readable(pairs[1][0], ready)
        again = await ready.recv()
        assert told == {one for one, _ in pairs[1:4]}
        assert again == pairs[1][0]
        return [before], before

    assert run(host, main, procs, like)[1] == 5


@both_hosts
def test_a_notification_takes_the_place_of_a_reader(host: type[Host]) -> None:
    async def main() -> list[object]:
        one, _ = current_host().tcp_pair()
        ready = Channel(2)
        notify_readable(one, ready)
        with pytest.raises(DoubleWait):
            notify_readable(one, ready)
        with pytest.raises(DoubleWait):
            await wait_readable(one)
        notify_writable(one, ready)
        told = [await ready.recv()]
        close(one)
        told.append(await ready.recv())
        return [fd == one for fd in told]

    assert run(host, main) == [True, True]


@both_hosts
def test_a_notification_that_cannot_be_leaves_a_deadlock_to_be_told(host: type[Host]) -> None:
    async def main() -> None:
        ready = Channel(1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            notify_readable(1_000_000, ready)
        await ready.recv()

    with pytest.raises(Deadlock, match="chan receive"):
        run(host, main)


# The sleeper.


@both_hosts
@procs
@by_rules
def test_the_waker_that_was_asserted_is_fetched(host: type[Host], procs: int, like: str) -> None:
    async def main() -> list[int]:
        sleeper, wakers = Sleeper(), [Waker() for _ in range(4)]
        for waker in wakers:
            sleeper.add(waker)
        told: list[int] = []
        done = WaitGroup(1)

        async def fetches() -> None:
            while 3 not in told:
                told.append(wakers.index(await sleeper.fetch()))
            done.done()

        go(fetches())
        for number in (2, 0, 0, 3):
            wakers[number].wake()
            await gosched()
        await done.wait()
        # 0 once or twice, as it was fetched between the two or not.
        return told if told.count(0) == 1 else [2, *told[2:]]

    assert run(host, main, procs, like) == [2, 0, 3]


@both_hosts
def test_assertions_are_fetched_in_their_order_and_each_once(host: type[Host]) -> None:
    async def main() -> list[int]:
        sleeper, wakers = Sleeper(), [Waker() for _ in range(3)]
        wakers[1].wake()
        for waker in wakers:
            sleeper.add(waker)
        for number in (2, 0, 2, 1):
            wakers[number].wake()
        assert wakers[0].clear()
        assert not wakers[0].clear()
        told = [wakers.index(await sleeper.fetch()) for _ in range(2)]
        with pytest.raises(TimeoutError):
            await sleeper.fetch(timeout_ns=0)
        return told

    assert run(host, main) == [1, 2]


@both_hosts
def test_a_fetch_ends_in_time_and_can_be_made_again(host: type[Host]) -> None:
    async def main() -> bool:
        sleeper, waker = Sleeper(), Waker()
        sleeper.add(waker)
        begin_ns = current_host().nanotime()
        with pytest.raises(TimeoutError):
            await sleeper.fetch(timeout_ns=2 * MS)
        assert current_host().nanotime() - begin_ns >= 2 * MS

        async def asserts() -> None:
            await sleep(MS)
            waker.wake()

        go(asserts())
        return await sleeper.fetch(timeout_ns=3_600_000 * MS) is waker

    assert run(host, main) is True


@both_hosts
def test_a_waker_has_one_sleeper_and_a_sleeper_one_goroutine(host: type[Host]) -> None:
    async def main() -> None:
        sleeper, other, waker = Sleeper(), Sleeper(), Waker()
        sleeper.add(waker)
        for again in (sleeper, other):
            with pytest.raises(ValueError, match="has a sleeper already"):
                again.add(waker)

        async def fetches() -> None:
            await sleeper.fetch()

        go(fetches())
        await gosched()
        while sleeper.wait is None:
            await gosched()
        with pytest.raises(RuntimeError, match="another goroutine waits"):
            await sleeper.fetch()
        waker.wake()
        await gosched()
        sleeper.done()
        other.add(waker)
        with pytest.raises(Deadlock):
            Runtime(1, host=host()).run(Sleeper().fetch)

    run(host, main)
