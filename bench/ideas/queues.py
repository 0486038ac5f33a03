"""Ideas about the run queues: runnext, and the sleep before a thief takes it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from statistics import median
from typing import Any

from analysis.units import duration_text as time_text
from bench.ideas.row import ROUNDS, GoTimes, Row
from reference_runtime import Channel, Runtime, Site, WaitGroup, go, nanosleep
from reference_runtime.goroutines import current_host
from reference_runtime.latencies import Latencies
from reference_runtime.like import Rules
from reference_runtime.workloads.latency import distribution

CALL = Site("call")
CALLS = 3_000
CALL_NS = 100_000


def runnext(_: GoTimes) -> Iterator[Row]:
    """A hundred pairs over channels, with and without runnext."""

    async def main() -> float:
        pairs, rounds = 100, 100
        done = WaitGroup(pairs)

        async def pair() -> None:
            there, back = Channel(), Channel()

            async def answers() -> None:
                async for value in there:
                    await back.send(value)

            go(answers())
            for _ in range(rounds):
                await there.send(0)
                await back.recv()
            there.close()
            took_ns.append(current_host().nanotime() - begin_ns)
            done.done()

        took_ns: list[int] = []
        begin_ns = current_host().nanotime()
        for _ in range(pairs):
            go(pair())
        await done.wait()
        return min(took_ns) / rounds

    cells = []
    for like in ("lean", "go1.21"):
        told = [Runtime(1, like=like).run(main) for _ in range(ROUNDS)]
        first_ns = median([ns for ns in told if isinstance(ns, float)])
        cells.append(f"`{like}` {time_text(round(first_ns))}")
    yield Row(
        "A goroutine that is readied runs next, in the same time slice (runnext)",
        "(Go has it)",
        ", ".join(cells),
        "–",
        "a round trip of the first of 100 pairs over channels that is ready, one P",
    )


def thief(_: GoTimes) -> Iterator[Row]:
    """The sleep before a thief takes a runnext, where the P that has it runs nothing."""
    cells = []
    for rules in (Rules("go1.10", always_sleeps=True), Rules("go1.21")):
        told = [stolen(rules) for _round in range(ROUNDS)]
        cells.append(
            f"`{rules.name}` {median(share for share, _ns in told):.1f} % of the CPU time, and "
            f"the goroutine runs after {time_text(round(median(ns for _share, ns in told)))}"
        )
    yield Row(
        "`usleep` in the search for work: a thief sleeps for 3 µs before it takes a runnext",
        "8 → 2 % of the cycles",
        " → ".join(cells),
        "–",
        "a goroutine readies another and enters a call, two Ps. To Go 1.10 the thief slept even "
        "where the P that had the runnext ran nothing. Counted by the runtime itself: CPU time of "
        "the thieves in their sleeps, of that of the process",
    )


def stolen(rules: Rules) -> tuple[float, float]:
    """The share of CPU time in the thieves' sleeps, %, and how late the readied ran, ns."""

    async def main() -> dict[str, Any]:
        host = current_host()
        channel = Channel()
        late = Latencies()

        async def answers() -> None:
            async for sent_ns in channel:
                late.append(host.nanotime() - sent_ns)  # type: ignore[operator]

        go(answers())
        for _ in range(CALLS):
            await channel.send(host.nanotime())
            await nanosleep(CALL_NS, CALL)
        channel.close()
        return distribution(late)

    runtime = Runtime(2, "sysmon")
    runtime.rules = rules
    before = resource.getrusage(resource.RUSAGE_SELF)
    told: Any = runtime.run(main)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    slept_ns = int(runtime.record.thief_sleep_cpu_ns)
    return slept_ns / cpu_s / 1e9 * 100, told["p50"]
