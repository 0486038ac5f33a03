"""Small programs that exist twice: here and in Go (``tests/go/conformance/main.go``).

Each tells the order in which its goroutines did things, on one P. ``tests/go/test_conformance.py``
asks real Go; what it tells stands in ``GO``, so that it is asked for here without Go too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reference_runtime import Channel, Mutex, Runtime, WaitGroup, go, gosched
from reference_runtime.sim.sim_host import SimHost

__all__ = ["DIFFERENT", "GO", "SCENES", "orders"]

Log = list[str]
Scene = Callable[[Log], Awaitable[None]]


async def start_order(log: Log) -> None:
    done = WaitGroup(5)

    async def one(i: int) -> None:
        log.append(f"run {i}")
        done.done()

    for i in range(1, 6):
        go(one(i))
    await done.wait()


async def gosched_turns(log: Log) -> None:
    done = WaitGroup(3)

    async def one(i: int) -> None:
        for _ in range(3):
            log.append(f"turn {i}")
            await gosched()
        done.done()

    for i in range(1, 4):
        go(one(i))
    await done.wait()


async def closed(log: Log) -> None:
    ready, gone = Channel(), Channel()
    done = WaitGroup(4)

    async def one(i: int) -> None:
        await ready.send(i)
        async for _ in gone:
            pass
        log.append(f"woke {i}")
        done.done()

    for i in range(1, 5):
        go(one(i))
    for _ in range(4):
        log.append(f"ready {await ready.recv()}")
    gone.close()
    await done.wait()


async def hand_over(log: Log, room: int, many: int) -> None:
    values = Channel(room)

    async def sends() -> None:
        for i in range(1, many + 1):
            log.append(f"send {i}")
            await values.send(i)
        values.close()

    go(sends())
    async for value in values:
        log.append(f"recv {value}")


async def ping_pong(log: Log) -> None:
    await hand_over(log, 0, 5)


async def buffered(log: Log) -> None:
    await hand_over(log, 2, 6)


async def family(log: Log) -> None:
    done = WaitGroup(1)

    async def born(name: int) -> None:
        log.append(f"born {name}")
        if name < 100:
            done.add(2)
            go(born(10 * name + 1))
            go(born(10 * name + 2))
        done.done()

    go(born(1))
    await done.wait()


async def waiters(log: Log) -> None:
    work, done, there = WaitGroup(1), WaitGroup(3), Channel()

    async def one(i: int) -> None:
        await there.send(True)
        await work.wait()
        log.append(f"woke {i}")
        done.done()

    for i in range(1, 4):
        go(one(i))
    for _ in range(3):
        await there.recv()
    await gosched()
    log.append("done 0")
    work.done()
    log.append("went on 0")
    await done.wait()


async def gather(log: Log) -> None:
    answers = Channel()

    async def one(i: int) -> None:
        log.append(f"work {i}")
        await answers.send(i)
        log.append(f"told {i}")

    for i in range(1, 5):
        go(one(i))
    for _ in range(4):
        log.append(f"answer {await answers.recv()}")
    await gosched()


async def locked(log: Log) -> None:
    mutex, done = Mutex(), WaitGroup(1)

    async def other() -> None:
        await mutex.lock()
        log.append("got 2")
        mutex.unlock()
        done.done()

    await mutex.lock()
    go(other())
    await gosched()
    mutex.unlock()
    await mutex.lock()
    log.append("got 1")
    mutex.unlock()
    await done.wait()


SCENES: dict[str, Scene] = {
    "start_order": start_order,
    "gosched": gosched_turns,
    "closed": closed,
    "ping_pong": ping_pong,
    "buffered": buffered,
    "family": family,
    "waiters": waiters,
    "gather": gather,
    "locked": locked,
}


def orders(like: str) -> dict[str, Log]:
    """What each program tells under these rules, on one P of the simulated host."""
    told: dict[str, Log] = {}
    for name, scene in SCENES.items():
        log: Log = []

        async def main(scene: Scene = scene, log: Log = log) -> None:
            await scene(log)

        Runtime(1, host=SimHost(2), like=like).run(main)
        told[name] = log
    return told


def words(text: str) -> Log:
    """What was told, from one line."""
    return text.split(", ")


GO: dict[str, Log] = {
    "start_order": words("run 5, run 1, run 2, run 3, run 4"),
    "gosched": words("turn 3, turn 1, turn 2, turn 3, turn 1, turn 2, turn 3, turn 1, turn 2"),
    "closed": words("ready 4, ready 1, ready 2, ready 3, woke 4, woke 3, woke 2, woke 1"),
    "ping_pong": words(
        "send 1, send 2, recv 1, recv 2, send 3, send 4, recv 3, recv 4, send 5, recv 5"
    ),
    "buffered": words(
        "send 1, send 2, send 3, send 4, recv 1, recv 2, recv 3, recv 4, "
        "send 5, send 6, recv 5, recv 6"
    ),
    "family": words("born 1, born 12, born 122, born 11, born 112, born 121, born 111"),
    "waiters": words("done 0, went on 0, woke 2, woke 3, woke 1"),
    "gather": words(
        "work 4, told 4, answer 4, work 1, told 1, answer 1, "
        "work 2, told 2, answer 2, work 3, told 3, answer 3"
    ),
}
"""What real Go tells, of each version that the tests have; the same here by each of Go's rules."""

DIFFERENT: dict[str, tuple[Log, Log]] = {
    "locked": (words("got 1, got 2"), words("got 2, got 1")),
}
"""What Go tells, and what is told here: Go's mutex may be had by who gives it up, before those who
have waited for less than a millisecond; here it is handed to who has waited longest."""
