"""What each thread of a captured run did, in order: stretches and calls of goroutines.

A thread's line is made of *marks*: where a goroutine begins on it (``run``, ``acquirep``), where
the runtime says that it left (``exit_slow``, ``stopm``), and its calls. Example: run G7 at 100,
call of G7 from 250 to 400, stopm at 420 makes a stretch of G7 from 100 to 250, the call, and a
stretch from 400 to 420 after which G7 waits for a P.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, zip_longest
from statistics import median
from typing import NamedTuple

import pandas as pd

from analysis.whatif.clocks import CpuClock
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["NAMELESS", "Item", "thread_lines"]

_KIND = TABLES["runtime"].column("kind")
_RUN = _KIND.code("run")
_ACQUIREP = _KIND.code("acquirep")
_EXIT_SLOW = _KIND.code("exit_slow")
_ENDS = (_EXIT_SLOW, _KIND.code("stopm"))
NAMELESS = -2
"""From here downwards: goroutines without a name, one for each P."""


@dataclass
class Item:
    """A stretch of CPU time (``call`` is None) or a call, of one goroutine on one thread."""

    goid: int
    tid: int
    begin: int
    end: int
    call: int | None = None
    ready: int = 0
    """Of a call: when the goroutine was done with all but the call's handoff."""
    queued: bool = False
    """What follows is a wait for a P: the runtime said so."""
    probed: bool = False
    """It begins in a probe: at ``run``."""
    lets_run: bool = False
    """Another goroutine has the P after it, and it waits in a queue."""
    slow: bool = False
    """It ends where the runtime finds that P is gone: at ``exit_slow``."""
    fires: list[tuple[int, int]] = field(default_factory=list)
    """Moments, and the events that happened at them."""


# Of marks at one moment an end comes before a begin, and a begin before a call.
_END, _BEGIN, _CALL = range(3)


class _Mark(NamedTuple):
    """A moment at which a thread's line changes; marks sort by time, then by kind."""

    ts_ns: int
    kind: int
    """``_END``, ``_BEGIN`` or ``_CALL``."""
    goid: int = UNKNOWN
    """Of the goroutine that begins or leaves."""
    row: int = UNKNOWN
    """Of a call: its row."""
    slow: bool = False
    """Of an end: the runtime finds there that P is gone."""


class _Call(NamedTuple):
    """A call as a line needs it."""

    tid: int
    goid: int
    enter_ns: int
    ready_ns: int
    exit_ns: int


def thread_lines(
    calls: pd.DataFrame, runtime: pd.DataFrame, end: int, clock: CpuClock
) -> Mapping[int, list[Item]]:
    """What each thread did, in order: stretches and calls of goroutines."""
    lines = _raw_lines(calls, runtime, end)
    alone: dict[int, list[int]] = defaultdict(list)
    for line in lines.values():
        for item, call in pairwise(line):
            if call.call is not None and item.call is None and item.goid == call.goid:
                alone[call.goid].append(clock.used(item.tid, item.begin, item.end))
    usual = {goid: int(median(used)) for goid, used in alone.items()}
    anybody = int(median(usual.values())) if usual else 0
    returned = calls.groupby("goid")["exit_ns"].shift(fill_value=UNKNOWN).tolist()
    return {
        tid: _with_changes(line, returned, clock, usual, anybody) for tid, line in lines.items()
    }


def _with_changes(
    line: list[Item],
    returned: Sequence[int],
    clock: CpuClock,
    usual: Mapping[int, int],
    anybody: int,
) -> list[Item]:
    """A line with the stretches cut in which another goroutine came to its call."""
    made: list[Item] = []
    for item, call in zip_longest(line, line[1:]):
        made.append(item)
        if call is None or call.call is None or item.call is not None or not item.probed:
            continue
        if item.goid != call.goid:
            own = clock.before(item.tid, item.end, usual.get(call.goid, anybody))
            cut = min(max(own, returned[call.call], item.begin), item.end)
            made[-1] = replace(item, end=cut, queued=True, lets_run=True)
            made.append(Item(call.goid, item.tid, cut, item.end))
    return made


