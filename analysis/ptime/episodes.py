"""Episodes: each system call in which a thread blocked while it held a P.

:func:`episodes` makes the table of a trace. :class:`EpisodeStream` makes the same table from
consecutive windows of time, holding no more than the calls that are still open and the last
row of each thread, so that a trace may be larger than memory; where the cuts lie changes
nothing.

What is asked of the rows:

- A call is (thread, time of entry); its first block makes the episode. It ends with its row in
  table ``syscall``, or with its thread. Without either, what the thread did next tells only
  that it had ended (its row was lost), and the end of the trace only that it had not.
- P is released by the first ``retake`` or ``handoff`` of it after the block and before the end.
  If another thread uses it meanwhile and there is neither, a thread took it on its return from
  a call of its own, as Go's may (:func:`analysis.ptime.way.find_takeback`).
- Then P's way goes on to the first ``run`` (where the runtime never tells that, ``acquirep``),
  unless it goes idle. It is followed no longer than to P's next block, retake or handoff.
- A P handed off for a call is the ``handoff`` with reason ``syscall_block`` that the thread did
  since its block before. A later block of that thread without a P is no new episode: a call of
  the runtime may be several of the kernel (CPython's, on its way back, waits for the GIL).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.names import syscall_names
from analysis.ptime import way
from analysis.ptime.classify import classify
from analysis.ptime.harm import Shares, shares_of
from analysis.ptime.tasks import Tasks, p_key
from analysis.schema import EPISODES, OUTCOMES, PARTS
from analysis.windowed import plain
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from analysis.windowed.memory import LastRows
from analysis.windowed.windows import WINDOW_ROWS, windows
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["EpisodeStream", "Setting", "episode_windows", "episodes", "setting_of"]

_MISTRUSTED = ("block", "syscall", "runtime")
"""Tables whose losses can hide an episode's end, its release or its harm."""

_P_USE = TABLES["block"].column("p_use")
_HANDED_OFF = _P_USE.code("handed_off")
_KIND = TABLES["runtime"].column("kind")
_REASON = TABLES["runtime"].column("reason")
_SYSCALL_BLOCK = _REASON.code("syscall_block")

# What an open episode carries beside the columns of the finished table.
_INNER = ("end_ns", "end_told", *way.INNER)
_FROM_HANDOFF = (
    ("release_ns", "ts_ns"),
    ("handoff_ns", "ts_ns"),
    ("reason", "reason"),
    ("taker_tid", "tid"),
)
_COMPUTED = ("comm", "syscall", "class", "lost_overlap", "censored")
_OPEN = tuple(
    name
    for name in (*EPISODES.names, *_INNER)
    if name not in _COMPUTED and not name.startswith("part_")
)


@dataclass(frozen=True)
class Setting:
    """What must be known of a trace before its first window.

    Args:
        tasks: its threads.
        losses: its loss table, plain.
        transitions: how many rows of table runtime there are of each kind and reason.
        end_ns: when the capture ended; None for the time of the last row.
        trace: for what the pass settles of it; None where that is not known.
        settled: what it settled, where it was run already.
    """

    tasks: Tasks
    losses: pd.DataFrame
    transitions: Mapping[tuple[str, str | None], int]
    end_ns: int | None = None
    trace: Trace | None = None
    settled: Shares | None = None

    @cached_property
    def shares(self) -> Shares:
        """What each hold cost."""
        return shares_of(self.trace) if self.settled is None else self.settled

    @classmethod
    def of(
        cls,
        tasks: pd.DataFrame,
        losses: pd.DataFrame,
        runtime: Iterable[pd.DataFrame],
        pid: int | None = None,
        end_ns: int | None = None,
    ) -> Setting:
        """The setting from plain tables; of ``runtime`` only kind and reason are read."""
        transitions: Counter[tuple[str, str | None]] = Counter()
        for rows in runtime:
            counted = rows.groupby(["kind", "reason"]).size().reset_index(name="rows")
            for kind, reason, count in counted.to_numpy(np.int64).tolist():
                word = None if reason == UNKNOWN else _REASON.words[reason]
                transitions[_KIND.words[kind], word] += count
        words = TABLES["task"].column("kind").words
        named = tasks.assign(kind=[words[code] for code in tasks["kind"]])
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
    "runtime": ("ts_ns", "tid", "p", "kind", "reason", "target_tid"),
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


