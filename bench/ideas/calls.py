"""Ideas about the call: the hint, and its price."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from analysis.units import duration_text as time_text
from bench.ideas.row import ROUNDS, GoTimes, Row, echo, overlay, ratio, simulated
from reference_runtime.sim.costs import Costs
from reference_runtime.workloads import run_workload


def hint(go_times: GoTimes) -> Iterator[Row]:
    """The call that gives its P away, and the state of the thread."""
    times = {policy: echo(policy) for policy in ("sysmon", "block", "thread_state", "sched_out")}
    one = "–"
    if go_times:
        normal, block = go_times[1, "normal"], go_times[1, "block"]
        one = f"{time_text(round(normal))} → {time_text(round(block))} ({ratio(block, normal)})"
    base = times["sysmon"]
    yield Row(
        "A call that gives its P away before it blocks (`entersyscallblock`)",
        "round trip 182 → 112 µs (0.62)",
        f"{time_text(round(base))} → {time_text(round(times['block']))} "
        f"({ratio(times['block'], base)})",
        one,
        "larger here than there: with one P nearly all of the round trip is the wait for sysmon",
    )
    yield Row(
        "sysmon asks for the thread's state and takes P at once",
        "half of the gain",
        f"{time_text(round(times['thread_state']))} ({ratio(times['thread_state'], base)})",
        overlay("threadstate"),
        "one look of two is saved",
    )
    yield Row(
        "The kernel tells of the block (perf events on the program's own threads)",
        "an idea",
        f"{time_text(round(times['sched_out']))} ({ratio(times['sched_out'], base)})",
        f"{overlay('schedout')}; where the thread that is told runs the P: {overlay('schedrun')}",
        "no hint is needed; two threads wake one after the other, or one",
    )


def neighbour(go_times: GoTimes) -> Iterator[Row]:
    """The hint beside a goroutine that is always busy, and what that one gets done."""
    ops: dict[str, list[float]] = {"sysmon": [], "block": []}
    done: dict[str, list[float]] = {"sysmon": [], "block": []}
    for _ in range(ROUNDS):
        for policy in ops:
            result: Any = run_workload("echo", policy=policy, procs=2, seconds=0.7, busy=1)
            ops[policy].append(result["ops_per_s"])
            done[policy].append(result["busy_slices"] / result["wall_s"])
    one = "–"
    if go_times:
        one = f"{ratio(go_times[2, 'normal'], go_times[2, 'block'])} times the round trips"
    yield Row(
        "The same with two Ps, beside a busy goroutine",
        "–",
        f"{ratio(median(ops['block']), median(ops['sysmon']))} times the round trips; the busy "
        f"one gets {ratio(median(done['block']), median(done['sysmon']))} times as much done",
        one,
        "against `sysmon`, under which the pair keeps both Ps from call to call and the busy one "
        "waits for the end of a time slice; with the hint it runs at each wait",
    )


def kvm(_: GoTimes) -> Iterator[Row]:
    """Dearer system calls, simulated."""
    cells = []
    for scale in (1.0, 2.0, 3.0):
        costs = Costs().scaled(scale)
        times = {
            policy: simulated("echo", policy, rounds=300, costs=costs)["result"]["round_trip_ns"][
                "p50"
            ]
            for policy in ("sysmon", "block")
        }
        cells.append(f"× {scale:g}: {ratio(times['block'], times['sysmon'])}")
    yield Row(
        "System calls under KVM",
        "2 to 3 times dearer",
        ", ".join(cells),
        "–",
        "round trip of `block` against `sysmon`, simulated: the price of a call hardly matters",
    )
