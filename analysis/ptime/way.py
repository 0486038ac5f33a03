"""The way of a P from a thread that blocks to the next goroutine that it runs.

Each function fills in columns of open episodes from the rows of one window of time, where they
are not known yet. A column, once filled, stays: rows come in the order of time, so the first
answer is the right one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.ptime.tasks import Tasks, p_key
from analysis.schema import PARTS
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = [
    "INNER",
    "RETURN_RACE_NS",
    "add_parts",
    "find_release",
    "find_takeback",
    "find_threads",
    "follow",
    "is_over",
    "with_keys",
]

RETURN_RACE_NS = 1_000_000
"""How long after a call's return P may still be taken for that call.

The kernel's exit of a call comes before the runtime's (exitsyscall): in between the thread may
wait for a CPU, or for CPython's GIL, and whoever retakes P then takes it from this call. It
counts only if the row names this thread, or this thread then finds its P gone (exit_slow).
"""

_KIND = TABLES["runtime"].column("kind")
_P_USE = TABLES["block"].column("p_use")
_NEXT = (
    ("next_ns", "ts_ns"),
    ("next_kind", "kind"),
    ("next_reason", "reason"),
    ("next_tid", "tid"),
    ("next_target", "target_tid"),
)
"""What an open episode remembers of the first retake or handoff of its P after the block."""

_EVENT_COLUMNS = ("ts_ns", "tid", "p_key", "kind", "reason", "target_tid")

INNER = (
    *("p_key", "cut_ns", "went_on_ns", "back_ns", "back_tid", "used_ns", "gone"),
    *(name for name, _ in _NEXT),
)
"""What an open episode carries for this module, beside the finished table's columns."""

_TAKEBACK = TABLES["runtime"].column("reason").code("exitsyscall")
_FOREVER = np.iinfo(np.int64).max


class _Events:
    """Runtime rows of some kinds, along the time lines of their Ps or threads."""

    def __init__(self, runtime: pd.DataFrame, kinds: tuple[str, ...], key: str) -> None:
        codes = [_KIND.code(kind) for kind in kinds]
        rows = runtime["kind"].to_numpy()
        wanted = rows == codes[0]
        for code in codes[1:]:
            wanted |= rows == code
        at = np.flatnonzero(wanted)
        self.rows = {name: runtime[name].to_numpy()[at] for name in _EVENT_COLUMNS}
        self.lines = Timelines(self.rows[key], self.rows["ts_ns"])

    def first(self, keys: Ints, anchors: Ints, asked: np.ndarray, strictly: bool = False) -> Ints:
        """The first event of each key after its anchor, where ``asked`` and both are known."""
        asked = asked & (keys != UNKNOWN) & (anchors != UNKNOWN)
        found = np.full(len(keys), NOT_FOUND, np.int64)
        found[asked] = self.lines.first_after(keys[asked], anchors[asked], strictly)
        return found

    def at(self, column: str, rows: Ints) -> Ints:
        """The value of ``column`` in each of ``rows``."""
        return take(self.rows[column], rows, UNKNOWN)


def with_keys(runtime: pd.DataFrame, tasks: Tasks) -> pd.DataFrame:
    """``runtime`` with the columns pid and p_key."""
    pid = tasks.pid(runtime["tid"], runtime["ts_ns"])
    return runtime.assign(pid=pid, p_key=p_key(pid, runtime["p"]))


