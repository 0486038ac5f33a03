"""One measurement in a process of its own: ``python -m bench.peers PEER WHAT`` prints it.

Every peer does the same: ``switch`` is 100 tasks that yield to each other, ``spawn`` is tasks that
return at once, ``ping_pong`` is a round trip of two tasks over two unbuffered channels (queues of
one where a peer has no unbuffered ones), ``live`` is the memory of a task that waits, in bytes;
all others are times, in ns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

TASKS = 100
TURNS = 4_000
SPAWNS = 100_000
PINGS = 50_000
LIVE = 1_000_000

Measure = Callable[[], float]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# The reference runtime.


def runtime_switch() -> float:
    from reference_runtime import Runtime, WaitGroup, go, gosched

    async def task(done: WaitGroup) -> None:
        for _ in range(TURNS):
            await gosched()
        done.done()

    async def main() -> float:
        done = WaitGroup(TASKS)
        for _ in range(TASKS):
            go(task(done))
        begin = time.perf_counter_ns()
        await done.wait()
        return (time.perf_counter_ns() - begin) / (TASKS * TURNS)

    return Runtime(procs=1).run(main)  # type: ignore[return-value]


def runtime_spawn() -> float:
    from reference_runtime import Runtime, WaitGroup, go

    async def task(done: WaitGroup) -> None:
        done.done()

    async def main() -> float:
        done = WaitGroup(SPAWNS)
        begin = time.perf_counter_ns()
        for _ in range(SPAWNS):
            go(task(done))
        await done.wait()
        return (time.perf_counter_ns() - begin) / SPAWNS

    return Runtime(procs=1).run(main)  # type: ignore[return-value]


def runtime_ping_pong() -> float:
    from reference_runtime import Channel, Runtime, go

    async def pong(there: Channel, back: Channel) -> None:
        for _ in range(PINGS):
            await back.send(await there.recv())

    async def main() -> float:
        there, back = Channel(), Channel()
        go(pong(there, back))
        begin = time.perf_counter_ns()
        for _ in range(PINGS):
            await there.send(1)
            await back.recv()
        return (time.perf_counter_ns() - begin) / PINGS

    return Runtime(procs=1).run(main)  # type: ignore[return-value]


def runtime_live() -> float:
    from reference_runtime import Channel, Runtime, go, gosched
    from reference_runtime.goroutines import getm

    async def task(channel: Channel) -> None:
        await channel.recv()

    async def main() -> float:
        channel = Channel()
        before = resident_bytes()
        for _ in range(LIVE):
            go(task(channel))
        await gosched()
        used = resident_bytes() - before
        assert getm().sched.ngoroutines == LIVE + 1
        channel.close()
        return used / LIVE

    # What closing a million goroutines costs is not asked: the process ends with the figure.
    return Runtime(procs=1).run(main)  # type: ignore[return-value]


# asyncio, and uvloop under it.


def asyncio_switch() -> float:
    import asyncio

    async def task() -> None:
        for _ in range(TURNS // 4):
            await asyncio.sleep(0)

    async def main() -> float:
        begin = time.perf_counter_ns()
        await asyncio.gather(*(task() for _ in range(TASKS)))
        return (time.perf_counter_ns() - begin) / (TASKS * TURNS // 4)

    return asyncio_run(main())


def asyncio_spawn() -> float:
    import asyncio

    async def task() -> None:
        return

    async def main() -> float:
        begin = time.perf_counter_ns()
        await asyncio.gather(*[asyncio.create_task(task()) for _ in range(SPAWNS)])
        return (time.perf_counter_ns() - begin) / SPAWNS

    return asyncio_run(main())


def asyncio_ping_pong() -> float:
    import asyncio

    async def main() -> float:
        there: asyncio.Queue[int] = asyncio.Queue(1)
        back: asyncio.Queue[int] = asyncio.Queue(1)

        async def pong() -> None:
            for _ in range(PINGS):
                await back.put(await there.get())

        other = asyncio.create_task(pong())
        begin = time.perf_counter_ns()
        for _ in range(PINGS):
            await there.put(1)
            await back.get()
        await other
        return (time.perf_counter_ns() - begin) / PINGS

    return asyncio_run(main())


def asyncio_run(main: Coroutine[Any, Any, float]) -> float:
    import asyncio

    if sys.argv[1] == "uvloop":
        import uvloop

        return uvloop.run(main)  # type: ignore[no-any-return]
    return asyncio.run(main)


# gevent and trio.


def gevent_switch() -> float:
    import gevent

    def task() -> None:
        for _ in range(TURNS // 4):
            gevent.sleep(0)

    begin = time.perf_counter_ns()
    gevent.joinall([gevent.spawn(task) for _ in range(TASKS)])
    return (time.perf_counter_ns() - begin) / (TASKS * TURNS // 4)


def gevent_spawn() -> float:
    import gevent

    begin = time.perf_counter_ns()
    gevent.joinall([gevent.spawn(int) for _ in range(SPAWNS)])
    return (time.perf_counter_ns() - begin) / SPAWNS


def trio_switch() -> float:
    import trio

    async def task() -> None:
        for _ in range(TURNS // 10):
            await trio.lowlevel.checkpoint()

    async def main() -> float:
        begin = time.perf_counter_ns()
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(task)
        return (time.perf_counter_ns() - begin) / (TASKS * TURNS // 10)

    return trio.run(main)  # type: ignore[no-any-return]


def trio_spawn() -> float:
    import trio

    async def task() -> None:
        return

    async def main() -> float:
        begin = time.perf_counter_ns()
        async with trio.open_nursery() as nursery:
            for _ in range(SPAWNS // 10):
                nursery.start_soon(task)
        return (time.perf_counter_ns() - begin) / (SPAWNS // 10)

    return trio.run(main)  # type: ignore[no-any-return]


PEERS: dict[str, dict[str, Measure]] = {
    "runtime": {
        "switch": runtime_switch,
        "spawn": runtime_spawn,
        "ping_pong": runtime_ping_pong,
        "live": runtime_live,
    },
    "asyncio": {
        "switch": asyncio_switch,
        "spawn": asyncio_spawn,
        "ping_pong": asyncio_ping_pong,
    },
    "uvloop": {
        "switch": asyncio_switch,
        "spawn": asyncio_spawn,
        "ping_pong": asyncio_ping_pong,
    },
    "gevent": {"switch": gevent_switch, "spawn": gevent_spawn},
    "trio": {"switch": trio_switch, "spawn": trio_spawn},
}

if __name__ == "__main__":
    print(PEERS[sys.argv[1]][sys.argv[2]](), flush=True)
