"""Ideas about a kernel that tells of blocks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from statistics import median
from typing import Any

from analysis.units import duration_text as time_text
from bench.ideas.row import ROUNDS, GoTimes, Row, ratio, simulated
from reference_runtime.policies.sched_out import SchedOutPolicy
from reference_runtime.workloads import run_workload
from tracer.errors import PretakeError
from tracer.kernel.perf_events import SwitchEvent, decode_switches


class Deaf(SchedOutPolicy):
    """``sched_out`` whose events never come."""

    name = "deaf"

    def m_started(self, m: object) -> None:
        """No event for this thread."""


def upcall(_: GoTimes) -> Iterator[Row]:
    """The kernel wakes the M that takes P: one wake-up from a block to the next goroutine."""
    ways = ("sysmon", "sched_out", "block", "upcall")
    retakes: dict[str, list[float]] = {way: [] for way in ways}
    trips: dict[str, list[float]] = {way: [] for way in ways}
    try:
        for _round in range(ROUNDS):
            for way in ways:
                result: Any = run_workload("echo", policy=way, seconds=0.7)
                retakes[way].append(result["retake_ns"]["p50"])
                trips[way].append(result["round_trip_ns"]["p50"])
        base = {"retake": median(retakes["sysmon"]), "trip": median(trips["sysmon"])}
        cells = [
            f"`{way}` {time_text(round(median(retakes[way])))} "
            f"({ratio(median(retakes[way]), base['retake'])}), round trip "
            f"{ratio(median(trips[way]), base['trip'])}"
            for way in ways
        ]
    except PretakeError as refused:
        cells = [str(refused)]
    yield Row(
        "The kernel wakes the thread that goes on (BPF at `sched_switch` sends a signal)",
        "named as an idea (UMS, switchto)",
        "<br>".join(cells),
        "–",
        "retake latency p50 of echo, and against `sysmon`; `upcall` needs root and Linux 6.13. "
        "One wake-up from the block to the next goroutine, where `sched_out` has two",
    )


def ums(_: GoTimes) -> Iterator[Row]:
    """A kernel that hands over the CPU, simulated, beside one that wakes a thread."""
    told = {
        policy: simulated("echo", policy, rounds=300)["result"]["round_trip_ns"]["p50"]
        for policy in ("sysmon", "sched_out", "upcall", "ums", "block")
    }
    yield Row(
        "User-mode scheduling: the kernel calls the scheduler (UMS, switchto)",
        "named as an idea",
        ", ".join(f"{name} {ratio(ns, told['sysmon'])}" for name, ns in told.items()),
        "–",
        "round trip against `sysmon`, simulated: Linux has neither UMS nor switchto. `ums` is "
        "given the CPU that the blocked thread leaves, `upcall` is woken",
    )


def backup(_: GoTimes) -> Iterator[Row]:
    """A net under the events, and what happens without events, simulated."""
    cells = []
    for net_ms in (5, 20, 100):
        told = simulated("echo", Deaf(net_ms * 1_000_000), rounds=20)
        cells.append(f"{net_ms} ms: {time_text(told['result']['round_trip_ns']['p50'])}")
    heard = simulated("echo", "sched_out", rounds=200)
    yield Row(
        "A backup: a call that no event told of loses its P after 100 ms",
        "100 ms",
        f"round trip {time_text(heard['result']['round_trip_ns']['p50'])} with events; "
        f"without any: {', '.join(cells)}",
        "–",
        "`--backup MS`; without events each wait for a P lasts one to two backups (simulated)",
    )


def whose(_: GoTimes) -> Iterator[Row]:
    """Whether a record of a switch names the other thread."""
    cells = []
    for name, tid, cpu in (("own thread", 0, -1), ("whole machine", -1, 0)):
        event = None
        try:
            event = SwitchEvent(tid, cpu, pages=64)
            for _round in range(20):
                os.sched_yield()
                with tempfile.TemporaryFile() as file:
                    file.write(b"x")
                    os.fsync(file.fileno())
            rows, _lost = decode_switches(event.read())
            named = int((rows["other_tid"] >= 0).sum())
            cells.append(f"{name}: {named} of {len(rows)} records name it")
        except PretakeError as refused:
            cells.append(f"{name}: {refused}")
        finally:
            if event is not None:
                event.close()
    yield Row(
        "The record of a switch names the thread that blocked",
        "only a machine-wide event does",
        "; ".join(cells),
        "–",
        "as said; with one event for each thread the ring that has the record tells it",
    )
