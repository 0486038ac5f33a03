"""Goroutines as a program sees them, on one P and on several."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from reference_runtime import (
    Channel,
    ChannelClosed,
    Deadlock,
    Mutex,
    Runtime,
    WaitGroup,
    go,
    gosched,
    read,
    recv_case,
    select,
    send_case,
    sleep,
    spin,
    wait_readable,
    write,
)
from reference_runtime.goroutines import current_host
from reference_runtime.host import Host
from reference_runtime.real_host import RealHost
from reference_runtime.sim.sim_host import SimHost

procs = pytest.mark.parametrize("procs", [1, 2, 4])
UNASKED = "off"
"""No time slices, for tests of the order: who is stopped for his goes to the end of the queue, and
on a thread that is kept from its CPU for 10 ms that is anybody."""


@procs
def test_main_returns_its_value(procs: int) -> None:
    async def main(a: int, b: int) -> int:
        return a * b

    assert Runtime(procs=procs).run(main, 6, 7) == 42


def test_goroutines_of_one_p_take_turns_in_order() -> None:
    turns: list[str] = []

    async def worker(name: str, done: WaitGroup) -> None:
        for _ in range(3):
            turns.append(name)
            await gosched()
        done.done()

    async def main() -> None:
        done = WaitGroup(3)
        for name in "abc":
            go(worker(name, done))
        await done.wait()

    Runtime(procs=1, preempt=UNASKED).run(main)
    assert "".join(turns) == "abcabcabc"


def test_a_generator_is_a_goroutine_whose_yield_is_gosched() -> None:
    turns: list[int] = []

    def worker(number: int, done: WaitGroup) -> Generator[None, None, None]:
        for _ in range(2):
            turns.append(number)
            yield
        done.done()

    async def main() -> None:
        done = WaitGroup(2)
        go(worker(1, done))
        go(worker(2, done))
        await done.wait()

    Runtime(procs=1, preempt=UNASKED).run(main)
    assert turns == [1, 2, 1, 2]


@procs
@pytest.mark.parametrize("capacity", [2, 4, 256])
def test_every_goroutine_runs_once_whatever_the_queue_holds(procs: int, capacity: int) -> None:
    async def worker(number: int, ran: list[int], done: WaitGroup) -> None:
        await gosched()
        ran.append(number)
        done.done()

    async def main() -> list[int]:
        ran: list[int] = []
        done = WaitGroup(1000)
        for number in range(1000):
            go(worker(number, ran, done))
        await done.wait()
        return ran

    ran = Runtime(procs=procs, queue_capacity=capacity).run(main)
    assert isinstance(ran, list)
    assert sorted(ran) == list(range(1000))


@procs
@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_a_channel_keeps_order_and_loses_nothing(procs: int, capacity: int) -> None:
    async def sender(channel: Channel) -> None:
        for number in range(500):
            await channel.send(number)
        channel.close()

    async def main() -> list[object]:
        channel = Channel(capacity)
        go(sender(channel))
        return [value async for value in channel]

    assert Runtime(procs=procs).run(main) == list(range(500))


def test_a_closed_channel_gives_what_it_holds_and_then_says_so() -> None:
    async def main() -> list[object]:
        channel = Channel(2)
        await channel.send("a")
        await channel.send("b")
        channel.close()
        got = [await channel.recv(), await channel.recv()]
        with pytest.raises(ChannelClosed):
            await channel.recv()
        with pytest.raises(ChannelClosed):
            await channel.send("c")
        with pytest.raises(ChannelClosed):
            channel.close()
        return got

    assert Runtime(procs=1).run(main) == ["a", "b"]


def test_close_wakes_whoever_waits() -> None:
    async def receiver(channel: Channel, ended: list[str], done: WaitGroup) -> None:
        with pytest.raises(ChannelClosed):
            await channel.recv()
        ended.append("receiver")
        done.done()

    async def main() -> list[str]:
        channel = Channel()
        ended: list[str] = []
        done = WaitGroup(2)
        go(receiver(channel, ended, done))
        go(receiver(channel, ended, done))
        await gosched()
        channel.close()
        await done.wait()
        return ended

    assert Runtime(procs=1).run(main) == ["receiver"] * 2


def test_select_takes_the_case_that_can_be_done() -> None:
    async def main() -> list[object]:
        empty, full, room = Channel(), Channel(1), Channel(1)
        await full.send(1)
        results: list[object] = [await select([recv_case(empty), recv_case(full)])]
        results.append(await select([recv_case(empty), send_case(room, 2)]))
        results.append(await select([recv_case(empty)], wait=False))
        empty.close()
        results.append(await select([recv_case(empty), send_case(room, 3)]))
        return results

    assert Runtime(procs=1).run(main) == [
        (1, 1, True),
        (1, None, True),
        (-1, None, False),
        (0, None, False),
    ]


@procs
def test_a_waiting_select_is_served_once(procs: int) -> None:
    async def sender(channel: Channel, first: int) -> None:
        for number in range(first, first + 100):
            await channel.send(number)

    async def main() -> list[object]:
        left, right = Channel(), Channel()
        go(sender(left, 0))
        go(sender(right, 100))
        got = []
        for _ in range(200):
            _, value, ok = await select([recv_case(left), recv_case(right)])
            assert ok
            got.append(value)
        assert (await select([recv_case(left), recv_case(right)], wait=False))[0] == -1
        return got

    got = Runtime(procs=procs).run(main)
    assert isinstance(got, list)
    assert [n for n in got if n < 100] == list(range(100))
    assert [n for n in got if n >= 100] == list(range(100, 200))


@procs
def test_a_mutex_lets_one_in(procs: int) -> None:
    async def worker(mutex: Mutex, inside: list[int], most: list[int], done: WaitGroup) -> None:
        for _ in range(20):
            await mutex.lock()
            inside.append(1)
            most.append(len(inside))
            await gosched()
            inside.pop()
            mutex.unlock()
        done.done()

    async def main() -> int:
        mutex, done = Mutex(), WaitGroup(5)
        inside: list[int] = []
        most: list[int] = []
        for _ in range(5):
            go(worker(mutex, inside, most, done))
        await done.wait()
        assert len(most) == 100
        return max(most)

    assert Runtime(procs=procs).run(main) == 1


def test_unlock_of_a_free_mutex_is_refused() -> None:
    async def main() -> None:
        Mutex().unlock()

    with pytest.raises(RuntimeError, match="unlocked mutex"):
        Runtime(procs=1).run(main)


@procs
@pytest.mark.parametrize("host", [RealHost, SimHost])
def test_sleepers_sleep_as_long_as_they_asked(procs: int, host: type[Host]) -> None:
    async def sleeper(ms: int, woken: dict[int, int], done: WaitGroup) -> None:
        begin_ns = current_host().nanotime()
        await sleep(ms * 1_000_000)
        woken[ms] = current_host().nanotime() - begin_ns
        done.done()

    async def main() -> dict[int, int]:
        woken: dict[int, int] = {}
        done = WaitGroup(3)
        for ms in (60, 1, 30):
            go(sleeper(ms, woken, done))
        await done.wait()
        return woken

    woken = Runtime(procs=procs, host=host()).run(main)
    assert isinstance(woken, dict)
    assert all(took_ns >= ms * 1_000_000 for ms, took_ns in woken.items())
    # On a slow machine one may begin its sleep when another's is over already.
    assert host is RealHost or list(woken) == [1, 30, 60]


@procs
def test_the_network_poller_wakes_who_waits_for_a_descriptor(procs: int) -> None:
    async def echo(inbound: int, outbound: int) -> None:
        while True:
            await wait_readable(inbound)
            await write(outbound, await read(inbound, 16))

    async def main() -> list[bytes]:
        (a_read, a_write), (b_read, b_write) = os.pipe(), os.pipe()
        go(echo(a_read, b_write))
        got = []
        for number in range(50):
            await write(a_write, b"%d" % number)
            await wait_readable(b_read)
            got.append(await read(b_read, 16))
        return got

    assert Runtime(procs=procs).run(main) == [b"%d" % number for number in range(50)]


@procs
@pytest.mark.parametrize("policy", ["sysmon", "block"])
def test_what_a_system_call_raises_is_raised_in_its_goroutine(procs: int, policy: str) -> None:
    async def main() -> str:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await read(-1, 1)
        return "went on"

    assert Runtime(procs=procs, policy=policy).run(main) == "went on"


def test_native_cpu_work_runs_as_a_goroutine() -> None:
    async def main() -> int:
        host = Runtime(procs=1).host
        begin_ns = host.nanotime()
        await spin(2_000_000)
        return host.nanotime() - begin_ns

    took_ns = Runtime(procs=1).run(main)
    assert isinstance(took_ns, int)
    assert took_ns >= 2_000_000


@procs
def test_a_goroutine_that_raises_ends_the_program_with_its_traceback(procs: int) -> None:
    async def culprit() -> None:
        raise LookupError("lost")

    async def main() -> None:
        go(culprit(), "culprit")
        await Channel().recv()

    with pytest.raises(LookupError, match="lost") as caught:
        Runtime(procs=procs).run(main)
    assert caught.traceback[-1].name == "culprit"
    assert caught.value.__notes__ == ["goroutine 2 [culprit]"]


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        Runtime(procs=1).run(main)


@procs
def test_a_deadlock_tells_who_waits_for_what_and_where(procs: int) -> None:
    async def receiver(channel: Channel) -> None:
        await channel.recv()

    async def main() -> None:
        go(receiver(Channel()), "receiver")
        await Channel().send(1)

    with pytest.raises(Deadlock, match="all goroutines are asleep") as caught:
        Runtime(procs=procs).run(main)
    first, second = caught.value.waiting
    assert first.startswith("goroutine 1 [main]: chan send")
    assert second.startswith("goroutine 2 [receiver]: chan receive, at ")


def test_goroutines_that_are_left_at_the_end_are_abandoned() -> None:
    cleaned: list[str] = []

    async def waiter() -> None:
        try:
            await Channel().recv()
        finally:
            cleaned.append("waiter")

    async def main() -> str:
        go(waiter())
        await gosched()
        return "done"

    assert Runtime(procs=1).run(main) == "done"
    assert cleaned == ["waiter"]


def test_go_outside_of_a_run_says_so() -> None:
    async def nothing() -> None:
        pass

    coroutine = nothing()
    with pytest.raises(RuntimeError, match="goroutines only"):
        go(coroutine)
    coroutine.close()
