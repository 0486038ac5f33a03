"""Stall time of Ps while a program runs: the pass of a trace gets the rows as they come.

Engine and definition are the same as for a trace (:mod:`analysis.answers.pressure`). The figures
are late, because rows may come late and because the pass looks one second ahead.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from analysis.answers.pressure import WINDOWS_S, ProcessPressure, pressure_of
from analysis.ptime.budget import PassRunner
from analysis.ptime.engine.rows import (
    BEGINS,
    COLUMNS,
    ENDS,
    LOSS_BEGINS,
    LOSS_ENDS,
    NEVER,
    OUT_OF_REACH,
    REACHED,
)
from analysis.ptime.engine.state import STATES
from analysis.ptime.setting import (
    LOSSES_OF,
    Edge,
    PassSetting,
    edge_columns,
    places_in,
    throttle_edges,
)
from analysis.windowed.columns import TIME_COLUMN, Columns, from_arrow, from_records
from tracer.trace.containers import NOWHERE, Container
from tracer.trace.records import joined, picked
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["GoingPressure"]

_SECOND_NS: Final = 1_000_000_000
_KEPT_NS: Final = (max(WINDOWS_S) + 2) * _SECOND_NS
_ENDED_NS: Final = 10 * _SECOND_NS
"""So long after its end no row tells of a process any more."""
_KIND = TABLES["task"].column("kind")
_COLUMNS: Final = {
    name: [column.name for column in TABLES[name].columns if column.name in columns]
    for name, columns in COLUMNS
    if name in TABLES
}
"""What the pass reads, by table."""


class _Past(NamedTuple):
    """A process that the pass has forgotten: when that was, its begin, its GOMAXPROCS."""

    forgotten_ns: int
    begin_ns: int
    procs: int


class GoingPressure:
    """Takes rows as they come, and tells the pressure up to the last whole second.

    Args:
        begin_ns: begin of the watch, CLOCK_MONOTONIC.
        runtime: ``go`` or ``reference``: what it tells decides how the pass reads its rows.
        exact: whether uprobes tell its transitions.
        on_settled: is given the results of the pass as they are settled, by name
            (:data:`analysis.ptime.engine.account.RESULTS`).

    It keeps what the averages need of a process that has ended, and later nothing, for a watch of
    weeks may see many thousands.
    """

    def __init__(
        self,
        begin_ns: int,
        runtime: str,
        exact: bool = False,
        on_settled: Callable[[str, Mapping[str, np.ndarray]], None] | None = None,
    ) -> None:
        own = runtime == "reference"
        self._runner = PassRunner(
            PassSetting(
                tells_run=own,
                tells_stops=True,
                tells_stands=own or exact,
                has_switches=True,
                has_looks=True,
                threads={},
                comms={},
                places={},
                monitors={},
                edges=edge_columns(()),
                begin_ns=begin_ns,
                end_ns=NEVER,
                only_pid=UNKNOWN,
                needs_reach=True,
            ),
            _SECOND_NS,
            False,
        )
        self._runtime = runtime
        self._exact = exact
        self._on_settled = on_settled
        self._begin_ns = begin_ns
        self._fed_ns = begin_ns
        self._early: dict[str, list[np.ndarray]] = {}
        # A piece for each second or so: of 200 processes five minutes are 26 MB.
        self._bins: deque[Mapping[str, np.ndarray]] = deque()
        self._living: dict[int, set[int]] = {}
        self._begun: set[int] = set()
        """Those of the living whose first thread was told."""
        self._comms: dict[int, str] = {}
        self._places: dict[int, Container] = {}
        self._reached: set[tuple[int, int, int]] = set()
        self._reach_told: pa.Table | None = None
        """The table that was told last, which most often is told again."""
        self._past: dict[int, _Past] = {}

    def feed(
        self,
        records: Mapping[str, Sequence[np.ndarray]],
        tables: Mapping[str, pa.Table],
        until_ns: int,
    ) -> None:
        """Take rows (:class:`tracer.capture.live.LiveRows`)."""
        until_ns = max(until_ns, self._fed_ns)
        edges = [*self._lives(records), *self._losses(records), *self._reach(tables)]
        if "throttle" in tables:
            edges += throttle_edges(from_arrow("throttle", tables["throttle"]))
        # What is told late happened, for all that is settled, when it was told.
        first_ns = self._first_ns()
        self._runner.add_edges([(max(e[0], first_ns), e[1], e[2], e[3]) for e in edges])
        ready = {}
        for name, columns in _COLUMNS.items():
            held = [*self._early.get(name, ()), *records.get(name, ())]
            if held:
                ready[name], self._early[name] = _due(name, held, columns, until_ns)
        self._runner.feed(ready, until_ns)
        self._fed_ns = until_ns
        self._runner.settle_all()
        for name in ("holds", "latencies", "stops", "waited", "spans"):
            self._settled(name, self._runner.take(name))
        self._keep(self._runner.take("bins"))
        self._forget()

    @property
    def threads(self) -> int:
        """How many threads were told so far; the pass keeps something of each."""
        return self._runner.threads

    def renewed(self) -> GoingPressure:
        """One that begins where this one is, and knows only of those that live.

        What was fed and is not settled, a second, is told by neither. All sums begin again.
        """
        other = GoingPressure(self._fed_ns, self._runtime, self._exact, self._on_settled)
        for pid, tids in self._living.items():
            other._living[pid] = set(tids)
            if pid in self._comms:
                other._comms[pid] = self._comms[pid]
            if pid in self._places:
                other._places[pid] = self._places[pid]
            for tid in tids:
                other._know(tid, pid)
        other._begun = set(self._begun)
        # Of those that ended nothing is told again, though they may still be in table reach.
        other._reached = {told for told in self._reached if told[0] not in self._living}
        other._early = self._early
        return other

    def finish(self) -> None:
        """Nothing comes any more: what was fed is told up to its last moment."""
        found = self._runner.close(None, self._fed_ns)
        for name in ("holds", "stops"):
            self._settled(name, getattr(found, name))
        self._keep(found.bins)

    def told(self) -> list[ProcessPressure]:
        """Every process with Ps that had a whole second lately; most stalled first."""
        found: list[ProcessPressure] = []
        processes = self._runner.processes()
        for every in _by_process(self._bins):
            pid = int(every["pid"][0])
            begin_ns, procs = processes[pid] if pid in processes else self._past[pid][1:]
            # Its number may have been another's before.
            first = int(np.searchsorted(every["ts_ns"], begin_ns, "right"))
            own = {name: values[first:] for name, values in every.items()}
            if not len(own["pid"]) or not own["p_ns"][-1]:
                continue
            place = self._places.get(pid, NOWHERE)
            found.append(
                {
                    "pid": pid,
                    "comm": self._comms.get(pid),
                    "container": place.container,
                    "pod": place.pod,
                    "procs": procs,
                    "states": {state: int(own[f"{state}_ns"][-1]) for state in STATES},
                    "pressure": pressure_of(own, pid, begin_ns),
                }
            )
        return sorted(found, key=lambda process: -process["pressure"]["total"]["some"])

    def _know(self, tid: int, pid: int) -> None:
        self._runner.know(tid, pid)

    def _first_ns(self) -> int:
        """The first moment that is not fed yet."""
        return self._fed_ns + (self._fed_ns > self._begin_ns)

    def _settled(self, name: str, rows: Mapping[str, np.ndarray]) -> None:
        if self._on_settled is not None and len(rows["pid"]):
            self._on_settled(name, rows)

    def _keep(self, bins: Mapping[str, np.ndarray]) -> None:
        if len(bins["pid"]):
            self._settled("bins", bins)
            self._bins.append(bins)
        while self._bins and int(self._bins[0]["ts_ns"].max()) < self._fed_ns - _KEPT_NS:
            self._bins.popleft()

    def _forget(self) -> None:
        """Of those that ended: all but their bins at once, and the rest when these have gone."""
        for pid, told in self._runner.forget_ended(self._fed_ns - _ENDED_NS).items():
            self._past[pid] = _Past(self._fed_ns, *told)
        for pid, past in list(self._past.items()):
            if past.forgotten_ns < self._fed_ns - _KEPT_NS:
                del self._past[pid]
                if pid not in self._living:
                    self._comms.pop(pid, None)
                    self._places.pop(pid, None)

    def _lives(self, records: Mapping[str, Sequence[np.ndarray]]) -> Iterator[Edge]:
        """When processes begin and end: with their first thread, and with the last of all."""
        if not records.get("task"):
            return
        rows = joined(records["task"])
        rows = rows[np.argsort(rows["ts_ns"], kind="stable")]
        names = ("ts_ns", "tid", "pid", "kind", "comm")
        for ns, tid, pid, kind, comm in zip(*(rows[n].tolist() for n in names), strict=True):
            self._know(tid, pid)
            living = self._living.setdefault(pid, set())
            if kind == _KIND.code("exit"):
                living.discard(tid)
                if not living:
                    del self._living[pid]
                    self._begun.discard(pid)
                    yield ns, pid, ENDS, 0
                continue
            living.add(tid)
            if tid == pid:
                # One that was there before was found now: of the time until now there is nothing.
                if kind == _KIND.code("fork") or pid not in self._begun:
                    self._begun.add(pid)
                    yield ns, pid, BEGINS, 0
                self._comms[pid] = comm.decode("utf-8", "replace")

    def _losses(self, records: Mapping[str, Sequence[np.ndarray]]) -> Iterator[Edge]:
        if not records.get("loss"):
            return
        rows = joined(records["loss"])
        words = TABLES["loss"].column("table")
        codes = {words.code(name) for name in LOSSES_OF if name in words.words}
        for begin, end, table in zip(
            *(rows[n].tolist() for n in ("begin_ns", "end_ns", "table")), strict=True
        ):
            if table in codes:
                # Both are after what is settled, and the end after the begin.
                begin = max(begin, self._first_ns())
                yield begin, UNKNOWN, LOSS_BEGINS, 0
                yield max(begin, end), UNKNOWN, LOSS_ENDS, 0

    def _reach(self, tables: Mapping[str, pa.Table]) -> Iterator[Edge]:
        if "reach" not in tables or tables["reach"] is self._reach_told:
            return
        self._reach_told = tables["reach"]
        names = ("pid", "generation", "exec_ns", "ts_ns")
        rows = from_arrow("reach", tables["reach"].select([*names, *Container._fields]))
        self._places |= places_in(rows)
        before, self._reached = self._reached, set()
        for pid, generation, *times in zip(*(rows[n].tolist() for n in names), strict=True):
            for kind, ns in zip((OUT_OF_REACH, REACHED), times, strict=True):
                if ns == UNKNOWN:
                    continue
                self._reached.add((pid, generation, kind))
                if (pid, generation, kind) not in before:
                    yield max(ns, self._begin_ns), pid, kind, 0


def _by_process(pieces: Sequence[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """The rows of each process, in the order in which they came."""
    if not pieces:
        return
    pids = np.concatenate([piece["pid"] for piece in pieces])
    order = np.argsort(pids, kind="stable")
    rows = {name: np.concatenate([p[name] for p in pieces])[order] for name in pieces[0]}
    bounds = [0, *(np.flatnonzero(np.diff(rows["pid"])) + 1).tolist(), len(pids)]
    for first, end in itertools.pairwise(bounds):
        yield {name: values[first:end] for name, values in rows.items()}


def _due(
    name: str, held: Sequence[np.ndarray], columns: Sequence[str], until_ns: int
) -> tuple[Columns, list[np.ndarray]]:
    """The rows up to a moment, in the order of time; and the records of those after it."""
    due, later = [], []
    for records in held:
        is_due = records[TIME_COLUMN[name]] <= until_ns
        count = int(np.count_nonzero(is_due))
        # Most pieces lie wholly on one side, and are not copied.
        if count == len(records):
            due.append(records)
        elif not count:
            later.append(records)
        else:
            due.append(picked(records, np.flatnonzero(is_due)))
            later.append(picked(records, np.flatnonzero(~is_due)))
    found = from_records(name, joined(due) if due else held[0][:0], columns)
    times = found[TIME_COLUMN[name]]
    if not bool((times[1:] >= times[:-1]).all()):
        order = np.argsort(times, kind="stable")
        found = {column: numbers[order] for column, numbers in found.items()}
    return found, later
