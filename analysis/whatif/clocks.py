"""What a capture tells about a moment: CPU time of a thread, its short calls, idle Ps."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.names import syscall_numbers
from analysis.ptime.timeline import rows_around
from analysis.windowed.asof import Ints
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["CpuClock", "IdleClock", "ShortCalls"]


class ShortCalls:
    """How many calls that did not block each thread made, where a capture tells them."""

    def __init__(self, trace: Trace, begin: int, end: int) -> None:
        names = ("exit_ns", "tid", "nr", "blocks")
        rows = rows_around(trace, "syscall", names, [(begin, end)])
        rows = rows[rows["blocks"] == 0]
        self.told = bool(len(rows))
        # A futex is the runtime's own: a replay's runtime makes its own, too.
        futex = rows["nr"].isin(syscall_numbers(trace.manifest.arch, "futex"))
        rows = rows[~futex].sort_values("exit_ns", kind="stable")
        self._lines = {
            int(str(tid)): own.to_numpy() for tid, own in rows.groupby("tid")["exit_ns"]
        }

    def made(self, tid: int, begin: int, end: int) -> int:
        """Those of a thread that returned in [begin, end)."""
        line = self._lines.get(tid)
        if line is None:
            return 0
        first, last = np.searchsorted(line, (begin, end), "left")
        return int(max(last - first, 0))


class CpuClock:
    """How long each thread had a CPU, from the switches of a span."""

    def __init__(self, trace: Trace, begin: int, end: int) -> None:
        names = ("ts_ns", "prev_tid", "next_tid")
        rows = rows_around(trace, "sched_switch", names, [(begin, end)])
        times = rows["ts_ns"].to_numpy()
        edges = pd.DataFrame(
            {
                "tid": np.r_[rows["prev_tid"].to_numpy(), rows["next_tid"].to_numpy()],
                "ts_ns": np.r_[times, times],
                "on": np.repeat((0, 1), len(times)),
            }
        )
        edges = edges[edges["tid"] > 0].sort_values(["tid", "ts_ns", "on"], kind="stable")
        self._lines: dict[int, tuple[Ints, Ints, Ints]] = {}
        for tid, own in edges.groupby("tid"):
            at, on = own["ts_ns"].to_numpy(), own["on"].to_numpy()
            # Before its first switch a thread was what that switch ended.
            at, on = np.r_[begin, at], np.r_[1 - on[0], on]
            sums = np.r_[0, np.cumsum(np.diff(at) * on[:-1])]
            self._lines[int(str(tid))] = (at, on, sums)

    def used(self, tid: int, begin: int, end: int) -> int:
        """CPU time of a thread between two moments; all of it where it never switched."""
        line = self._lines.get(tid)
        if line is None or end <= begin:
            return max(end - begin, 0)
        return self._until(line, end) - self._until(line, begin)

    def before(self, tid: int, end: int, ns: int) -> int:
        """The moment from which a thread used ``ns`` of a CPU up to ``end``."""
        line = self._lines.get(tid)
        if line is None:
            return end - ns
        at, on, sums = line
        wanted = self._until(line, end) - ns
        place = max(int(np.searchsorted(sums, wanted, "right")) - 1, 0)
        return int(at[place] + (wanted - sums[place]) * on[place])

    @staticmethod
    def _until(line: tuple[Ints, Ints, Ints], at_ns: int) -> int:
        at, on, sums = line
        place = int(np.searchsorted(at, at_ns, "right")) - 1
        return int(sums[place] + on[place] * (at_ns - at[place])) if place >= 0 else 0


class IdleClock:
    """Whether a P was idle between two moments, by what the runtime's rows told."""

    def __init__(self, runtime: pd.DataFrame) -> None:
        told = runtime[runtime["npidle"] != UNKNOWN]
        self._at = told["ts_ns"].to_numpy()
        self._sums = np.r_[0, np.cumsum(told["npidle"].to_numpy() > 0)]

    def was_idle(self, begin: int, end: int) -> bool:
        """Whether any row in the span, or the last before it, told of an idle P."""
        first = max(int(np.searchsorted(self._at, begin, "right")) - 1, 0)
        last = int(np.searchsorted(self._at, end, "left"))
        return bool(self._sums[last] > self._sums[min(first, last)])