def find_release(open_: pd.DataFrame, begun: pd.DataFrame, runtime: pd.DataFrame) -> None:
    """Fill in who released P, when and why, and exit_slow_ns.

    Args:
        open_: the open episodes.
        begun: those of them that began in this window: P's next block ends its way.
        runtime: rows of this window, from :func:`with_keys`.
    """
    key, block_ns = _ints(open_, "p_key"), _ints(open_, "block_ns")
    end_ns, tid = _ints(open_, "end_ns"), _ints(open_, "tid")
    _find_exit_slow(open_, runtime)
    slow_ns = _ints(open_, "exit_slow_ns")

    held = begun[begun["p_use"] != _P_USE.code("handed_off")]
    since = np.where(_ints(open_, "release_ns") == UNKNOWN, block_ns, _ints(open_, "release_ns"))
    next_block = Timelines(held["p_key"], held["block_ns"]).first_after(key, since, strictly=True)
    _keep_earliest(open_, "cut_ns", take(held["block_ns"], next_block, UNKNOWN), key != UNKNOWN)

    # The first that happened to P since; whose it is may show only in a later window.
    events = _Events(runtime, ("retake", "handoff"), "p_key")
    unreleased = _ints(open_, "release_ns") == UNKNOWN
    found = events.first(key, block_ns, unreleased & (_ints(open_, "next_ns") == UNKNOWN))
    for column, value in _NEXT:
        open_[column] = np.where(found == NOT_FOUND, open_[column], events.at(value, found))
    at_ns = _ints(open_, "next_ns")
    in_call = (end_ns == UNKNOWN) | (at_ns <= end_ns)
    in_race = (at_ns <= end_ns + RETURN_RACE_NS) & (
        (_ints(open_, "next_target") == tid) | (slow_ns >= at_ns)
    )
    # A block of P in between says that somebody ran on it: then the call had kept it, or lost it
    # before. So does a handoff by the thread itself, which is no longer blocked then.
    used = (open_["cut_ns"] != UNKNOWN) & (open_["cut_ns"] < at_ns)
    used |= open_["next_tid"] == tid
    ours = unreleased & (at_ns != UNKNOWN) & (in_call | in_race) & ~used.to_numpy()
    ours &= open_["gone"].to_numpy() != 1
    for column, value in (
        ("release_ns", "next_ns"),
        ("reason", "next_reason"),
        ("taker_tid", "next_tid"),
    ):
        open_[column] = np.where(ours, open_[value], open_[column])
    for column, kind in (("taken_ns", "retake"), ("handoff_ns", "handoff")):
        is_kind = ours & (open_["next_kind"] == _KIND.code(kind))
        open_[column] = np.where(is_kind, at_ns, open_[column])


def find_takeback(
    open_: pd.DataFrame, returns: pd.DataFrame, runtime: pd.DataFrame, tells_run: bool
) -> None:
    """Fill in the release of Ps that a thread took as it returned from a call of its own.

    Go's M that returns from a system call tries the P it had, and gets it if the M that has it
    now is in a system call, too (exitsyscall with oldp; to Go 1.25 no function is called for
    that). No row tells it. What tells is that another thread then blocks with P, or acquires it,
    while the call still goes on; the first return of a thread that had entered its call with P
    is when. Without such a return it is only known that P was gone: ``gone``.

    Args:
        open_: the open episodes, as :func:`find_release` leaves them.
        returns: p_key, exit_ns and tid of the calls with a P that ended in this window.
        runtime: rows of this window, from :func:`with_keys`.
        tells_run: whether the runtime tells its ``run``.
    """
    key, tid, block_ns = _ints(open_, "p_key"), _ints(open_, "tid"), _ints(open_, "block_ns")
    end_ns = np.where(_ints(open_, "end_ns") == UNKNOWN, _FOREVER, _ints(open_, "end_ns"))
    asked = (key != UNKNOWN) & (_ints(open_, "release_ns") == UNKNOWN)

    lines = Timelines(returns["p_key"], returns["exit_ns"])
    found = lines.first_after(key, block_ns, strictly=True)
    found = np.where(asked & (_ints(open_, "back_ns") == UNKNOWN), found, NOT_FOUND)
    back_ns = take(returns["exit_ns"], found, UNKNOWN)
    back_tid = take(returns["tid"], found, UNKNOWN)
    other = (found != NOT_FOUND) & (back_tid != tid) & (back_ns < end_ns)
    open_["back_ns"] = np.where(other, back_ns, open_["back_ns"])
    open_["back_tid"] = np.where(other, back_tid, open_["back_tid"])

    for kind in ("acquirep", "run"):
        events = _Events(runtime, (kind,), "p_key")
        found = events.first(key, block_ns, asked, strictly=True)
        by_other = (found != NOT_FOUND) & (events.at("tid", found) != tid)
        _keep_earliest(open_, "used_ns", events.at("ts_ns", found), by_other)
    _keep_earliest(open_, "used_ns", _ints(open_, "cut_ns"), asked)
    used_ns, back_ns = _ints(open_, "used_ns"), _ints(open_, "back_ns")
    gone = asked & (used_ns != UNKNOWN) & (used_ns < end_ns)
    open_["gone"] = np.where(gone, 1, open_["gone"])
    told = gone & (back_ns != UNKNOWN) & (back_ns <= used_ns)
    taker = _ints(open_, "back_tid")
    went_on = ("acquirep_ns", "run_ns") if tells_run else ("acquirep_ns",)
    for column in ("release_ns", "taken_ns", "went_on_ns", *went_on):
        open_[column] = np.where(told, back_ns, open_[column])
    for column in ("taker_tid", "runner_tid"):
        open_[column] = np.where(told, taker, open_[column])
    open_["reason"] = np.where(told, _TAKEBACK, open_["reason"])


