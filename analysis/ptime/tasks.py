"""Threads and their processes, from a trace's task table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from tracer.trace.schema import UNKNOWN

__all__ = ["P_KEY_SPAN", "Tasks"]

P_KEY_SPAN = 1 << 24
"""Ps are numbered below this in each process, so ``pid * P_KEY_SPAN + p`` names one."""


class Tasks:
    """Which process a thread belonged to at a moment, and what it was called.

    Args:
        rows: the columns of the task table, with its words. Numbers of threads are used again by
            the kernel, so every answer is as of a moment: the thread's last row before it, or else
            its first one after.
        pid: the process for threads that the table does not know.
    """

    def __init__(self, rows: Mapping[str, Any], pid: int | None = None) -> None:
        self._lines = Timelines(rows["tid"], rows["ts_ns"])
        tids = np.asarray(rows["tid"], np.int64)
        self._pids = np.asarray(rows["pid"], np.int64)
        self._comms = np.asarray(rows["comm"], object)
        ends = np.asarray(rows["kind"], object) == "exit"
        self._end_times = np.asarray(rows["ts_ns"], np.int64)[ends]
        self._ends = Timelines(tids[ends], self._end_times)
        self._tids, first, number = np.unique(tids, return_index=True, return_inverse=True)
        self._pids_of_first = self._pids[first]
        self._shared = bool((self._pids_of_first[number] != self._pids).any())
        self._by_age = np.argsort(first)
        known = np.unique(self._pids)
        # A table with one process leaves no doubt whose a thread is that it does not name.
        only = int(known[0]) if len(known) == 1 else UNKNOWN
        self.default = UNKNOWN if pid is None else pid
        if self.default == UNKNOWN:
            self.default = only
        """The process of a thread that the table does not name."""

    def first_pids(self) -> Iterator[tuple[int, int]]:
        """Each thread, and the process that it belonged to at first."""
        tids, pids = (own[self._by_age] for own in (self._tids, self._pids_of_first))
        return zip(tids.tolist(), pids.tolist(), strict=True)

    def pid(self, tids: npt.ArrayLike, times: npt.ArrayLike) -> Ints:
        """The process of each thread at each moment; ``UNKNOWN`` where nothing tells."""
        tids = np.asarray(tids, np.int64)
        if not self._shared and len(self._tids):
            # No thread's number was used twice: what it belonged to is no matter of time.
            at = np.searchsorted(self._tids, tids)
            at[at == len(self._tids)] = NOT_FOUND
            at[self._tids[at] != tids] = NOT_FOUND
            return take(self._pids_of_first, at, self.default)
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
