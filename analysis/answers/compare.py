"""Several traces side by side: one row each, for the table that a person reads first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.answers.summary import Summary, summary
from analysis.schema import Field, Frame
from tracer.trace.columns import storable
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["COMPARISON", "compare", "trace_label"]

_TOO_LARGE = 2**63

COMPARISON = Frame(
    "comparison",
    "one trace, with the figures in which retake policies differ",
    (
        Field("trace", "name of the trace's folder", "str"),
        Field("policy", "retake policy, if the traced program recorded it", "str"),
        Field("workload", "its workload, if it recorded it", "str"),
        Field("episodes", "calls in which a thread blocked with a P, or handed it off"),
        Field("retaken", "those whose P was taken after the block"),
        Field("retake_p50_ns", "median of the P-retake latency"),
        Field("retake_p90_ns", "its 90th percentile"),
        Field("retake_p99_ns", "its 99th percentile"),
        Field(
            "retake_unknown",
            "episodes whose P was given up and did not go idle, and whose latency is not known",
        ),
        Field("hold_p50_ns", "median of the hold"),
        Field("hold_sum_ns", "all holds together"),
        Field("hold_unknown", "episodes whose hold is not known; no figure of the hold has them"),
        Field("harm_p99_ns", "99th percentile of the harm"),
        Field("harm_sum_ns", "all harm together; null if it is known of no episode"),
        Field("harm_unknown", "episodes whose harm is not known; they would add to the sum"),
        Field("untrusted", "episodes during which records were lost; no figure has them"),
        Field("round_trip_p50_ns", "median round trip, as the workload measured it itself"),
        Field("round_trip_p90_ns", "its 90th percentile"),
        Field("round_trip_p99_ns", "its 99th percentile"),
        Field("handoffs", "handoffs of a P, for any reason"),
        Field("events", "records stored"),
        Field("lost", "records that found no room"),
        Field("capture_cpu_ns", "the capture's own CPU time"),
        Field("capture_wall_ns", "how long the capture lasted"),
    ),
)


def compare(traces: Sequence[Trace], summaries: Sequence[Summary] | None = None) -> pd.DataFrame:
    """Compare traces.

    Args:
        traces: the traces.
        summaries: theirs, if they are at hand; else they are made.

    Returns:
        A DataFrame of :data:`COMPARISON`, in the order of ``traces``.

    Raises:
        PretakeError: a trace cannot be read.
    """
    if summaries is None:
        summaries = [summary(trace) for trace in traces]
    rows = pd.DataFrame(
        [_row(trace, told) for trace, told in zip(traces, summaries, strict=True)],
        columns=list(COMPARISON.names),
    )
    return COMPARISON.finish({name: rows[name] for name in COMPARISON.names})


def trace_label(trace: Trace) -> str:
    """What to call a trace: its folder's name without the ending."""
    return storable(trace.path.resolve().name.removesuffix(".pretake"))


def _row(trace: Trace, told: Summary) -> dict[str, Any]:
    workload = trace.manifest.workload or {}
    trips = workload.get("round_trip_ns")
    name = workload.get("name")
    numbers = {
        "episodes": told["episodes"],
        "retaken": told["retaken"],
        "retake_p50_ns": told["retake_ns"]["p50"],
        "retake_p90_ns": told["retake_ns"]["p90"],
        "retake_p99_ns": told["retake_ns"]["p99"],
        "retake_unknown": told["retake_ns"]["unknown"],
        "hold_p50_ns": told["hold_ns"]["p50"],
        "hold_sum_ns": told["hold_ns"]["sum"],
        "hold_unknown": told["hold_ns"]["unknown"],
        "harm_p99_ns": told["harm_ns"]["p99"],
        # A sum over nothing known is no 0.
        "harm_sum_ns": told["harm_ns"]["sum"],
        "harm_unknown": told["harm_ns"]["unknown"],
        "untrusted": told["untrusted"],
        **{f"round_trip_{q}_ns": _number(trips, q) for q in ("p50", "p90", "p99")},
        "handoffs": sum(told["handoffs"].values()),
        "events": told["events"],
        "lost": told["lost"],
        "capture_cpu_ns": _ns(told["capture"]["cpu_s"]),
        "capture_wall_ns": _ns(told["capture"]["wall_s"]),
    }
    return {
        "trace": trace_label(trace),
        "policy": told["policy"],
        "workload": name if isinstance(name, str) else None,
        **{name: UNKNOWN if value is None else _fitting(value) for name, value in numbers.items()},
    }


def _number(values: object, name: str) -> int | None:
    """A number that the traced program wrote; None for anything else."""
    found = values.get(name) if isinstance(values, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return _whole(found)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else _whole(seconds * 1e9)


def _fitting(number: int) -> int:
    """A sum that no column holds is not known."""
    return number if abs(number) < _TOO_LARGE else UNKNOWN


def _whole(number: float) -> int | None:
    """What a column holds; whoever wrote the manifest may have written any number."""
    return round(number) if abs(number) < _TOO_LARGE else None
