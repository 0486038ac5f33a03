"""The lengths of calls at which each way of calling wins, with and without other work."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any, Final

from bench.ideas.pictures import Panel, draw_lines
from bench.ideas.row import ROUNDS, GoTimes, Row, simulated
from reference_runtime.workloads import run_workload

POLICIES: Final = ("raw", "sysmon", "block", "sched_out")
LENGTHS_US: Final = (0, 10, 30, 100, 300, 1_000)
"""Of a sleep; 0 is a call that does not block. A sleep ends by the machine's timer slack later."""
BUSY: Final = {0: "nothing else to do", 1: "beside a busy goroutine"}
CALLS: Final = 400
SECONDS: Final = 0.3
PICTURE: Final = "window.svg"


def window(_: GoTimes) -> Iterator[Row]:
    """Throughput by the length of a call: simulated, and on this machine; and a picture of it."""
    panels = [
        Panel(f"{where}, {load}", against_best({us: sweep(us, busy) for us in LENGTHS_US}))
        for where, sweep in (("simulated", _simulated), ("this machine", _real))
        for busy, load in BUSY.items()
    ]
    cells = []
    for panel in panels:
        best = [
            f"{us} µs {max(POLICIES, key=lambda way: ways[way])}"
            for us, ways in panel.values.items()
        ]
        cells.append(f"*{panel.title}*: {', '.join(best)}")
    yield Row(
        "The lengths of calls for which a hint pays",
        "calls that surely block",
        "<br>".join(cells),
        "–",
        "the best way for four workers, each 5 µs of work and such a call in turns, one P; by "
        f"how much: ![throughput by the length of a call](images/{PICTURE})",
        partial(
            draw_lines,
            PICTURE,
            panels,
            "length of a call, µs (0: it does not block)",
            "calls a second, against the best way",
        ),
    )


def against_best(rates: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """Each way's rate against the highest of the same length."""
    return {
        us: {way: rate / max(ways.values()) for way, rate in ways.items()}
        for us, ways in rates.items()
    }


def _of(us: int, busy: int) -> dict[str, Any]:
    return {"long_share": float(us > 0), "long_ns": us * 1_000, "cpu_goroutines": busy}


def _simulated(us: int, busy: int) -> dict[str, float]:
    rates = {}
    for policy in POLICIES:
        told = simulated("calls", policy, rounds=CALLS, **_of(us, busy))
        rates[policy] = told["result"]["rounds"] / told["clock_ns"] * 1e9
    return rates


def _real(us: int, busy: int) -> dict[str, float]:
    rates: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for _ in range(ROUNDS):
        for policy, told in rates.items():
            result: Any = run_workload("calls", policy=policy, seconds=SECONDS, **_of(us, busy))
            told.append(result["ops_per_s"])
    return {policy: median(told) for policy, told in rates.items()}
