"""Two Ps that run Python code: ``python -m bench.parallel`` prints how much more they get done.

Nothing here is native code without the GIL, so that with a GIL two Ps cannot do more than one.
The figure is throughput with 2 Ps by that with 1, in turns in one process. ``bench.runtime`` runs
it by a Python with a GIL and by one without.

``compute`` is goroutines that compute and yield every 20 µs or so; ``messages`` is pairs that talk
over channels of their own, so that nearly all of it is the scheduler.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any

from reference_runtime import Channel, Runtime, WaitGroup, go, gosched
from reference_runtime.current import COMPILED
from reference_runtime.locks import NO_GIL

PAIRS = 4
ROUNDS = 7


async def compute() -> None:
    done = WaitGroup(PAIRS)

    async def work() -> None:
        x = 88172645463325252
        for _ in range(600):
            for _ in range(200):
                x ^= (x << 13) & 0xFFFFFFFF
                x ^= x >> 7
            await gosched()
        done.done()

    for _ in range(PAIRS):
        go(work())
    await done.wait()


async def messages() -> None:
    done = WaitGroup(PAIRS)

    async def pong(there: Channel, back: Channel) -> None:
        for _ in range(2_000):
            await back.send(await there.recv())

    async def ping(there: Channel, back: Channel) -> None:
        for _ in range(2_000):
            await there.send(1)
            await back.recv()
        done.done()

    for _ in range(PAIRS):
        there, back = Channel(), Channel()
        go(pong(there, back))
        go(ping(there, back))
    await done.wait()


def took_ns(procs: int, main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    begin_ns = time.monotonic_ns()
    Runtime(procs=procs).run(main)
    return time.monotonic_ns() - begin_ns


def measure() -> dict[str, float | bool]:
    ratios: dict[str, float | bool] = {"no_gil": NO_GIL, "compiled": COMPILED}
    for main in (compute, messages):
        turns = [(took_ns(1, main), took_ns(2, main)) for _ in range(ROUNDS)]
        ratios[main.__name__] = round(median(one / two for one, two in turns), 3)
        ratios[f"{main.__name__}_ns"] = median(one for one, _ in turns)
    return ratios


if __name__ == "__main__":
    print(json.dumps(measure()), file=sys.stdout, flush=True)