def follow(open_: pd.DataFrame, runtime: pd.DataFrame, tells_run: bool) -> None:
    """Fill in P's way after its release, up to the goroutine that it runs.

    Args:
        open_: the open episodes, their release filled in.
        runtime: rows of this window, from :func:`with_keys`.
        tells_run: whether the runtime tells its ``run``; else ``acquirep`` stands for it.
    """
    key, release_ns = _ints(open_, "p_key"), _ints(open_, "release_ns")
    nowhere = (open_[["went_on_ns", "pidle_ns"]] == UNKNOWN).all(axis=1).to_numpy()
    going = (release_ns != UNKNOWN) & (key != UNKNOWN) & nowhere

    retakes = _Events(runtime, ("retake",), "p_key")
    again = retakes.first(key, release_ns, going, strictly=True)
    _keep_earliest(open_, "cut_ns", retakes.at("ts_ns", again), going)

    handoffs = _Events(runtime, ("handoff",), "p_key")
    own = handoffs.first(key, release_ns, going & (_ints(open_, "handoff_ns") == UNKNOWN))
    _fill_before_cut(open_, "handoff_ns", handoffs, own)
    again = handoffs.first(key, _ints(open_, "handoff_ns"), going, strictly=True)
    _keep_earliest(open_, "cut_ns", handoffs.at("ts_ns", again), going)

    for kind in ("startm", "acquirep", "run", "pidle"):
        events = _Events(runtime, (kind,), "p_key")
        column = f"{kind}_ns"
        found = events.first(key, release_ns, going & (_ints(open_, column) == UNKNOWN))
        filled = _fill_before_cut(open_, column, events, found)
        if kind in ("acquirep", "run"):
            unnamed = filled & (_ints(open_, "runner_tid") == UNKNOWN)
            open_["runner_tid"] = np.where(unnamed, events.at("tid", found), open_["runner_tid"])
    _stop_at_first(open_, tells_run)


