"""Runs the pass over a trace, window by window, and collects what it settles.

The pass is two compiled halves (``owners`` and ``account`` in :mod:`analysis.ptime.engine`) that
take the same rows, the second ``REACH_NS`` behind the first. This file gives them bytes and takes
numbers: nothing here runs for each row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from analysis.ptime.engine.account import RESULTS, Account
from analysis.ptime.engine.moves import REACH_NS
from analysis.ptime.engine.owners import Owners
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
    Rows,
)
from analysis.ptime.engine.state import STATES
from analysis.ptime.engine.sums import STALLS
from analysis.windowed.columns import (
    LAST_NS,
    TIME_COLUMN,
    Columns,
    capture_span,
    column_windows,
    from_arrow,
    read,
)
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = [
    "LOSSES_OF",
    "Edge",
    "Pass",
    "PassRunner",
    "PassSetting",
    "ProcessBudget",
    "bin_length",
    "edge_columns",
    "pass_setting",
    "run_pass",
]

_WINDOW_ROWS = 500_000
_MOST_PS = 1 << 16
"""No process has more; a larger number is not known."""
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
    monitors: Mapping[int, int]
    edges: Mapping[str, Ints]
    begin_ns: int
    end_ns: int
    only_pid: int
    needs_reach: bool


@dataclass
class ProcessBudget:
    """The sums of one process, in ns (:mod:`analysis.ptime.engine.sums`).

    ``procs`` is its GOMAXPROCS at the end, and ``stalls`` has the names of
    :data:`~analysis.ptime.engine.sums.STALLS`.
    """

    pid: int
    comm: str | None
    begin_ns: int
    procs: int
    p_ns: int
    states: dict[str, int]
    throttled_ns: int
    idle_beside_work_ns: int
    lost_least: dict[str, int]
    lost_most: dict[str, int]
    wait_least_ns: int
    wait_most_ns: int
    wait_unknown_ns: int
    stalls: dict[str, int]
    taken: tuple[int, int, int, int]


@dataclass
class Pass:
    """What the pass found.

    Args:
        setting: of the trace.
        processes: those that have Ps, in the order of their pids.
        holds, latencies, stops, waited, bins, spans: plain columns by name
            (:data:`analysis.ptime.engine.account.RESULTS`).
    """

    setting: PassSetting
    processes: list[ProcessBudget] = field(default_factory=list)
    holds: dict[str, Ints] = field(default_factory=dict)
    latencies: dict[str, Ints] = field(default_factory=dict)
    stops: dict[str, Ints] = field(default_factory=dict)
    waited: dict[str, Ints] = field(default_factory=dict)
    bins: dict[str, Ints] = field(default_factory=dict)
    spans: dict[str, Ints] = field(default_factory=dict)


def pass_setting(trace: Trace) -> PassSetting:
    """What must be known of ``trace`` before the pass begins.

    Raises:
        PretakeError: the trace cannot be read.
    """
    task = read(trace, "task", ["ts_ns", "tid", "pid", "comm", "kind"])
    kinds, reasons, tids = _transitions(trace)
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
    by_sysmon = tids[(kinds == _KIND.code("retake")) & (reasons == _REASON.code("sysmon"))]
    monitors: dict[int, int] = {}
    values, counts = np.unique(by_sysmon, return_counts=True)
    for tid in values[np.argsort(counts)].tolist():
        monitors[threads.get(tid, only)] = tid
    reach = read(trace, "reach", ["exec_ns", "ts_ns", "pid", "runtime"])
    return PassSetting(
        tells_run=bool((kinds == _KIND.code("run")).any()),
        tells_stops=bool((kinds == _KIND.code("stw_start")).any()),
        tells_stands=bool((kinds == _KIND.code("stw_stopped")).any()),
        has_switches=_has_rows(trace, "sched_switch"),
        has_looks=_has_rows(trace, "waiting"),
        threads=threads,
        comms=comms,
        monitors=monitors,
        edges=_edges(trace, task, reach, begin_ns, end_ns),
        begin_ns=begin_ns,
        end_ns=end_ns,
        only_pid=only,
        needs_reach=len(reach["pid"]) > 0,
    )


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


def run_pass(
    trace: Trace,
    *,
    setting: PassSetting | None = None,
    window_rows: int = _WINDOW_ROWS,
    bin_ns: int = 0,
    spans: bool = False,
    on_holds: Callable[[dict[str, Ints]], None] | None = None,
) -> Pass:
    """Settle a trace's P time.

    Args:
        trace: the trace.
        setting: from :func:`pass_setting`, if it is at hand.
        window_rows: rows to hold in memory at once, about; changes nothing in the result.
        bin_ns: how far apart the rows of ``bins`` are; 0 for none.
        spans: whether to make the spans of each P.
        on_holds: takes the holds of each window, which then do not stay in memory.

    Raises:
        PretakeError: the trace cannot be read.
    """
    setting = setting or pass_setting(trace)
    runner = PassRunner(setting, bin_ns, spans)
    wanted = {
        name: tuple(column for column in columns if column in TABLES[name].arrow_schema.names)
        for name, columns in COLUMNS
        if name in TABLES and _has_rows(trace, name)
    }
    for window in column_windows(trace, wanted, window_rows):
        runner.feed(window.tables, window.until_ns)
        if on_holds is not None:
            on_holds(runner.take("holds"))
    return runner.close(on_holds)


class PassRunner:
    """Gives rows to the compiled halves, and takes what they settle; :func:`run_pass` for a trace.

    Args:
        setting: of the trace.
        bin_ns, spans: as for :func:`run_pass`.
    """

    def __init__(self, setting: PassSetting, bin_ns: int, spans: bool) -> None:
        self._setting = setting
        self._owners = Owners(
            setting.tells_run, setting.tells_stops, setting.has_looks, setting.only_pid
        )
        self._account = Account(
            setting.tells_run,
            setting.has_switches,
            setting.has_looks,
            setting.tells_stands,
            setting.needs_reach,
            setting.only_pid,
            setting.begin_ns,
            bin_ns,
            spans,
        )
        for tid, pid in setting.threads.items():
            self.know(tid, pid)
        for pid, tid in setting.monitors.items():
            self._account.monitor(pid, tid)
        self._edges = dict(setting.edges)
        self._settled_ns = setting.begin_ns
        self._waiting: deque[tuple[int, list[Rows]]] = deque()
        self._pieces: dict[str, list[dict[str, Ints]]] = {name: [] for name in RESULTS}

    def know(self, tid: int, pid: int) -> None:
        """A thread and its process, which some row tells later."""
        self._owners.know(tid, pid)
        self._account.know(tid, pid)

    def add_edges(self, edges: Sequence[Edge]) -> None:
        """Edges that were not in the setting, for the windows to come."""
        if edges:
            more = edge_columns(edges)
            both = {name: np.r_[self._edges[name], more[name]] for name in more}
            order = np.argsort(both["ts_ns"], kind="stable")
            self._edges = {name: values[order] for name, values in both.items()}

    def settle_all(self) -> None:
        """Bring the sums of every process up to where rows are settled, though it has none."""
        self._account.settle_all(self._settled_ns)

    def processes(self) -> dict[int, tuple[int, int]]:
        """Of each process, as of what is settled: its begin in ns, and its GOMAXPROCS."""
        return {
            pid: (process.begin_ns, process.count)
            for pid, process in self._account.census.processes.items()
        }

    def feed(self, tables: Mapping[str, Columns], until_ns: int) -> None:
        """Take the rows of a window, each table's in the order of time.

        Args:
            tables: by name.
            until_ns: all rows up to it are here, or were before.
        """
        counts = {name: len(next(iter(held.values()))) for name, held in tables.items()}
        edges = self._edges_until(until_ns)
        counts["edge"] = len(edges["ts_ns"])
        given = {
            name: [
                _bytes(edges if name == "edge" else tables.get(name), column, counts.get(name, 0))
                for column in columns
            ]
            for name, columns in COLUMNS
        }
        for half in (0, 1):
            rows = [Rows(given[name], counts.get(name, 0)) for name, _ in COLUMNS]
            if half == 0:
                self._owners.feed(rows)
            else:
                self._waiting.append((until_ns, rows))
        self._settle(until_ns - REACH_NS - 1)

    def close(
        self, on_holds: Callable[[dict[str, Ints]], None] | None, end_ns: int | None = None
    ) -> Pass:
        """No row comes any more: what was found, but for the holds if ``on_holds`` takes them.

        Args:
            on_holds: as for :func:`run_pass`.
            end_ns: when it ended; the setting's end if nobody says.
        """
        end_ns = self._setting.end_ns if end_ns is None else end_ns
        self.feed({}, max(end_ns, self._waiting[-1][0] if self._waiting else end_ns))
        self._settle(1 << 61)
        self._account.close(end_ns)
        if on_holds is not None:
            on_holds(self.take("holds"))
        made = Pass(self._setting)
        made.processes = sorted(self._processes(), key=lambda process: process.pid)
        for name in self._pieces:
            setattr(made, name, self.take(name))
        return made

    def take(self, name: str) -> dict[str, Ints]:
        """The rows of one result so far, which are forgotten here."""
        self._collect(name)
        pieces, self._pieces[name] = self._pieces[name], []
        return {
            column: np.concatenate([piece[column] for piece in pieces])
            if pieces
            else np.empty(0, np.int64)
            for column in RESULTS[name]
        }

    def _settle(self, until_ns: int) -> None:
        while self._waiting:
            window_ns, rows = self._waiting[0]
            limit_ns = min(window_ns, until_ns)
            self._account.run(rows, self._owners.ready(limit_ns), limit_ns)
            self._settled_ns = limit_ns
            if window_ns > until_ns:
                return
            self._waiting.popleft()
        for name in self._pieces:
            self._collect(name)

    def _collect(self, name: str) -> None:
        columns = [np.asarray(out.take(), np.int64) for out in self._account.out(name)]
        if len(columns[0]):
            self._pieces[name].append(dict(zip(RESULTS[name], columns, strict=True)))

    def _edges_until(self, until_ns: int) -> dict[str, Ints]:
        end = int(np.searchsorted(self._edges["ts_ns"], until_ns, "right"))
        found = {name: values[:end] for name, values in self._edges.items()}
        self._edges = {name: values[end:] for name, values in self._edges.items()}
        return found

    def _processes(self) -> Iterator[ProcessBudget]:
        for pid, process in self._account.census.processes.items():
            if not process.p_ns:
                continue
            lost = range(1, 7)
            yield ProcessBudget(
                pid=pid,
                comm=self._setting.comms.get(pid),
                begin_ns=process.begin_ns,
                procs=process.count,
                p_ns=process.p_ns,
                states=dict(zip(STATES, list(process.ns), strict=True)),
                throttled_ns=process.throttled_ns,
                idle_beside_work_ns=process.idle_beside_ns,
                lost_least={STATES[s]: process.lost_least[s] for s in lost},
                lost_most={STATES[s]: process.lost_most[s] for s in lost},
                wait_least_ns=process.wait_least_ns,
                wait_most_ns=process.wait_most_ns,
                wait_unknown_ns=process.wait_unknown_ns,
                stalls=dict(
                    zip(
                        STALLS,
                        (
                            ns
                            for sums in (
                                process.some_least,
                                process.some_most,
                                process.full_least,
                                process.full_most,
                            )
                            for ns in list(sums)[: len(lost) + 1]
                        ),
                        strict=True,
                    )
                ),
                taken=(process.taken[0], process.taken[1], process.taken[2], process.taken[3]),
            )


def _bytes(columns: Columns | None, name: str, count: int) -> bytes:
    """A column as the engine reads it; -1 everywhere where the trace has none."""
    if columns is None or name not in columns:
        return (-1).to_bytes(8, "little", signed=True) * count
    values = np.ascontiguousarray(columns[name], np.int64)
    # Whoever made the trace may have written any number, and the engine keeps room for each P.
    if name in ("p", "gomaxprocs"):
        values = np.where(values < _MOST_PS, values, UNKNOWN)
    elif name.endswith("_ns"):
        values = np.minimum(values, LAST_NS)
    return values.tobytes()


def _has_rows(trace: Trace, table: str) -> bool:
    return any(group.rows for group in trace.row_groups(table, TIME_COLUMN[table]))


def _transitions(trace: Trace) -> tuple[Ints, Ints, Ints]:
    """What kinds and reasons there are, and who did them: each combination once."""
    seen: list[Ints] = [np.empty((0, 3), np.int64)]
    for group in trace.row_groups("runtime", "ts_ns"):
        rows = trace.read_row_group("runtime", group, ["kind", "reason", "tid"])
        columns = from_arrow("runtime", rows)
        seen.append(np.column_stack([columns["kind"], columns["reason"], columns["tid"]]))
    rows_seen = np.concatenate(seen)
    return rows_seen[:, 0], rows_seen[:, 1], rows_seen[:, 2]


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
    throttle = read(trace, "throttle", ["begin_ns", "end_ns", "throttled_ns", "pid"])
    for begin, end, ns, pid in zip(
        *(throttle[name].tolist() for name in ("begin_ns", "end_ns", "throttled_ns", "pid")),
        strict=True,
    ):
        found += [(begin, pid, THROTTLE_BEGINS, 0), (end, pid, THROTTLE_ENDS, ns)]
    return edge_columns(found)


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
