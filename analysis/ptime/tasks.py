"""Threads and their processes, from a trace's task table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from tracer.trace.schema import UNKNOWN

__all__ = ["P_KEY_SPAN", "Tasks"]

P_KEY_SPAN = 1 << 24
"""Ps are numbered below this in each process, so ``pid * P_KEY_SPAN + p`` names one."""


class Tasks:
    """Which process a thread belonged to at a moment, and what it was called.

    Args:
        rows: the task table. Numbers of threads are used again by the kernel, so every answer
            is as of a moment: the thread's last row before it, or else its first one after.
        pid: the process for threads that the table does not know.
    """

    def __init__(self, rows: pd.DataFrame, pid: int | None = None) -> None:
        self._lines = Timelines(rows["tid"], rows["ts_ns"])
        self._pids = np.asarray(rows["pid"], np.int64)
        self._comms = np.asarray(rows["comm"], object)
        ends = rows[rows["kind"] == "exit"]
        self._ends = Timelines(ends["tid"], ends["ts_ns"])
        self._end_times = np.asarray(ends["ts_ns"], np.int64)
        owners = rows[["tid", "pid"]].drop_duplicates()
        self._shared = bool(owners["tid"].duplicated().any())
        self._first = pd.Index(rows["tid"].drop_duplicates())
        self._pids_of_first = self._pids[np.flatnonzero(~rows["tid"].duplicated().to_numpy())]
        known = np.unique(self._pids)
        # A table with one process leaves no doubt whose a thread is that it does not name.
        only = int(known[0]) if len(known) == 1 else UNKNOWN
        self.default = UNKNOWN if pid is None else pid
        if self.default == UNKNOWN:
            self.default = only
        """The process of a thread that the table does not name."""

    def first_pids(self) -> Iterator[tuple[int, int]]:
        """Each thread, and the process that it belonged to at first."""
        return zip(self._first.tolist(), self._pids_of_first.tolist(), strict=True)

    def pid(self, tids: npt.ArrayLike, times: npt.ArrayLike) -> Ints:
        """The process of each thread at each moment; ``UNKNOWN`` where nothing tells."""
        tids = np.asarray(tids, np.int64)
        if not self._shared:
            # No thread's number was used twice: what it belonged to is no matter of time.
            return take(self._pids_of_first, self._first.get_indexer(pd.Index(tids)), self.default)
        return take(self._pids, self._rows(tids, times), self.default)

    def comm(self, tids: npt.ArrayLike, times: npt.ArrayLike) -> npt.NDArray[Any]:
        """The name of each thread at each moment; None where nothing tells."""
        rows = self._rows(tids, times)
        names = np.full(len(rows), None, object)
        names[rows != NOT_FOUND] = self._comms[rows[rows != NOT_FOUND]]
        return names

    def end_ns(self, tids: npt.ArrayLike, times: npt.ArrayLike) -> Ints:
        """When each thread ended, at or after each moment; ``UNKNOWN`` if it did not."""
        return take(self._end_times, self._ends.first_after(tids, times), UNKNOWN)

    def _rows(self, tids: npt.ArrayLike, times: npt.ArrayLike) -> Ints:
        before = self._lines.last_before(tids, times)
        after = self._lines.first_after(tids, times)
        return np.where(before == NOT_FOUND, after, before)


def p_key(pids: npt.ArrayLike, ps: npt.ArrayLike) -> Ints:
    """One number for a P of a process; ``UNKNOWN`` where P is not known."""
    ps = np.asarray(ps, np.int64)
    return np.where(ps == UNKNOWN, UNKNOWN, np.asarray(pids, np.int64) * P_KEY_SPAN + ps)
