"""Episodes: each system call in which a thread blocked while it held a P.

:func:`episodes` makes the table of a trace. :class:`EpisodeStream` makes the same table from
consecutive windows of time. It keeps only the calls that are still open and the last row of each
thread, so a trace may be larger than memory. The result does not depend on where the windows end.

The rules:

- A call is identified by its thread and its time of entry; its first block makes the episode. The
  episode ends with the call's row in table ``syscall``, or with its thread. If there is neither,
  the thread's next row shows that the call had ended (its row was lost), and the end of the trace
  shows that it had not.
- P is released by its first ``retake`` or ``handoff`` after the block and before the end of the
  call. If there is neither and another thread uses P meanwhile, that thread took P on its return
  from a call of its own, as in Go (:mod:`analysis.ptime.engine.episodes`).
- After the release, P is followed to its first ``run`` (``acquirep``, if the runtime has no rows
  ``run``) or until it goes idle, but no longer than to P's next block, retake or handoff.
- For a P that was handed off for a call, the release is the ``handoff`` with reason
  ``syscall_block`` that the thread made since its block before. A later block of that thread
  without a P is no new episode, because one call of the runtime may be several calls of the kernel
  (CPython waits for the GIL after its call).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from analysis.names import syscall_names
from analysis.ptime.classify import classify
from analysis.ptime.engine.episodes import Episodes
from analysis.ptime.engine.noted import EPISODE
from analysis.ptime.harm import Shares, shares_of
from analysis.ptime.packed import Packed, pack, rows_of
from analysis.ptime.setting import Transitions, count_transitions, places_of, transitions_of
from analysis.ptime.tasks import Tasks
from analysis.schema import EPISODES, OUTCOMES, PARTS
from analysis.windowed.asof import Ints
from analysis.windowed.columns import (
    TIME_COLUMN,
    WINDOW_ROWS,
    Columns,
    column_windows,
    read,
)
from tracer.trace.containers import NOWHERE, Container
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

if TYPE_CHECKING:
    # Imported where a DataFrame is made: it takes a fifth of a second.
    import pandas as pd

__all__ = [
    "EpisodeStream",
    "PlainEpisodes",
    "Setting",
    "episode_windows",
    "episodes",
    "plain_episode_windows",
    "setting_of",
]

PlainEpisodes: TypeAlias = dict[str, np.ndarray]
"""Plain columns of :data:`analysis.schema.EPISODES`, as its ``finish`` takes them."""

_MISTRUSTED = ("block", "syscall", "runtime")
"""Tables whose losses can hide an episode's end, its release or its harm."""

_READ = tuple(
    name
    for name in TABLES["block"].arrow_schema.names
    if name in EPISODES.names and name not in EPISODE
)
"""What an episode has of its first row of table block, as it stands there."""


@dataclass(frozen=True)
class Setting:
    """What must be known of a trace before its first window.

    Args:
        tasks: its threads.
        losses: its loss table, plain columns.
        transitions: how many rows of table runtime there are of each kind and reason.
        end_ns: when the capture ended; None for the time of the last row.
        trace: for what the pass settles of it, and for its architecture; None where that is not
            known.
        settled: what it settled, where it was run already.
    """

    tasks: Tasks
    losses: Mapping[str, Any]
    transitions: Mapping[tuple[str, str | None], int]
    end_ns: int | None = None
    trace: Trace | None = None
    settled: Shares | None = None

    @property
    def machine(self) -> str | None:
        """The architecture whose the numbers of system calls are; None is x86-64."""
        return None if self.trace is None else self.trace.manifest.arch

    @cached_property
    def places(self) -> Mapping[int, Container]:
        """The container and the pod of each process of which they are known."""
        return {} if self.trace is None else places_of(self.trace)

    @cached_property
    def shares(self) -> Shares:
        """What each hold cost."""
        return shares_of(self.trace) if self.settled is None else self.settled

    @classmethod
    def of(
        cls,
        tasks: Mapping[str, Any],
        losses: Mapping[str, Any],
        runtime: Iterable[Mapping[str, Any]],
        pid: int | None = None,
        end_ns: int | None = None,
    ) -> Setting:
        """The setting from plain columns; of ``runtime`` only kind and reason are read."""
        transitions: Counter[tuple[str, str | None]] = Counter()
        for rows in runtime:
            transitions.update(count_transitions(rows["kind"], rows["reason"]))
        words = TABLES["task"].column("kind").words
        kinds = np.array([words[code] for code in tasks["kind"]], object)
        named = {**{name: tasks[name] for name in ("ts_ns", "tid", "pid", "comm")}, "kind": kinds}
        return cls(Tasks(named, pid), losses, transitions, end_ns)

    @property
    def tells_run(self) -> bool:
        """Whether the runtime tells the first goroutine on a P; Go's does not."""
        return any(kind == "run" for kind, _ in self.transitions)

    @property
    def tells_handoffs(self) -> bool:
        """Whether there is any handoff before a call."""
        return ("handoff", "syscall_block") in self.transitions


