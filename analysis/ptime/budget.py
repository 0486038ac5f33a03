"""Runs the pass over a trace, window by window, and collects its sums.

The pass has two compiled halves (``owners`` and ``account`` in :mod:`analysis.ptime.engine`). Both
take the same rows, the second one ``REACH_NS`` later than the first. This file gives them columns
as bytes and gets numbers back, so no Python code runs for each row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from analysis.ptime.engine.account import RESULTS, Account
from analysis.ptime.engine.moves import REACH_NS
from analysis.ptime.engine.owners import Owners
from analysis.ptime.engine.rows import COLUMNS, Rows
from analysis.ptime.engine.state import STATES
from analysis.ptime.engine.sums import STALLS
from analysis.ptime.packed import Packed, pack, rows_of
from analysis.ptime.setting import Edge, PassSetting, edge_columns, has_rows, pass_setting
from analysis.windowed.columns import Columns, ColumnWindow, column_windows
from tracer.trace.containers import NOWHERE, Container
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

__all__ = ["Pass", "PassRunner", "ProcessBudget", "run_pass"]

_WINDOW_ROWS = 1 << 16
"""What is read of so many rows stays in the cache of a CPU."""
_EPISODES_ONLY = ("ret", "blocked_ns")
"""Columns that only the loop over episodes asks."""
Ints = npt.NDArray[np.int64]


@dataclass
class ProcessBudget:
    """The sums of one process, in ns (:mod:`analysis.ptime.engine.sums`).

    ``procs`` is its GOMAXPROCS at the end, and ``stalls`` has the names of
    :data:`~analysis.ptime.engine.sums.STALLS`.
    """

    pid: int
    comm: str | None
    place: Container
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


def run_pass(
    trace: Trace,
    *,
    setting: PassSetting | None = None,
    window_rows: int = _WINDOW_ROWS,
    bin_ns: int = 0,
    spans: bool = False,
    on_holds: Callable[[dict[str, Ints]], None] | None = None,
    on_window: Callable[[ColumnWindow, list[Packed], PassRunner], None] | None = None,
) -> Pass:
    """Settle a trace's P time.

    Args:
        trace: the trace.
        setting: from :func:`pass_setting`, if it is at hand.
        window_rows: rows to hold in memory at once, about; changes nothing in the result.
        bin_ns: how far apart the rows of ``bins`` are; 0 for none.
        spans: whether to make the spans of each P.
        on_holds: takes the holds of each window, which then do not stay in memory.
        on_window: is given each window after the pass has taken it, and its rows as they are
            packed, so that one reading serves others, too.

    Raises:
        PretakeError: the trace cannot be read.
    """
    setting = setting or pass_setting(trace)
    runner = PassRunner(setting, bin_ns, spans)
    wanted = {
        name: tuple(column for column in columns if column not in _EPISODES_ONLY)
        for name, columns in COLUMNS
        if name in TABLES and has_rows(trace, name)
    }
    for window in column_windows(trace, wanted, window_rows):
        packed = runner.feed(window.tables, window.until_ns)
        if on_holds is not None:
            on_holds(runner.take("holds"))
        if on_window is not None:
            on_window(window, packed, runner)
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
        self.settled_ns = setting.begin_ns
        """Everything up to it is settled."""
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
        self._account.settle_all(self.settled_ns)

    @property
    def threads(self) -> int:
        """How many threads it has heard of; it keeps something of each."""
        return len(self._account.census.threads)

    def forget_ended(self, before_ns: int) -> dict[int, tuple[int, int]]:
        """Let go of the processes that ended before a moment; no row may tell of them any more.

        Returns:
            These processes, as :meth:`processes` told them.
        """
        told = self.processes()
        gone = self._account.census.forget_ended(before_ns)
        for pid in gone:
            self._owners.forget(pid)
        return {pid: told[pid] for pid in gone}

    def processes(self) -> dict[int, tuple[int, int]]:
        """Of each process, as of what is settled: its begin in ns, and its GOMAXPROCS."""
        return {
            pid: (process.first_ns, process.count)
            for pid, process in self._account.census.processes.items()
        }

    def feed(self, tables: Mapping[str, Columns], until_ns: int) -> list[Packed]:
        """Take the rows of a window, each table's in the order of time.

        Args:
            tables: by name.
            until_ns: all rows up to it are here, or were before.

        Returns:
            The rows as the compiled loops read them.
        """
        packed = pack({**tables, "edge": self._edges_until(until_ns)})
        self._owners.feed(rows_of(packed))
        self._waiting.append((until_ns, rows_of(packed)))
        self._settle(until_ns - REACH_NS - 1)
        return packed

    def open_holds(self) -> list[tuple[int, int]]:
        """The thread and the begin, in ns, of each hold that has not ended as of what is
        settled."""
        return [
            (p.hold_tid, p.hold_ns)
            for process in self._account.census.processes.values()
            for p in process.ps
            if p.hold_ns >= 0
        ]

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
            self._account.run(rows, self._owners.moves, limit_ns)
            self.settled_ns = limit_ns
            if window_ns > until_ns:
                return
            self._waiting.popleft()
        for name in self._pieces:
            self._collect(name)

    def _collect(self, name: str) -> None:
        columns = RESULTS[name]
        rows = np.asarray(self._account.out(name).take(), np.int64).reshape(-1, len(columns))
        if len(rows):
            self._pieces[name].append({c: rows[:, at] for at, c in enumerate(columns)})

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
                place=self._setting.places.get(pid, NOWHERE),
                begin_ns=process.first_ns,
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
