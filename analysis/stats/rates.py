"""How often each thing happened in a run: system calls, signals and the runtime's transitions.

Example: the second side has 400 retakes by sysmon a second more than the first. Events come in
bursts, and runs differ, so whether that is a difference is judged from several runs
(:mod:`analysis.stats.verdict`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from analysis.names import syscall_names
from analysis.stats.verdict import judge
from analysis.windowed import plain
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["SLICES", "rates"]

SLICES = 100
"""Into how many equal slices of time a capture is cut."""

_RUNTIME = TABLES["runtime"]
_SIGNAL_KINDS = TABLES["signal"].column("kind").words


def rates(a: Sequence[Trace], b: Sequence[Trace]) -> pd.DataFrame:
    """Compare how often each thing happened on two sides.

    Args:
        a: the runs to compare with.
        b: the runs to compare.

    Returns:
        A DataFrame of :data:`analysis.stats.verdict.DIFFERENCE`, its values in events a second:
        figures ``syscall.read``, ``signal.SIGURG.deliver``, ``runtime.retake.sysmon``, the largest
        difference first. None is the primary figure; all are corrected as one family. A thing
        that a run has not is 0 there, as long as its trace tells of that kind at all.

    Raises:
        PretakeError: a trace cannot be read.
    """
    sides = [[_per_second(trace) for trace in side] for side in (a, b)]
    figures = sorted({name for side in sides for run in side for name in run})
    full = [[{name: run.get(name, 0.0) for name in figures} for run in side] for side in sides]
    table = judge(full[0], full[1], figures, primary=False)
    order: pd.Series[float] = (
        (table["b"] - table["a"]).abs().sort_values(kind="stable", ascending=False)
    )
    return pd.DataFrame(table.loc[order.index]).reset_index(drop=True)


def _per_second(trace: Trace) -> dict[str, float]:
    seconds = _span_ns(trace) / 1e9
    return {figure: count / seconds for figure, count in _counts(trace).items()}


def _counts(trace: Trace) -> dict[str, int]:
    """Events by figure."""
    found: dict[str, int] = {}
    for (number,), count in _groups(trace, "syscall", ["nr"]):
        (name,) = syscall_names([number], trace.manifest.arch)
        found[f"syscall.{name or 'unknown'}"] = count
    for (number, kind), count in _groups(trace, "signal", ["signo", "kind"]):
        found[f"signal.{_signal_name(number)}.{_SIGNAL_KINDS[kind]}"] = count
    for (kind, reason), count in _groups(trace, "runtime", ["kind", "reason"]):
        words = [_RUNTIME.column("kind").words[kind]]
        if reason != UNKNOWN:
            words.append(_RUNTIME.column("reason").words[reason])
        found[".".join(["runtime", *words])] = count
    return found


def _groups(trace: Trace, table: str, keys: list[str]) -> Iterator[tuple[tuple[int, ...], int]]:
    """How often each combination of keys is there."""
    rows = plain.from_arrow(table, trace.arrow(table, keys))
    codes, counts = np.unique(rows[keys].to_numpy(np.int64), axis=0, return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        yield tuple(code), count


def _span_ns(trace: Trace) -> int:
    """The length of a capture; of its switches where the manifest has no end."""
    begin, end = trace.manifest.begin_ns, trace.manifest.end_ns
    if begin is None or end is None:
        times = trace.arrow("sched_switch", ("ts_ns",)).column("ts_ns").to_numpy()
        begin, end = (int(times.min()), int(times.max())) if len(times) else (0, 1)
    return max(end - begin, 1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
