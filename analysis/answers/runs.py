"""The figures of one run, by which runs are compared, and of the machine that it ran on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.answers.budget import budget_over_time
from analysis.answers.compare import trace_label
from analysis.answers.summary import Summary, summary
from analysis.stats.blocks import block_noise
from analysis.stats.verdict import FEW, detectable
from analysis.units import percent_text
from tracer.trace.manifest import Machine
from tracer.trace.reader import Trace

__all__ = ["FIGURES", "PRIMARY", "Run", "run_of", "would_show"]

PRIMARY = "lost_p.share"
"""Lost P time (at least) of the P time of the process that lost most."""

FIGURES = (
    PRIMARY,
    "goroutine_wait.mean",
    "without_goroutine_ns.p50",
    "without_goroutine_ns.p99",
    "retake_ns.p50",
    "retake_ns.p99",
    "hold_ns.p50",
    "harm_ns.sum",
    "round_trip_ns.p50",
    "round_trip_ns.p99",
    "ops_per_s",
)
"""What is compared, the primary figure first. ``goroutine_wait.mean`` is how many goroutines
waited on average; ``round_trip_ns`` and ``ops_per_s`` are the program's own, where it left
them."""

_PIECES = 320


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        label: the trace's name.
        values: by name of :data:`FIGURES`; None where it is not known.
        told: the summary, for conditions.
        noise: how far the primary figure scatters within the run
            (:func:`analysis.stats.blocks.block_noise`).
        machine: what else the machine did.
    """

    label: str
    values: Mapping[str, float | None]
    told: Summary
    noise: float | None = None
    machine: Machine = field(default_factory=Machine)


def run_of(trace: Trace) -> Run:
    """Read one run's figures.

    Raises:
        PretakeError: the trace cannot be read.
    """
    told = summary(trace)
    values: dict[str, float | None] = dict.fromkeys(FIGURES)
    for name in ("retake_ns.p50", "retake_ns.p99", "hold_ns.p50", "harm_ns.sum"):
        values[name] = _of(told, name)
    noise = None
    found, bins = budget_over_time(trace, _PIECES)
    if found["processes"]:
        process = found["processes"][0]
        lost = sum(state["least"] for state in process["lost_ns"].values())
        p_ns, wait = process["p_ns"], process["wait_ns"]
        values[PRIMARY] = lost / p_ns if p_ns else None
        own = bins["pid"] == process["pid"]
        ends = bins["ts_ns"][own]
        span_ns = int(ends[-1]) - process["begin_ns"] if len(ends) else 0
        if span_ns > 0 and wait["unknown"] == 0:
            values["goroutine_wait.mean"] = wait["least"] / span_ns
        for name in ("p50", "p99"):
            values[f"without_goroutine_ns.{name}"] = _number(
                process["without_goroutine_ns"].get(name)
            )
        sums = sum(bins[name][own] for name in bins if name.startswith("least_"))
        noise = block_noise(np.diff(np.r_[0, sums]), np.diff(np.r_[0, bins["p_ns"][own]]))
    workload = trace.manifest.workload or {}
    for name in ("round_trip_ns.p50", "round_trip_ns.p99"):
        values[name] = _of(workload, name)
    values["ops_per_s"] = _number(workload.get("ops_per_s"))
    return Run(trace_label(trace), values, told, noise, trace.manifest.machine)


def would_show(a: Sequence[Run], b: Sequence[Run]) -> str:
    """What to do where there are too few runs for a verdict; empty where there are enough."""
    runs = min(len(a), len(b))
    if runs >= 2:
        return ""
    head = "one run each: no verdict" if len(a) == len(b) == 1 else "one run of a side: no verdict"
    noises = [run.noise for run in (*a, *b) if run.noise is not None]
    if not noises:
        return f"{head}; record {FEW} of each (pretake bench, or pretake record --repeat {FEW})"
    least = detectable(max(noises))
    return (
        f"{head}; {FEW} of each would show a change of {PRIMARY} of {percent_text(100 * least)} "
        "or more, as far as each run varies within itself (pretake bench makes them)"
    )


def _of(values: Mapping[str, Any] | Summary, name: str) -> float | None:
    first, _, second = name.partition(".")
    found = values.get(first)
    return _number(found.get(second)) if isinstance(found, Mapping) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
