"""A Go execution trace as a trace of this project, as far as it reaches.

An execution trace has events of goroutines and Ps, and none of the kernel. So:

- A call whose P was taken makes a block and an episode. The trace does not have the time of the
  block, so it is set to the entry of the call. Holds and latencies are too long by the time for
  which the thread still ran. A call that kept its P makes no episode, because it looks like a call
  that never blocked.
- The trace does not say who took a P (the monitor, the collector, another M), so the reason is
  null.
- ``run`` is the first goroutine on a P after it changed its M.
- The trace does not have single run queues. ``global_runq`` counts all runnable goroutines, and
  ``runq`` is 0. ``npidle`` counts idle Ps, and ``nmspinning`` Ps that have an M and run nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from analysis.trust.go_trace import parsed_text
from tracer.trace.made_trace import write_trace
from tracer.trace.reader import Trace

__all__ = ["go_tables", "import_go_trace"]

_TRANSITION = re.compile(
    r"^M=(-?\d+) P=(-?\d+) G=-?\d+ StateTransition Time=(\d+) "
    r"(ProcID|GoID)=(\d+) (\w+)->(\w+)(?: Reason=\"([^\"]*)\")?",
    re.MULTILINE,
)

Tables = dict[str, dict[str, list[Any]]]


def import_go_trace(path: Path, out: Path) -> Trace:
    """Write an execution trace as a trace.

    Raises:
        PretakeError: it is no execution trace, Go is not there to read it, or ``out`` exists.
    """
    tables, begin, end = go_tables(parsed_text(path))
    missing = ("sched_switch and sched_wakeup", "signals", "blocks of calls that kept their P")
    return write_trace(
        out,
        tables,
        {
            "backend": "import",
            "begin_ns": begin,
            "end_ns": end,
            "target": {"path": str(path.name), "runtime": "go"},
            "attached": ["runtime/trace"],
            "missing": [
                {"what": what, "why": "a Go execution trace does not tell of them"}
                for what in missing
            ],
        },
    )


def go_tables(text: str) -> tuple[Tables, int | None, int | None]:
    """The tables of a parsed execution trace, and its first and last moment.

    Args:
        text: from ``go tool trace -d=parsed``.
    """
    reader = _Reader()
    begin = end = None
    for found in _TRANSITION.finditer(text):
        m, p, at, what, number, before, after, why = found.groups()
        end = int(at)
        begin = end if begin is None else begin
        if what == "ProcID":
            reader.proc(end, int(m), int(p), int(number), after)
        else:
            reader.goroutine(end, int(m), int(p), int(number), before, after, why or "")
    return {name: dict(rows) for name, rows in reader.tables.items()}, begin, end


class _Reader:
    """Follows goroutines and Ps from event to event."""

    def __init__(self) -> None:
        self.tables: defaultdict[str, defaultdict[str, list[Any]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.calls: dict[int, tuple[int, int, int, dict[str, int]]] = {}
        """Open calls by goroutine: entry, thread, P, and the scheduler's state at the entry."""
        self.in_call: dict[int, int] = {}
        """Goroutine of the last call that was entered on a P."""
        self.runnable: set[int] = set()
        self.idle: set[int] = set()
        self.running: dict[int, int | None] = {}
        """Ps with an M, and the goroutine there."""
        self.fresh: set[int] = set()
        """Ps that changed hands and have run nothing since."""

    def proc(self, at: int, m: int, own: int, p: int, after: str) -> None:
        """A P changed its state; ``own`` is the P of the M that tells."""
        if after == "Idle":
            if own != p:
                self.stolen(at, m, p)
            self.running.pop(p, None)
            self.idle.add(p)
            if own == p:
                self.runtime(at, "pidle", m, p)
        elif after == "Running":
            self.idle.discard(p)
            self.running[p] = None
            self.fresh.add(p)
            self.runtime(at, "acquirep", m, p)

    def stolen(self, at: int, thief: int, p: int) -> None:
        """Another M took a P: from the call that was entered on it, if one was."""
        goid = self.in_call.pop(p, None)
        call = None if goid is None else self.calls.get(goid)
        if goid is None or call is None:
            return
        enter, tid, _, state = call
        self.add("block", ts_ns=enter, enter_ns=enter, goid=goid, tid=tid, p=p,
                 p_use="syscall", runq=0, **state)  # fmt: skip
        self.runtime(at, "retake", thief, p, goid=goid, target_tid=tid)

    def goroutine(
        self, at: int, m: int, p: int, goid: int, before: str, after: str, why: str
    ) -> None:
        """A goroutine changed its state, told by M ``m`` with P ``p``."""
        self.runnable.discard(goid)
        if after == "Runnable":
            self.runnable.add(goid)
        if after == "Syscall" and before == "Running":
            self.calls[goid] = (at, m, p, self.state())
            self.in_call[p] = goid
        elif before == "Syscall" and goid in self.calls:
            enter, tid, held, _ = self.calls.pop(goid)
            if self.in_call.get(held) == goid:
                del self.in_call[held]
            self.add("syscall", enter_ns=enter, exit_ns=at, tid=tid, ret=0)
            if after == "Runnable":
                self.runtime(at, "exit_slow", tid, None, goid=goid)
        if after == "Running" and p >= 0:
            if p in self.fresh:
                self.fresh.discard(p)
                self.runtime(at, "run", m, p, goid=goid)
            self.running[p] = goid
        elif before == "Running" and after != "Syscall" and p in self.running:
            self.running[p] = None
        if before == "Running" and after == "Runnable" and why == "preempted":
            self.runtime(at, "preempted", m, p, goid=goid)

    def state(self) -> dict[str, int]:
        """The scheduler as a whole, in the words of table ``runtime``."""
        return {
            "global_runq": len(self.runnable),
            "npidle": len(self.idle),
            "nmspinning": sum(goid is None for goid in self.running.values()),
        }

    def runtime(self, at: int, kind: str, tid: int, p: int | None, **more: int) -> None:
        row = {"goid": None, "target_tid": None, **more}
        self.add("runtime", ts_ns=at, kind=kind, tid=tid, p=p, **row, **self.state())

    def add(self, table: str, **row: object) -> None:
        for name, value in row.items():
            self.tables[table][name].append(value)