def _raw_lines(calls: pd.DataFrame, runtime: pd.DataFrame, end: int) -> dict[int, list[Item]]:
    """The same, with all of a stretch for the goroutine that began it."""
    # Where the runtime tells whom a P runs, that is where the stretch begins.
    tells_run = bool((runtime["kind"] == _RUN).any())
    marks = _marks(calls, runtime, (_RUN,) if tells_run else (_RUN, _ACQUIREP))
    names = ["tid", "goid", "enter_ns", "ready_ns", "exit_ns"]
    numbers = [_Call(*row) for row in calls[names].to_numpy().tolist()]
    returned = calls.groupby("goid")["exit_ns"].shift(fill_value=UNKNOWN).tolist()
    lines: dict[int, list[Item]] = {}
    for tid, found in marks.items():
        line = _Line(tid, tells_run)
        for mark in sorted(found):
            if mark.kind == _CALL:
                line.call(mark.row, numbers[mark.row], returned[mark.row])
            elif line.items and mark.ts_ns < line.items[-1].end:
                continue
            elif mark.kind == _BEGIN:
                line.begin(mark.ts_ns, mark.goid)
            else:
                line.leave(mark.ts_ns, mark.slow)
        line.close(end)
        lines[tid] = line.items
    return lines


def _marks(
    calls: pd.DataFrame, runtime: pd.DataFrame, begins: Sequence[int]
) -> dict[int, list[_Mark]]:
    """The marks of each thread, in no order."""
    marks: dict[int, list[_Mark]] = defaultdict(list)
    for code in (*begins, *_ENDS):
        rows = runtime[runtime["kind"] == code]
        for tid, ts, goid, p in rows[["tid", "ts_ns", "goid", "p"]].to_numpy().tolist():
            nameless = NAMELESS - p if code == _ACQUIREP and p != UNKNOWN else UNKNOWN
            who = nameless if goid == UNKNOWN else goid
            kind = _END if code in _ENDS else _BEGIN
            marks[tid].append(_Mark(ts, kind, goid=who, slow=code == _EXIT_SLOW))
    for row, (tid, enter) in enumerate(calls[["tid", "enter_ns"]].to_numpy().tolist()):
        marks[tid].append(_Mark(enter, _CALL, row=row))
    return marks


class _Line:
    """A thread's line, made mark by mark.

    Goroutine ``_goid`` has the thread since ``_since`` (``UNKNOWN`` where nobody is known to), and
    that moment was told by a probe where ``_probed``.
    """

    def __init__(self, tid: int, tells_run: bool) -> None:
        self.items: list[Item] = []
        self._tid = tid
        self._tells_run = tells_run
        self._goid, self._since, self._probed = UNKNOWN, UNKNOWN, False

    def call(self, row: int, call: _Call, returned_ns: int) -> None:
        """A call is entered; its goroutine's call before returned at ``returned_ns``."""
        if self._goid <= NAMELESS and self._since != UNKNOWN:
            # While the caller was in its call before, somebody else had this P.
            cut = min(max(returned_ns, self._since), call.ready_ns)
            if cut > self._since:
                self._stretch(cut, queued=True, probed=False)
            self._goid, self._since = call.goid, cut
        if self._since != UNKNOWN and call.ready_ns > self._since:
            self._goid = call.goid if self._goid == UNKNOWN else self._goid
            self._stretch(call.ready_ns)
        ready = min(call.ready_ns, call.enter_ns)
        self.items.append(
            Item(call.goid, self._tid, call.enter_ns, call.exit_ns, row, ready=ready)
        )
        self._goid, self._since, self._probed = call.goid, call.exit_ns, False

    def begin(self, ts_ns: int, goid: int) -> None:
        """A goroutine begins, or goes on after a call."""
        known = self._since != UNKNOWN
        if known and self._goid != UNKNOWN and ts_ns > self._since and goid != UNKNOWN:
            # Back from a call it took an idle P: up to here it was not on that yet.
            back = self._tells_run and self._goid == goid
            self._stretch(ts_ns, slow=back, probed=self._tells_run)
            self._since, self._probed = ts_ns, self._tells_run
        elif not known or self._goid not in (UNKNOWN, goid):
            self._since, self._probed = ts_ns, self._tells_run
        self._goid = goid

    def leave(self, ts_ns: int, slow: bool) -> None:
        """Whoever has the thread leaves it, and waits for a P."""
        if self._since != UNKNOWN and self._goid != UNKNOWN:
            self._stretch(max(ts_ns, self._since), queued=True, slow=slow)
        self._goid, self._since, self._probed = UNKNOWN, UNKNOWN, False

    def close(self, end_ns: int) -> None:
        """The span is over."""
        if self._since != UNKNOWN and self._goid != UNKNOWN and end_ns > self._since:
            self._stretch(end_ns)

    def _stretch(
        self, end_ns: int, *, queued: bool = False, slow: bool = False, probed: bool | None = None
    ) -> None:
        probed = self._probed if probed is None else probed
        self.items.append(
            Item(
                *(self._goid, self._tid, self._since, end_ns),
                queued=queued,
                probed=probed,
                slow=slow,
            )
        )
