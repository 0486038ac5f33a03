"""What was true when a window of records began: who lived, and what each P was.

Example: a P is held in a read since a minute ago. The window has the last 30 s, and no row of the
P, for rows tell changes. So the head has its last row from before, and a dump begins with it: as
a capture of a running process begins with what is there (``present``) and with a first look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["Head"]

_TASK: Final = TABLES["task"]
_PSTATE: Final = TABLES["pstate"]
_KIND: Final = _TASK.column("kind")
_PRESENT, _EXEC, _EXIT = (_KIND.code(word) for word in ("present", "exec", "exit"))


class Head:
    """The last row of each thread that lives, and of each P.

    Args:
        tasks: records of table task, one for each thread.
        ps: records of table pstate, one for each P.
    """

    def __init__(self, tasks: np.ndarray | None = None, ps: np.ndarray | None = None) -> None:
        self.tasks = np.zeros(0, _TASK.dtype) if tasks is None else tasks
        self.ps = np.zeros(0, _PSTATE.dtype) if ps is None else ps

    def copy(self) -> Head:
        """One that changes by itself: arrays are replaced here, and never written to."""
        return Head(self.tasks, self.ps)

    def take(self, records: Mapping[str, np.ndarray]) -> None:
        """Records, by table, that the window has no more."""
        tasks, ps = records.get("task"), records.get("pstate")
        if tasks is not None and len(tasks):
            self._take_tasks(tasks)
        if ps is not None and len(ps):
            self.ps = _last_of(np.concatenate([self.ps, ps]), ("pid", "p"))
            self._forget_ps()

    def rows(self, begin_ns: int, later: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a trace that begins at ``begin_ns`` has to say first.

        Args:
            begin_ns: CLOCK_MONOTONIC.
            later: the trace's other records, by table.

        Returns:
            Records of task (kind ``present``) and of pstate, all of that moment. A P whose next
            row says that it changed since a moment before ``begin_ns`` is left out: nobody knows
            which it was.
        """
        tasks = self.tasks.copy()
        tasks["ts_ns"], tasks["kind"] = begin_ns, _PRESENT
        tasks["parent_tid"] = tasks["cpu"] = UNKNOWN
        ps = self.ps
        after = later.get("pstate")
        if after is not None and len(ps) and len(after):
            first = _last_of(after[::-1], ("pid", "p"))
            changed = first[(first["since_ns"] < begin_ns) & (first["since_ns"] != UNKNOWN)]
            ps = ps[~np.isin(_keys(ps, ("pid", "p")), _keys(changed, ("pid", "p")))]
        ps = ps.copy()
        ps["ts_ns"], ps["since_ns"] = begin_ns, UNKNOWN
        return {"task": tasks, "pstate": ps}

    def _take_tasks(self, news: np.ndarray) -> None:
        both = np.concatenate([self.tasks, news])
        # An exec ends all other threads of its process, and not each of them has a row of its own.
        execs = _last_of(both[both["kind"] == _EXEC], ("pid",))
        for row in execs:
            old = (both["pid"] == row["pid"]) & (both["generation"] < row["generation"])
            both = both[~old]
        last = _last_of(both, ("tid",))
        self.tasks = last[last["kind"] != _EXIT]
        self._forget_ps()

    def _forget_ps(self) -> None:
        self.ps = self.ps[np.isin(self.ps["pid"], self.tasks["pid"])]


def _keys(records: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """One number for the values of up to two columns of 32 bits."""
    keys = np.zeros(len(records), np.int64)
    for name in names:
        keys = keys << 32 | (records[name].astype(np.int64) & 0xFFFFFFFF)
    return keys


def _last_of(records: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """The last record of each value of some columns, in the order in which they stand."""
    _, at = np.unique(_keys(records, names)[::-1], return_index=True)
    return records[np.sort(len(records) - 1 - at)]
