"""What must be known of a trace before the pass over it begins.

That is: which tables it has, which thread belongs to which process, and the *edges*. Edges are the
begins and ends of losses, of processes, of reach and of throttling. They are few, and stand in
several small tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from analysis.ptime.engine.rows import (
    BEGINS,
    COLUMNS,
    ENDS,
    LOSS_BEGINS,
    LOSS_ENDS,
    OUT_OF_REACH,
    REACHED,
    THROTTLE_BEGINS,
    THROTTLE_ENDS,
)
from analysis.windowed.columns import (
    LAST_NS,
    TIME_COLUMN,
    Columns,
    capture_span,
    from_arrow,
    read,
)
from tracer.trace.containers import Container
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = [
    "LOSSES_OF",
    "Edge",
    "PassSetting",
    "Transitions",
    "bin_length",
    "count_transitions",
    "edge_columns",
    "has_rows",
    "pass_setting",
    "places_in",
    "places_of",
    "throttle_edges",
    "transitions_of",
]

_KIND = TABLES["runtime"].column("kind")
_REASON = TABLES["runtime"].column("reason")
_TASK = TABLES["task"].column("kind")

LOSSES_OF = ("sched_switch", "sched_wakeup", "block", "syscall", "runtime", "task", "pstate")
"""Tables without whose rows nobody knows what state a P is in."""

Ints = npt.NDArray[np.int64]
Edge: TypeAlias = tuple[int, int, int, int]
"""Time, process, kind (:mod:`analysis.ptime.engine.rows`), value."""


@dataclass(frozen=True)
class PassSetting:
    """What must be known of a trace before its first window.

    Args:
        tells_run: the runtime tells the first goroutine on a P.
        tells_stops: the trace has when the world is to stop, tells_stands: and when it stands.
        has_switches: it has table sched_switch.
        has_looks: it has table waiting.
        threads: each thread and its process.
        comms: the name of each process's first thread.
        places: the container and the pod of each process of which they are known.
        monitors: the thread that takes Ps from calls, by process.
        edges: see :mod:`analysis.ptime.engine.rows`, by time.
        begin_ns: begin of the capture, end_ns: its end.
        only_pid: the process of threads that the trace does not name, -1 for none.
        needs_reach: the trace tells from when on each process could be read.
    """

    tells_run: bool
    tells_stops: bool
    tells_stands: bool
    has_switches: bool
    has_looks: bool
    threads: Mapping[int, int]
    comms: Mapping[int, str]
    places: Mapping[int, Container]
    monitors: Mapping[int, int]
    edges: Mapping[str, Ints]
    begin_ns: int
    end_ns: int
    only_pid: int
    needs_reach: bool


def pass_setting(trace: Trace, transitions: Transitions | None = None) -> PassSetting:
    """What must be known of ``trace`` before the pass begins.

    Args:
        trace: the trace.
        transitions: from :func:`transitions_of`, if they are at hand.

    Raises:
        PretakeError: the trace cannot be read.
    """
    task = read(trace, "task", ["ts_ns", "tid", "pid", "comm", "kind"])
    told = transitions or transitions_of(trace)
    begin_ns, end_ns = capture_span(trace)
    threads: dict[int, int] = {}
    for tid, pid in zip(task["tid"][::-1].tolist(), task["pid"][::-1].tolist(), strict=True):
        threads[tid] = pid
    known = set(threads.values())
    only = trace.manifest.pid
    if only is None:
        only = next(iter(known)) if len(known) == 1 else UNKNOWN
    comms = {
        pid: comm
        for tid, pid, comm in zip(
            task["tid"].tolist(), task["pid"].tolist(), task["comm"].tolist(), strict=True
        )
        if tid == pid
    }
    # Who took most.
    monitors: dict[int, int] = {}
    values, counts = np.unique(told.by_sysmon, return_counts=True)
    for tid in values[np.argsort(counts)].tolist():
        monitors[threads.get(tid, only)] = tid
    reach = read(trace, "reach", ["exec_ns", "ts_ns", "pid", "runtime"])
    return PassSetting(
        tells_run=told.has("run"),
        tells_stops=told.has("stw_start"),
        tells_stands=told.has("stw_stopped"),
        has_switches=has_rows(trace, "sched_switch"),
        has_looks=has_rows(trace, "waiting"),
        threads=threads,
        comms=comms,
        places=places_of(trace),
        monitors=monitors,
        edges=_edges(trace, task, reach, begin_ns, end_ns),
        begin_ns=begin_ns,
        end_ns=end_ns,
        only_pid=only,
        needs_reach=len(reach["pid"]) > 0,
    )


def places_of(trace: Trace) -> dict[int, Container]:
    """The container and the pod of each process, as it was last; none that nothing is known of.

    Raises:
        PretakeError: the trace cannot be read.
    """
    return places_in(read(trace, "reach", ["pid", *Container._fields]))


def places_in(reach: Columns) -> dict[int, Container]:
    """The same, from rows of table reach in the order of their programs."""
    texts = zip(*(reach[name].tolist() for name in Container._fields), strict=True)
    told = zip(reach["pid"].tolist(), texts, strict=True)
    return {pid: Container(*place) for pid, place in told if any(place)}


def bin_length(trace: Trace, setting: PassSetting, most: int, least_ns: int = 1) -> int:
    """How long a bin has to be, in ns, so that there are about ``most`` of them.

    Rows may lie far behind the end that the manifest tells, and each of them has a bin.
    """
    ends = [setting.end_ns]
    for name, _ in COLUMNS:
        if name in TABLES:
            groups = trace.row_groups(name, TIME_COLUMN[name])
            ends += [min(g.end_ns, LAST_NS) for g in groups if g.end_ns is not None]
    return max((max(ends) - setting.begin_ns) // most, least_ns)


def has_rows(trace: Trace, table: str) -> bool:
    """Whether the trace has rows of a table."""
    return any(group.rows for group in trace.row_groups(table, TIME_COLUMN[table]))


@dataclass(frozen=True)
class Transitions:
    """What table runtime has, counted.

    Args:
        counts: its rows by kind and reason, None where there is no reason.
        by_sysmon: of each retake by sysmon, the thread that did it.
    """

    counts: Mapping[tuple[str, str | None], int]
    by_sysmon: Ints

    def has(self, kind: str) -> bool:
        """Whether there is a row of that kind."""
        return any(own == kind for own, _ in self.counts)


def transitions_of(trace: Trace) -> Transitions:
    """Count the rows of table runtime.

    Raises:
        PretakeError: the trace cannot be read.
    """
    counts: Counter[tuple[str, str | None]] = Counter()
    tids: list[Ints] = [np.empty(0, np.int64)]
    for group in trace.row_groups("runtime", "ts_ns"):
        rows = trace.read_row_group("runtime", group, ["kind", "reason", "tid"])
        columns = from_arrow("runtime", rows, narrow=True)
        kind, reason = columns["kind"], columns["reason"]
        counts.update(count_transitions(kind, reason))
        by_sysmon = (kind == _KIND.code("retake")) & (reason == _REASON.code("sysmon"))
        tids.append(columns["tid"][by_sysmon].astype(np.int64))
    return Transitions(counts, np.concatenate(tids))


def count_transitions(
    kind: npt.ArrayLike, reason: npt.ArrayLike
) -> Counter[tuple[str, str | None]]:
    """How many rows there are of each kind and reason, which come as numbers of words."""
    both = np.asarray(kind, np.int64) * (len(_REASON.words) + 1) + np.asarray(reason, np.int64) + 1
    found = np.bincount(both)
    counts: Counter[tuple[str, str | None]] = Counter()
    for code in np.flatnonzero(found).tolist():
        of_kind, of_reason = divmod(code, len(_REASON.words) + 1)
        word = _REASON.words[of_reason - 1] if of_reason else None
        counts[_KIND.words[of_kind], word] = int(found[code])
    return counts


def _edges(
    trace: Trace, task: Columns, reach: Columns, begin_ns: int, end_ns: int
) -> dict[str, Ints]:
    """Edges (:mod:`analysis.ptime.engine.rows`) from the tables that are small."""
    found: list[tuple[int, int, int, int]] = []
    losses = read(trace, "loss", ["begin_ns", "end_ns", "table"])
    words = TABLES["loss"].column("table")
    codes = [words.code(name) for name in LOSSES_OF if name in words.words]
    lost = np.isin(losses["table"], codes)
    for begin, end in _joined(losses["begin_ns"][lost], losses["end_ns"][lost]):
        found += [(begin, UNKNOWN, LOSS_BEGINS, 0), (end, UNKNOWN, LOSS_ENDS, 0)]
    found += _lives(task, end_ns)
    for exec_ns, ts_ns, pid in zip(
        reach["exec_ns"].tolist(), reach["ts_ns"].tolist(), reach["pid"].tolist(), strict=True
    ):
        if exec_ns != UNKNOWN:
            found.append((exec_ns, pid, OUT_OF_REACH, 0))
        if ts_ns != UNKNOWN:
            found.append((max(ts_ns, begin_ns), pid, REACHED, 0))
    found += throttle_edges(read(trace, "throttle"))
    return edge_columns(found)


def throttle_edges(rows: Columns) -> Iterator[Edge]:
    """When a quota began and ceased to be asked, and what it took meanwhile."""
    names = ("begin_ns", "end_ns", "throttled_ns", "pid")
    for begin, end, ns, pid in zip(*(rows[name].tolist() for name in names), strict=True):
        yield begin, pid, THROTTLE_BEGINS, 0
        yield end, pid, THROTTLE_ENDS, ns


def edge_columns(edges: Sequence[Edge]) -> dict[str, Ints]:
    """Edges as the engine takes them, in the order of time."""
    columns = np.array(sorted(edges, key=lambda edge: edge[0]), np.int64).reshape(len(edges), 4)
    return {name: columns[:, n].copy() for n, name in enumerate(("ts_ns", "pid", "kind", "value"))}


def _joined(begins: Ints, ends: Ints) -> Iterator[tuple[int, int]]:
    """Spans of which none touches another."""
    order = np.argsort(begins, kind="stable")
    begin = end = None
    for b, e in zip(begins[order].tolist(), ends[order].tolist(), strict=True):
        if end is not None and b <= end:
            end = max(end, e)
            continue
        if begin is not None and end is not None:
            yield begin, end
        begin, end = b, max(b, e)
    if begin is not None and end is not None:
        yield begin, end


def _lives(task: Columns, end_ns: int) -> Iterator[tuple[int, int, int, int]]:
    """When processes begin and end: with their first thread, and with the last of all."""
    own = task["tid"] == task["pid"]
    born = own & (task["kind"] == _TASK.code("fork"))
    for ns, pid in zip(task["ts_ns"][born].tolist(), task["pid"][born].tolist(), strict=True):
        yield ns, pid, BEGINS, 0
    died = task["kind"] == _TASK.code("exit")
    for pid in np.unique(task["pid"][own & died]).tolist():
        its = task["pid"] == pid
        gone = set(task["tid"][its & died].tolist())
        if set(task["tid"][its].tolist()) <= gone:
            yield min(int(task["ts_ns"][its & died].max()), end_ns), pid, ENDS, 0