_SIGNALS = ("global_runq", "npidle", "nmspinning")
_FROM_PASS = {"harm_ns", "harm_most_ns", "awake_ns", "monitor_wait_ns", "class"}
"""Columns that the pass settles (:mod:`analysis.ptime.harm`); a class is one of harm."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "block": ("ts_ns", "enter_ns", "tid", "p", "p_use", "runq", *_SIGNALS),
    "syscall": ("enter_ns", "exit_ns", "tid"),
    "runtime": ("ts_ns", "since_ns", "tid", "p", "kind", "reason", "target_tid"),
    "task": ("ts_ns", "tid", "pid", "kind"),
    "sched_wakeup": ("ts_ns", "tid"),
    "sched_switch": ("ts_ns", "next_tid"),
}
"""The tables that come by windows of time; the others are small and known from the start. These
columns are always read, and of block and syscall also those that an episode shall have."""

_THREADS = ("sched_wakeup", "sched_switch")
_FROM_THREADS = {
    *("notice_ns", "m_wake_ns", "m_oncpu_ns", "wake_ns"),
    *(name for _, name, _ in PARTS),
}
"""What only the kernel's switches and wake-ups tell: half of a trace, for these columns alone."""


def _needed(columns: Sequence[str], ends_told: bool) -> Mapping[str, tuple[str, ...]]:
    """The tables and their columns to read for these columns of an episode."""
    needed = {}
    for table, always in _COLUMNS.items():
        if table in _THREADS and ends_told and _FROM_THREADS.isdisjoint(columns):
            continue
        asked: list[str] = []
        if table in ("block", "syscall"):
            wanted = {*columns, "nr"} if "syscall" in columns else {*columns}
            own = ("ret", "blocks", "blocked_ns") if table == "syscall" else EPISODES.names
            asked = [n for n in own if n in wanted and n in TABLES[table].arrow_schema.names]
        needed[table] = tuple(dict.fromkeys((*always, *asked)))
    return needed


def setting_of(trace: Trace, transitions: Transitions | None = None) -> Setting:
    """What must be known of ``trace`` before its first window.

    Args:
        trace: the trace.
        transitions: from :func:`analysis.ptime.setting.transitions_of`, if they are at hand.
    """
    told = transitions or transitions_of(trace)
    setting = Setting.of(
        read(trace, "task"), read(trace, "loss"), (), trace.manifest.pid, _end_ns(trace)
    )
    return replace(setting, trace=trace, transitions=told.counts)


def _end_ns(trace: Trace) -> int | None:
    """When the capture ended, and no sooner than its last row; None where no file tells."""
    spans = [
        group.end_ns
        for table, time in TIME_COLUMN.items()
        if table in _COLUMNS
        for group in trace.row_groups(table, time)
    ]
    if None in spans:
        return None
    ends = [end for end in (trace.manifest.end_ns, *spans) if end is not None]
    return max(ends, default=None)


def episodes(trace: Trace, window_rows: int = WINDOW_ROWS) -> pd.DataFrame:
    """The episodes of a trace.

    Args:
        trace: the trace.
        window_rows: rows to hold in memory at once, about; changes nothing in the result.

    Returns:
        A DataFrame of :data:`analysis.schema.EPISODES`, in the order of ``block_ns``.

    Raises:
        PretakeError: the trace cannot be read.
    """
    import pandas as pd

    pieces = list(episode_windows(trace, window_rows))
    # Most windows of most traces have some; an empty one has the types all the same.
    rows = pd.concat([p for p in pieces if len(p)] or pieces[:1], ignore_index=True)
    return rows.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)


