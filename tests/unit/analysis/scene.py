"""Traces made by hand, row by row, for tests whose answers were computed by hand.

Times are in microseconds, so that a test reads like a time line; the trace has nanoseconds.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from tracer.trace.columns import Column
from tracer.trace.made_trace import write_trace
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

US = 1_000
READ, POLL, FUTEX = 0, 7, 202


class Scene:
    """Rows of a trace; every method adds one and returns nothing."""

    def __init__(self, **manifest: object) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.manifest = {"begin_ns": 0, **manifest}

    def task(
        self, tid: int, pid: int, comm: str = "worker", at: float = 0, kind: str = "present"
    ) -> None:
        self._add("task", at, tid=tid, pid=pid, comm=comm, kind=kind)

    def block(
        self, at: float, tid: int, enter: float | None, p: int | None, **more: object
    ) -> None:
        row = {"p_use": "syscall", "goid": tid * 10, "nr": READ, **more}
        row["enter_ns"] = None if enter is None else round(enter * US)
        self._add("block", at, tid=tid, p=p, **row)

    def exit(self, at: float, tid: int, enter: float | None, **more: object) -> None:
        self.rows["syscall"].append(
            {
                "exit_ns": round(at * US),
                "enter_ns": None if enter is None else round(enter * US),
                "tid": tid,
                "nr": READ,
                **more,
            }
        )

    def runtime(
        self, at: float, kind: str, tid: int, p: int | None = None, **more: object
    ) -> None:
        self._add("runtime", at, kind=kind, tid=tid, p=p, **more)

    def wakeup(self, at: float, tid: int, **more: object) -> None:
        self._add("sched_wakeup", at, tid=tid, **more)

    def switch(
        self, at: float, prev: int, next_: int, state: str = "blocked", cpu: int = 0
    ) -> None:
        self._add("sched_switch", at, prev_tid=prev, next_tid=next_, prev_state=state, cpu=cpu)

    def signal(self, at: float, kind: str, tid: int, **more: object) -> None:
        self._add("signal", at, kind=kind, tid=tid, signo=23, **more)

    def loss(self, begin: float, end: float, table: str, lost: int = 1) -> None:
        self.rows["loss"].append(
            {
                "begin_ns": round(begin * US),
                "end_ns": round(end * US),
                "table": table,
                "lost": lost,
            }
        )

    def frame(self, table: str) -> pd.DataFrame:
        """The rows of one table, as far as plain values go."""
        columns = TABLES[table].columns
        rows = [
            {c.name: row.get(c.name, _default(c)) for c in columns} for row in self.rows[table]
        ]
        return pd.DataFrame(rows, columns=[c.name for c in columns])

    def write(self, folder: Path, name: str = "scene.pretake") -> Trace:
        tables = {
            table: {
                column.name: [row.get(column.name, _default(column)) for row in rows]
                for column in TABLES[table].columns
            }
            for table, rows in self.rows.items()
        }
        return write_trace(folder / name, tables, self.manifest)

    def _add(self, table: str, at: float, **row: object) -> None:
        self.rows[table].append({"ts_ns": round(at * US), **row})


def _default(column: Column) -> object:
    if column.nullable:
        return None
    if column.words:
        return column.words[0]
    return "" if column.type == "comm" else 0


def only(frame: pd.DataFrame) -> dict[str, Any]:
    """The one row of a frame, null as None."""
    assert len(frame) == 1, frame
    row = frame.astype(object).where(frame.notna(), None).iloc[0]
    return dict(row)