def find_threads(open_: pd.DataFrame, switched_in: pd.DataFrame, wakeups: pd.DataFrame) -> None:
    """Fill in what the kernel did with the threads concerned.

    Args:
        open_: the open episodes.
        switched_in: ts_ns and next_tid of the window's switches, and of each thread's last
            one before.
        wakeups: ts_ns and tid likewise.
    """
    block_ns, release_ns = _ints(open_, "block_ns"), _ints(open_, "release_ns")
    acquired = _ints(open_, "acquirep_ns")
    went_on = np.where(acquired != UNKNOWN, acquired, _ints(open_, "run_ns"))
    taker, runner = _ints(open_, "taker_tid"), _ints(open_, "runner_tid")
    concerned = np.unique(np.r_[taker, runner])
    switched_in = switched_in[switched_in["next_tid"].isin(concerned)]
    switches = Timelines(switched_in["next_tid"], switched_in["ts_ns"])
    woken = Timelines(wakeups["tid"], wakeups["ts_ns"])
    taken_by_other = (release_ns >= block_ns) & (taker != UNKNOWN)
    for column, lines, times, who, since, until, asked in (
        ("notice_ns", switches, switched_in, taker, block_ns, release_ns, taken_by_other),
        ("m_oncpu_ns", switches, switched_in, runner, release_ns, went_on, runner != UNKNOWN),
        ("m_wake_ns", woken, wakeups, runner, release_ns, went_on, runner != UNKNOWN),
    ):
        asked = asked & (_ints(open_, column) == UNKNOWN) & (until != UNKNOWN)
        at_ns = take(times["ts_ns"], lines.last_before(who, until), UNKNOWN)
        open_[column] = np.where(asked & (at_ns >= since), at_ns, open_[column])
    end_ns = _ints(open_, "end_ns")
    woke = woken.first_after(_ints(open_, "tid"), block_ns)
    at_ns = take(wakeups["ts_ns"], woke, UNKNOWN)
    own = (_ints(open_, "wake_ns") == UNKNOWN) & ((end_ns == UNKNOWN) | (at_ns <= end_ns))
    open_["wake_ns"] = np.where(own, at_ns, open_["wake_ns"])


def is_over(open_: pd.DataFrame) -> np.ndarray:
    """Whether nothing more can be learned of where P went."""
    away = (open_["release_ns"] == UNKNOWN) | (open_["p_key"] == UNKNOWN)
    known = (open_[["went_on_ns", "pidle_ns", "cut_ns"]] != UNKNOWN).any(axis=1)
    return np.asarray(away | known, bool)


def add_parts(columns: dict[str, Ints], tells_run: bool) -> None:
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


def _find_exit_slow(open_: pd.DataFrame, runtime: pd.DataFrame) -> None:
    end_ns = _ints(open_, "end_ns")
    events = _Events(runtime, ("exit_slow",), "tid")
    asked = (end_ns != UNKNOWN) & (_ints(open_, "exit_slow_ns") == UNKNOWN)
    found = events.first(_ints(open_, "tid"), end_ns, asked)
    at_ns = events.at("ts_ns", found)
    soon = (found != NOT_FOUND) & (at_ns <= end_ns + RETURN_RACE_NS)
    open_["exit_slow_ns"] = np.where(soon, at_ns, open_["exit_slow_ns"])


def _stop_at_first(open_: pd.DataFrame, tells_run: bool) -> None:
    """Drop what happened to P after it had run something, or after it had gone idle."""
    went_on = _ints(open_, "run_ns" if tells_run else "acquirep_ns")
    idle = _ints(open_, "pidle_ns")
    idle_first = (idle != UNKNOWN) & ((went_on == UNKNOWN) | (idle < went_on))
    stop = np.where(idle_first, idle, np.where(went_on == UNKNOWN, _FOREVER, went_on))
    for column in ("handoff_ns", "startm_ns", "acquirep_ns", "run_ns", "pidle_ns"):
        values = _ints(open_, column)
        open_[column] = np.where(values > stop, UNKNOWN, values)
    open_["runner_tid"] = np.where(idle_first, UNKNOWN, open_["runner_tid"])
    open_["went_on_ns"] = open_["run_ns" if tells_run else "acquirep_ns"]


def _fill_before_cut(open_: pd.DataFrame, column: str, events: _Events, found: Ints) -> np.ndarray:
    at_ns, cut_ns = events.at("ts_ns", found), _ints(open_, "cut_ns")
    filled = (found != NOT_FOUND) & ((cut_ns == UNKNOWN) | (at_ns <= cut_ns))
    open_[column] = np.where(filled, at_ns, open_[column])
    return np.asarray(filled, bool)


def _keep_earliest(open_: pd.DataFrame, column: str, at_ns: Ints, asked: np.ndarray) -> None:
    old = _ints(open_, column)
    better = asked & (at_ns != UNKNOWN) & ((old == UNKNOWN) | (at_ns < old))
    open_[column] = np.where(better, at_ns, old)


def _ints(rows: Mapping[str, pd.Series] | pd.DataFrame, column: str) -> Ints:
    return np.asarray(rows[column], np.int64)