def episode_windows(
    trace: Trace,
    window_rows: int = WINDOW_ROWS,
    setting: Setting | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """The same in pieces, each as soon as nothing more can come about its episodes.

    Args:
        trace: the trace.
        window_rows: rows to hold in memory at once, about.
        setting: from :func:`setting_of`, if it is at hand.
        columns: those wanted; None for all.
    """
    wanted = EPISODES.names if columns is None else tuple(columns)
    for piece in plain_episode_windows(trace, window_rows, setting, columns):
        yield EPISODES.finish(piece, wanted)


def plain_episode_windows(
    trace: Trace,
    window_rows: int = WINDOW_ROWS,
    setting: Setting | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[PlainEpisodes]:
    """The same as plain columns, in which there may be others, too."""
    setting = setting or setting_of(trace)
    stream = EpisodeStream(setting, columns)
    needed = _needed(stream.columns, setting.end_ns is not None)
    for window in column_windows(trace, needed, window_rows):
        yield stream.feed_plain(window.tables, window.until_ns)
    yield stream.close_plain()


class EpisodeStream:
    """Makes episodes from consecutive windows of time.

    Args:
        setting: of the trace.
        columns: those wanted of :data:`analysis.schema.EPISODES`; None for all.
    """

    def __init__(self, setting: Setting, columns: Sequence[str] | None = None) -> None:
        self._setting = setting
        self.columns = EPISODES.names if columns is None else tuple(columns)
        tasks = setting.tasks
        self._engine = Episodes(setting.tells_run, setting.tells_handoffs, tasks.default)
        for tid, pid in tasks.first_pids():
            self._engine.know(tid, pid)
        self._open = {name: np.empty(0, np.int64) for name in ("serial", "block_ns", *_READ)}
        """Of each episode that is not done: what its first row of table block says."""
        self._serials = 0
        self._until_ns = 0

    def feed(self, window: Mapping[str, Columns], until_ns: int) -> pd.DataFrame:
        """Take the rows of one window of time.

        Args:
            window: plain columns (:mod:`analysis.windowed.columns`) by table: the rows after the
                window before, of block, syscall, runtime, task, and, where a column asks for what
                the kernel did with threads, of sched_wakeup and sched_switch.
            until_ns: the window's end; every row up to it is in this window or was in an
                earlier one.

        Returns:
            The episodes about which nothing more can come.
        """
        return EPISODES.finish(self.feed_plain(window, until_ns), self.columns)

    def close(self) -> pd.DataFrame:
        """The episodes that were still open when the trace ended."""
        return EPISODES.finish(self.close_plain(), self.columns)

    def feed_plain(self, window: Mapping[str, Columns], until_ns: int) -> PlainEpisodes:
        """The same as :meth:`feed`, as plain columns."""
        self.take(pack(window), window.get("block"), until_ns)
        return self.finish(self.over())

    def close_plain(self) -> PlainEpisodes:
        """The same as :meth:`close`, as plain columns."""
        self.end()
        return self.finish(self.over())

    def take(self, packed: Sequence[Packed], blocks: Columns | None, until_ns: int) -> None:
        """Take the rows of one window as the engine reads them, and those of table block."""
        self._until_ns = max(self._until_ns, until_ns)
        self._engine.feed(rows_of(packed), self._until_ns)
        if blocks is not None:
            self._keep(blocks)

    def end(self) -> None:
        """No rows come any more."""
        self._until_ns = max(self._until_ns, self._setting.end_ns or 0)
        self._engine.close()

    def _keep(self, blocks: Columns) -> None:
        """Remember the rows with which episodes began in this window."""
        begun = np.asarray(self._engine.begun.take(), np.int64)
        news = {
            name: np.asarray(blocks[name], np.int64)[begun]
            if name in blocks
            else np.full(len(begun), UNKNOWN, np.int64)
            for name in _READ
        }
        news["block_ns"] = np.asarray(blocks["ts_ns"], np.int64)[begun]
        news["serial"] = np.arange(self._serials, self._serials + len(begun))
        self._serials += len(begun)
        self._open = {n: np.concatenate([held, news[n]]) for n, held in self._open.items()}

    def over(self) -> dict[str, Ints]:
        """What the engine gave out, beside what the first row of each said: :meth:`finish`
        makes episodes of it."""
        rows = np.asarray(self._engine.done.take(), np.int64).reshape(-1, len(EPISODE))
        done = {name: rows[:, at] for at, name in enumerate(EPISODE)}
        at = np.searchsorted(self._open["serial"], done["serial"])
        first = {name: values[at] for name, values in self._open.items()}
        stay = np.ones(len(self._open["serial"]), bool)
        stay[at] = False
        self._open = {name: values[stay] for name, values in self._open.items()}
        return {**first, **done}

    def open_ns(self) -> Ints:
        """The block of each episode that is not over."""
        return self._open["block_ns"]

    def finish(self, columns: dict[str, Ints], shares: Shares | None = None) -> PlainEpisodes:
        """Plain episodes from what :meth:`over` gave.

        Args:
            columns: from there, of any number of windows.
            shares: what their holds cost; None for those of the setting.
        """
        handed_off = OUTCOMES.index("handed_off")
        columns["outcome"] = np.where(columns["given"] == 1, handed_off, UNKNOWN)
        _decide_outcome(columns, self._until_ns)
        if not _FROM_PASS.isdisjoint(self.columns):
            (shares or self._setting.shares).fill(columns)
        _add_parts(columns, self._setting.tells_run)
        columns["lost_overlap"] = self._overlaps_loss(columns, self._until_ns)
        if "class" in self.columns:
            columns["class"] = classify(columns)
        texts = {}
        if "comm" in self.columns:
            texts["comm"] = self._setting.tasks.comm(columns["tid"], columns["block_ns"])
        for name in {"container", "pod"} & {*self.columns}:
            texts[name] = _of_process(columns["pid"], self._setting.places, name)
        if "syscall" in self.columns:
            texts["syscall"] = syscall_names(columns["nr"], self._setting.machine)
        return {**columns, **texts}

    def _overlaps_loss(self, columns: Mapping[str, Ints], end_ns: int) -> Ints:
        losses = self._setting.losses
        words = TABLES["loss"].column("table")
        own = np.isin(losses["table"], [words.code(name) for name in _MISTRUSTED])
        begin = np.where(columns["enter_ns"] == UNKNOWN, columns["block_ns"], columns["enter_ns"])
        end = np.where(columns["end_ns"] == UNKNOWN, end_ns, columns["end_ns"])
        end = np.maximum(end, np.maximum(columns["run_ns"], columns["acquirep_ns"]))
        # Spans that began by the episode's end, less those that were over before it began.
        begun = np.searchsorted(np.sort(losses["begin_ns"][own]), end, "right")
        over = np.searchsorted(np.sort(losses["end_ns"][own]), begin, "left")
        return (begun > over).astype(np.int64)


def _of_process(pids: Ints, places: Mapping[int, Container], name: str) -> np.ndarray:
    """What is told of each row's process; None where nothing is."""
    known, of_row = np.unique(pids, return_inverse=True)
    told = [getattr(places.get(pid, NOWHERE), name) for pid in known.tolist()]
    return np.array(told, object)[of_row]


def _add_parts(columns: dict[str, Ints], tells_run: bool) -> None:
    """Fill in retake_ns and its parts, of episodes about which all is known."""
    block_ns = columns["block_ns"]
    stop = columns["run_ns"] if tells_run else columns["acquirep_ns"]
    released = columns["release_ns"] != UNKNOWN
    told = released & (stop != UNKNOWN)
    columns["retake_ns"] = np.where(told, np.maximum(stop - block_ns, 0), UNKNOWN)
    before = block_ns
    for moment, part, _ in PARTS:
        at_ns = columns[moment]
        # What happened before the block (a handoff for the call) is no part of the latency.
        seen = told & (at_ns != UNKNOWN) & (at_ns <= stop) & (stop > block_ns)
        columns[part] = np.where(seen, np.maximum(at_ns - before, 0), UNKNOWN)
        before = np.where(seen, np.maximum(at_ns, before), before)


def _decide_outcome(columns: dict[str, Ints], end_ns: int) -> None:
    """Fill in outcome, hold_ns and censored of episodes about which all is known."""
    release, block = columns["release_ns"], columns["block_ns"]
    ended = columns["end_ns"] != UNKNOWN
    handed_off = columns["outcome"] == OUTCOMES.index("handed_off")
    retaken = ~handed_off & (release != UNKNOWN)
    # P was gone at the return (exit_slow) although no row says when; or the exit is not told.
    # What was done to P between the return and exit_slow says that the two are of two calls.
    slow, later = columns["exit_slow_ns"], columns["next_ns"]
    between = (later != UNKNOWN) & (later <= slow)
    columns["exit_slow_ns"] = np.where(between & ~retaken, UNKNOWN, slow)
    untold = ended & ((columns["exit_slow_ns"] != UNKNOWN) | (columns["end_told"] != 1))
    untold |= columns["gone"] == 1
    kept = ~handed_off & ~retaken & ~untold
    stop = np.where(ended, columns["end_ns"], end_ns)
    choices = [handed_off, retaken, kept]
    codes = [np.int64(OUTCOMES.index(word)) for word in ("handed_off", "retaken", "kept")]
    columns["outcome"] = np.select(choices, codes, np.int64(UNKNOWN))
    nothing = np.zeros_like(block)
    columns["hold_ns"] = np.select(choices, [nothing, release - block, stop - block], UNKNOWN)
    columns["censored"] = kept.astype(np.int64)
