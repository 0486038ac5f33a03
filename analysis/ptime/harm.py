"""How long work waited with nobody free to take it: what turns a hold into harm.

A moment is harmful where a goroutine was runnable (in the held P's run queue or in the global
one) and there was neither an idle P nor a spinning M to take it. The runtime's state is known
only where a row of the trace tells it, so a value holds until the next row of the same process
that tells another. The held P's own queue is the one of the block: while its owner is blocked
nobody adds to it, and what others steal from it is not seen before somebody releases P; so
harm can be too long by the time between such a theft and the release, never too short.

A moment is *unknown* where the rows so far leave it open; an episode with such a moment has no
harm, rather than one that is too small.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.windowed.asof import NOT_FOUND, Ints, Timelines
from tracer.trace.schema import UNKNOWN

__all__ = ["SIGNALS", "HarmClock", "forward_filled"]

SIGNALS = ("global_runq", "npidle", "nmspinning")
"""Columns of the tables block and runtime that tell the state of a process's scheduler."""


def forward_filled(samples: pd.DataFrame) -> pd.DataFrame:
    """``samples`` (pid, ts_ns and SIGNALS) in order, each unknown signal as it was last known."""
    samples = samples.sort_values(["pid", "ts_ns"], kind="stable", ignore_index=True)
    rows = np.arange(len(samples))
    pids = samples["pid"].to_numpy()
    first = np.r_[True, pids[1:] != pids[:-1]] if len(pids) else np.empty(0, bool)
    for signal in SIGNALS:
        values = samples[signal].to_numpy(np.int64)
        # The row to take the value from: the last known one, not from before the process's first.
        source = np.maximum.accumulate(np.where((values != UNKNOWN) | first, rows, 0))
        samples[signal] = values[source]
    return samples


class HarmClock:
    """Counts harmful and unknown nanoseconds between any two moments of a process.

    Args:
        samples: from :func:`forward_filled`.
    """

    def __init__(self, samples: pd.DataFrame) -> None:
        self._times: Ints = samples["ts_ns"].to_numpy(np.int64)
        pids = samples["pid"].to_numpy(np.int64)
        self._lines = Timelines(pids, self._times)
        steps = np.diff(self._times, append=self._times[-1:])
        steps[np.r_[pids[1:] != pids[:-1], True] if len(pids) else []] = 0
        busy, free = _three_valued(samples)
        queued = samples["global_runq"].to_numpy() > 0
        empty = samples["global_runq"].to_numpy() == 0
        # Work waits in P's own queue; there is none in it; it is not known.
        own = _Integral(steps, harmful=busy, unknown=~busy & ~free)
        glob = _Integral(steps, harmful=busy & queued, unknown=~free & ~empty & ~(busy & queued))
        either = _Integral(steps, harmful=busy & queued, unknown=~free & ~(busy & queued))
        self._cases = (own, glob, either)

    def between(self, pids: Ints, begin_ns: Ints, end_ns: Ints, runq: Ints) -> tuple[Ints, Ints]:
        """Harmful and unknown time of each span, in ns.

        Args:
            pids: process of each span.
            begin_ns: its begin.
            end_ns: its end; nothing is counted where that is not after the begin.
            runq: goroutines in the held P's queue, ``UNKNOWN`` where that is not known.
        """
        harm, unknown = np.zeros((2, len(pids)), np.int64)
        some = np.flatnonzero(end_ns > begin_ns)
        pids, begin_ns, end_ns, runq = (x[some] for x in (pids, begin_ns, end_ns, runq))
        begin = self._lines.last_before(pids, begin_ns)
        end = self._lines.last_before(pids, end_ns)
        told = begin != NOT_FOUND
        unknown[some] = np.where(told, 0, end_ns - begin_ns)
        for integral, case in zip(self._cases, (runq > 0, runq == 0, runq < 0), strict=True):
            at = told & case
            for total, sums in ((harm, integral.harmful), (unknown, integral.unknown)):
                reached = self._value(sums, end[at], end_ns[at])
                total[some[at]] = reached - self._value(sums, begin[at], begin_ns[at])
        return harm, unknown

    def _value(self, sums: tuple[Ints, Ints], rows: Ints, times: Ints) -> Ints:
        before, rate = sums
        return before[rows] + rate[rows] * (times - self._times[rows])


class _Integral:
    """Running sums of the harmful and of the unknown time, at each sample."""

    def __init__(self, steps: Ints, harmful: np.ndarray, unknown: np.ndarray) -> None:
        self.harmful = _running_sum(steps, harmful)
        self.unknown = _running_sum(steps, unknown)


def _running_sum(steps: Ints, state: np.ndarray) -> tuple[Ints, Ints]:
    rate = state.astype(np.int64)
    return np.cumsum(rate * steps) - rate * steps, rate


def _three_valued(samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Whether surely nobody could take work, and whether surely somebody could."""
    npidle = samples["npidle"].to_numpy()
    nmspinning = samples["nmspinning"].to_numpy()
    return (npidle == 0) & (nmspinning == 0), (npidle > 0) | (nmspinning > 0)