def setting_of(trace: Trace) -> Setting:
    """What must be known of ``trace`` before its first window."""
    groups = trace.row_groups("runtime", "ts_ns")
    kinds = (
        plain.from_arrow("runtime", trace.read_row_group("runtime", group, ["kind", "reason"]))
        for group in groups
    )
    setting = Setting.of(
        plain.from_arrow("task", trace.arrow("task")),
        plain.from_arrow("loss", trace.arrow("loss")),
        kinds,
        trace.manifest.pid,
        _end_ns(trace),
    )
    return replace(setting, trace=trace)


def _end_ns(trace: Trace) -> int | None:
    """When the capture ended, and no sooner than its last row; None where no file tells."""
    spans = [
        group.end_ns
        for table, time in plain.TIME_COLUMN.items()
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
    setting = setting or setting_of(trace)
    stream = EpisodeStream(setting, columns)
    needed = _needed(stream.columns, setting.end_ns is not None)
    for window in windows(trace, needed, window_rows):
        yield stream.feed(window.tables, window.until_ns)
    yield stream.close()


class EpisodeStream:
    """Makes episodes from consecutive windows of time.

    Args:
        setting: of the trace.
        columns: those wanted of :data:`analysis.schema.EPISODES`; None for all.
    """

    def __init__(self, setting: Setting, columns: Sequence[str] | None = None) -> None:
        self._setting = setting
        self.columns = EPISODES.names if columns is None else tuple(columns)
        self._open = pd.DataFrame({n: np.empty(0, np.int64) for n in _OPEN})
        self._blocks = LastRows("tid")
        self._exits = LastRows("tid")
        self._handoffs = LastRows("tid")
        self._switched_in = LastRows("next_tid")
        self._wakeups = LastRows("tid")
        self._until_ns = 0

    def feed(self, window: Mapping[str, pd.DataFrame], until_ns: int) -> pd.DataFrame:
        """Take the rows of one window of time.

        Args:
            window: plain tables (:mod:`analysis.windowed.plain`) by name: the rows after the
            window
                before, of block, syscall, runtime, and, where a column asks for what the kernel
                did with threads, of sched_wakeup and sched_switch.
            until_ns: the window's end; every row up to it is in this window or was in an
                earlier one.

        Returns:
            The episodes about which nothing more can come.
        """
        self._until_ns = max(self._until_ns, until_ns)
        tasks = self._setting.tasks
        runtime = way.with_keys(window["runtime"], tasks)
        blocks = window["block"]
        blocks = blocks.assign(pid=tasks.pid(blocks["tid"], blocks["ts_ns"]))
        begun = self._begin(blocks, window["syscall"], runtime)
        open_ = pd.concat([self._open, begun], ignore_index=True)
        going = (open_["end_ns"] == UNKNOWN).to_numpy()
        self._find_ends(open_, begun, window["syscall"])
        returned = going & (open_["exit_ns"] != UNKNOWN).to_numpy()
        returns = open_.loc[returned, ["p_key", "exit_ns", "tid"]]
        way.find_release(open_, begun, runtime)
        way.find_takeback(open_, returns, runtime, self._setting.tells_run)
        way.follow(open_, runtime, self._setting.tells_run)
        if "sched_switch" in window:
            way.find_threads(
                open_,
                self._switched_in.extend(window["sched_switch"][["next_tid", "ts_ns"]]),
                self._wakeups.extend(window["sched_wakeup"][["tid", "ts_ns"]]),
            )
        ended = (open_["end_ns"] != UNKNOWN) & (
            open_["end_ns"] + way.RETURN_RACE_NS <= self._until_ns
        )
        done = ended & way.is_over(open_)
        self._open = open_[~done].reset_index(drop=True)
        return self._finish(open_[done].reset_index(drop=True))

    def close(self) -> pd.DataFrame:
        """The episodes that were still open when the trace ended."""
        needed = _needed(self.columns, ends_told=True)
        nothing = {name: plain.empty(name, columns) for name, columns in needed.items()}
        done = self.feed(nothing, self._setting.end_ns or self._until_ns)
        rows, self._open = self._open, self._open[:0]
        return pd.concat([done, self._finish(rows)], ignore_index=True)

    def _begin(
        self, blocks: pd.DataFrame, exits: pd.DataFrame, runtime: pd.DataFrame
    ) -> pd.DataFrame:
        """An open episode for each call whose first block, with a P, is in ``blocks``."""
        exits = self._exits.extend(exits[["tid", "exit_ns"]])
        done = Timelines(exits["tid"], exits["exit_ns"]).last_before(
            blocks["tid"], blocks["ts_ns"]
        )
        # A call that was entered before the capture is named by the exit before it instead.
        since = take(exits["exit_ns"], done, UNKNOWN)
        blocks = blocks.assign(since=np.where(blocks["enter_ns"] == UNKNOWN, since, 0))
        columns = [*blocks.columns]
        seen = self._blocks.extend(blocks[columns])
        known = len(seen) - len(blocks)
        first = ~seen.duplicated(["tid", "enter_ns", "since"]).to_numpy()
        lines = Timelines(seen["tid"], seen["ts_ns"])
        before = take(
            seen["ts_ns"], lines.last_before(seen["tid"], seen["ts_ns"], strictly=True), UNKNOWN
        )
        begun = seen.assign(before_ns=before)[known:][first[known:]]
        return self._with_own_handoff(begun, runtime)

    def _with_own_handoff(self, begun: pd.DataFrame, runtime: pd.DataFrame) -> pd.DataFrame:
        is_own = (runtime["kind"] == _KIND.code("handoff")) & (runtime["reason"] == _SYSCALL_BLOCK)
        handoffs = self._handoffs.extend(
            runtime.loc[is_own, ["tid", "ts_ns", "p", "p_key", "reason"]]
        )
        own = Timelines(handoffs["tid"], handoffs["ts_ns"]).last_before(
            begun["tid"], begun["ts_ns"]
        )
        given = (begun["p_use"] == _HANDED_OFF).to_numpy()
        own = np.where(
            given & (take(handoffs["ts_ns"], own, UNKNOWN) > begun["before_ns"]), own, NOT_FOUND
        )
        rest_of_a_call = given & (own == NOT_FOUND) & self._setting.tells_handoffs
        without_p = (begun["p_use"] == UNKNOWN) & (begun["p"] == UNKNOWN)
        keep = ~rest_of_a_call & ~without_p.to_numpy()
        begun, own, given = begun[keep].reset_index(drop=True), own[keep], given[keep]
        held_p = begun["p"].to_numpy()
        rows = pd.DataFrame({name: np.full(len(begun), UNKNOWN) for name in _OPEN})
        for name in begun.columns.intersection(rows.columns):
            rows[name] = begun[name].to_numpy()
        rows["block_ns"] = begun["ts_ns"].to_numpy()
        rows["p"] = np.where(own == NOT_FOUND, held_p, take(handoffs["p"], own, UNKNOWN))
        rows["p_key"] = p_key(rows["pid"], rows["p"])
        for name, value in _FROM_HANDOFF:
            rows[name] = take(handoffs[value], own, UNKNOWN)
        rows["outcome"] = np.where(given, OUTCOMES.index("handed_off"), UNKNOWN)
        return rows

    def _find_ends(self, open_: pd.DataFrame, begun: pd.DataFrame, exits: pd.DataFrame) -> None:
        """Fill in end_ns: the call's return, or the latest moment it can have been at."""
        tid, block_ns = open_["tid"].to_numpy(), open_["block_ns"].to_numpy()
        going = (open_["end_ns"] == UNKNOWN).to_numpy()
        at = Timelines(exits["tid"], exits["exit_ns"]).first_after(tid, block_ns)
        at = np.where(going, at, NOT_FOUND)
        exit_ns = take(exits["exit_ns"], at, UNKNOWN)
        entered = take(exits["enter_ns"], at, UNKNOWN)
        own_enter = open_["enter_ns"].to_numpy()
        own = (at != NOT_FOUND) & (
            (entered == own_enter) | (entered == UNKNOWN) | (own_enter == UNKNOWN)
        )
        # A fault has no entry, and returns from no call: the next one only says that it was over.
        returned = own & (entered <= block_ns)
        for name in exits.columns.intersection(["ret", "blocks", "blocked_ns"]):
            open_[name] = np.where(returned, take(exits[name], at, UNKNOWN), open_[name])
        open_["exit_ns"] = np.where(returned, exit_ns, open_["exit_ns"])
        calls = Timelines(begun["tid"], begun["block_ns"])
        then = calls.first_after(tid, block_ns, strictly=True)
        then_enter = take(begun["enter_ns"], then, UNKNOWN)
        then_block = take(begun["block_ns"], then, UNKNOWN)
        # Each of these says that the call was over by then; the earliest is the best.
        ends = np.vstack(
            [
                np.where(own, exit_ns, np.where(entered == UNKNOWN, exit_ns, entered)),
                np.where(then_enter == UNKNOWN, then_block, then_enter),
                self._thread_ends(tid, block_ns),
            ]
        )
        end = np.where(ends == UNKNOWN, np.iinfo(np.int64).max, ends).min(axis=0)
        found = going & (end <= self._until_ns)
        open_["end_ns"] = np.where(found, end, open_["end_ns"])
        # A thread that died in its call kept its P to that moment; else only an exit tells.
        told = own | (end == ends[2])
        open_["end_told"] = np.where(found, told, open_["end_told"])

    def _thread_ends(self, tid: Ints, block_ns: Ints) -> Ints:
        ends = self._setting.tasks.end_ns(tid, block_ns)
        return np.where(ends > self._until_ns, UNKNOWN, ends)

    def _finish(self, rows: pd.DataFrame) -> pd.DataFrame:
        columns = {name: rows[name].to_numpy(np.int64) for name in rows.columns}
        _decide_outcome(columns, self._until_ns)
        if not _FROM_PASS.isdisjoint(self.columns):
            self._setting.shares.fill(columns)
        way.add_parts(columns, self._setting.tells_run)
        columns["lost_overlap"] = self._overlaps_loss(columns, self._until_ns)
        if "class" in self.columns:
            columns["class"] = classify(columns)
        if "comm" in self.columns:
            columns["comm"] = self._setting.tasks.comm(columns["tid"], columns["block_ns"])
        if "syscall" in self.columns:
            columns["syscall"] = syscall_names(columns["nr"])
        return EPISODES.finish(columns, self.columns)

    def _overlaps_loss(self, columns: Mapping[str, Ints], end_ns: int) -> Ints:
        losses = self._setting.losses
        words = TABLES["loss"].column("table")
        losses = losses[losses["table"].isin([words.code(name) for name in _MISTRUSTED])]
        begin = np.where(columns["enter_ns"] == UNKNOWN, columns["block_ns"], columns["enter_ns"])
        end = np.where(columns["end_ns"] == UNKNOWN, end_ns, columns["end_ns"])
        end = np.maximum(end, np.maximum(columns["run_ns"], columns["acquirep_ns"]))
        # Spans that began by the episode's end, less those that were over before it began.
        begun = np.searchsorted(np.sort(losses["begin_ns"]), end, "right")
        over = np.searchsorted(np.sort(losses["end_ns"]), begin, "left")
        return (begun > over).astype(np.int64)


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
