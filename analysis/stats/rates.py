"""What one run has more of than another: events a second, with intervals.

Example: the second run has 400 retakes by sysmon a second more than the first. System calls by
name, signals, and the runtime's transitions by kind and reason are each counted as a rate over
the whole capture. Events come in bursts, so the interval is a bootstrap of slices of time, not
of events.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.names import syscall_names
from analysis.stats.diff import DIFFERENCE, tell_difference
from analysis.stats.resample import interval, resampled_mean
from analysis.windowed import plain
from analysis.windowed.columns import capture_span
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["SLICES", "rates"]

SLICES = 100
"""Into how many equal slices of time a capture is cut."""

_RUNTIME = TABLES["runtime"]
_SIGNAL_KINDS = TABLES["signal"].column("kind").words

Counts = dict[str, npt.NDArray[np.int64]]


def rates(a: Trace, b: Trace, seed: int = 0) -> pd.DataFrame:
    """Compare how often each thing happened in two traces.

    Args:
        a: the trace to compare with.
        b: the trace to compare.
        seed: of the resampling; the same seed gives the same intervals.

    Returns:
        A DataFrame of :data:`analysis.stats.diff.DIFFERENCE`, its values in events a second:
        figures ``syscall.read``, ``signal.SIGURG.deliver``, ``runtime.retake.sysmon``, the largest
        difference first. A thing that one trace has not is 0 there, as long as that trace tells of
        its kind at all.

    Raises:
        PretakeError: a trace cannot be read.
    """
    random = np.random.default_rng(seed)
    counts = [_counts(trace) for trace in (a, b)]
    spans = [capture_span(trace) for trace in (a, b)]
    seconds = [max(end_ns - begin_ns, 1) / 1e9 for begin_ns, end_ns in spans]
    nothing = np.zeros(SLICES, np.int64)
    rows = []
    for figure in sorted(set(counts[0]) | set(counts[1])):
        slices = [found.get(figure, nothing) for found in counts]
        rows.append({"figure": figure, **_compare_rates(slices, seconds, random)})
    table = pd.DataFrame(rows, columns=list(DIFFERENCE.names))
    order = (table["b"].astype(float) - table["a"].astype(float)).abs().sort_values(kind="stable")
    table = table.loc[order.index[::-1]]
    return DIFFERENCE.finish(
        {
            name: table[name].to_numpy()
            if name == "figure"
            else table[name].to_numpy(np.int64 if name == "verdict" else np.float64)
            for name in DIFFERENCE.names
        }
    )


def _compare_rates(
    slices: list[npt.NDArray[np.int64]], seconds: list[float], random: np.random.Generator
) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(DIFFERENCE.names[1:-1], np.nan)
    draws = []
    for name, counts, span_s in zip(("a", "b"), slices, seconds, strict=True):
        per_s = counts.astype(np.float64) * (SLICES / span_s)
        found[name] = float(per_s.mean())
        # Where no slice has any, or the same number of them, a resample has no spread either.
        draws.append(resampled_mean(per_s, random))
        found[f"{name}_low"], found[f"{name}_high"] = interval(draws[-1])
    tell_difference(found, draws[0], draws[1])
    return found


def _counts(trace: Trace) -> Counts:
    """Events in each slice, by figure."""
    calls = plain.from_arrow("syscall", trace.arrow("syscall", ("exit_ns", "nr")))
    signals = plain.from_arrow("signal", trace.arrow("signal", ("ts_ns", "signo", "kind")))
    runtime = plain.from_arrow("runtime", trace.arrow("runtime", ("ts_ns", "kind", "reason")))
    found: Counts = {}
    for (number,), times in _groups(calls, ["nr"], "exit_ns"):
        (name,) = syscall_names(np.array([number]))
        found[f"syscall.{name or 'unknown'}"] = _sliced(trace, times)
    for (number, kind), times in _groups(signals, ["signo", "kind"], "ts_ns"):
        figure = f"signal.{_signal_name(number)}.{_SIGNAL_KINDS[kind]}"
        found[figure] = _sliced(trace, times)
    for (kind, reason), times in _groups(runtime, ["kind", "reason"], "ts_ns"):
        words = [_RUNTIME.column("kind").words[kind]]
        if reason != UNKNOWN:
            words.append(_RUNTIME.column("reason").words[reason])
        found[".".join(["runtime", *words])] = _sliced(trace, times)
    return found


def _groups(
    rows: pd.DataFrame, keys: list[str], time: str
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.int64]]]:
    """The times of each combination of keys."""
    codes, which = np.unique(rows[keys].to_numpy(np.int64), axis=0, return_inverse=True)
    times = rows[time].to_numpy(np.int64)
    for number, code in enumerate(codes.tolist()):
        yield tuple(code), times[which.ravel() == number]


def _sliced(trace: Trace, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    begin_ns, end_ns = capture_span(trace)
    at = (times - begin_ns) * SLICES // max(end_ns - begin_ns, 1)
    return np.bincount(np.clip(at, 0, SLICES - 1), minlength=SLICES).astype(np.int64)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
