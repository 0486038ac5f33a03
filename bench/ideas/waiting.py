"""Ideas about those that wait for the network, or for one of several sources."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

from analysis.units import duration_text as time_text
from bench.ideas.row import ROUNDS, GoTimes, Row, echo, ratio
from bench.readiness import wake_ns
from reference_runtime.workloads import run_workload


def poller(_: GoTimes) -> Iterator[Row]:
    """A thread for each descriptor, or the poller; and without the poller's look."""
    cells = []
    for like in ("go1.21", "gvisor"):
        threads = echo("block", like=like)
        polled = echo("block", like=like, poller=True)
        cells.append(f"`{like}`: {time_text(round(polled))} against {time_text(round(threads))}")
    yield Row(
        "One thread for each descriptor, against the network poller",
        "threads are faster",
        "; ".join(cells),
        "–",
        "one connection, round trip over the poller against threads with `block`, by Go's rules. "
        "The poller wins: with one P it readies the goroutine on the same thread; else each "
        "message wakes two",
    )


def skipped(_: GoTimes) -> Iterator[Row]:
    """The look at the network that gVisor left out."""
    ops: dict[str, list[float]] = {"go1.21": [], "gvisor": []}
    for _round in range(ROUNDS):
        for like in ops:
            result: Any = run_workload("fanout", policy="sysmon", seconds=0.7, like=like)
            ops[like].append(result["ops_per_s"])
    polled: dict[str, list[float]] = {"go1.21": [], "gvisor": []}
    for _round in range(ROUNDS):
        for like in polled:
            result = run_workload("echo", policy="block", seconds=0.7, like=like, poller=True)
            polled[like].append(result["ops_per_s"])
    yield Row(
        "netpoll is left out of the search for work",
        "5 % faster, of 10 % of the cycles",
        f"{ratio(median(ops['gvisor']), median(ops['go1.21']))} of the throughput where nobody "
        f"waits for a descriptor, {ratio(median(polled['gvisor']), median(polled['go1.21']))} "
        "where all do",
        "–",
        "the look is made only where a goroutine waits for a descriptor",
    )


def readiness(_: GoTimes) -> Iterator[Row]:
    """Readiness without a buffer, told to a goroutine or to a channel."""
    many = 15_000
    cells = []
    for way in ("buffer", "goroutine", "channel"):
        # A process for each: memory that one has given back would serve the next.
        code = f"from bench.readiness import bytes_of; print(bytes_of({way!r}, {many}))"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        cells.append(f"{way}: {float(done.stdout):,.0f} B")
    yield Row(
        "Idle connections wait without a buffer",
        "a read of nothing, or of one byte; readiness told to a channel",
        "; ".join(cells),
        "–",
        f"a connection, of {many:,}: a goroutine with a buffer of 4 KiB, one without "
        "(`wait_readable`), and none (`notify_readable`). A read of nothing never waits on Linux",
    )


def sources(_: GoTimes) -> Iterator[Row]:
    """One of several sources: netstack's sleeper, and a select."""
    cells = []
    for many in (2, 64):
        for how in ("sleeper", "select"):
            cells.append(f"{how} of {many}: {wake_ns(how, many):,.0f} ns")
    yield Row(
        "netstack's package sleep: wake one goroutine by one of several sources",
        "its own package",
        "; ".join(cells),
        "–",
        "a wake-up and the wait for the next, one P; a select queues an object for each source",
    )
