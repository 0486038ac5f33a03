"""The rule that a part is no longer than its whole, for every pair of them in a trace.

For example, a call of 901 ns cannot have been blocked for 11.6 ms. If a trace has that, the state
of another call was used for it. In a sum nobody would see such a number, so each pair is checked.

Each function takes plain rows (:mod:`analysis.windowed.plain`) and returns how many it looked at,
and which rows break the rule. A number that is not known breaks no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.names import syscall_numbers
from analysis.ptime.engine.noted import RETURN_RACE_NS
from analysis.schema import PARTS
from tracer.trace.schema import UNKNOWN

__all__ = ["EPISODE_PARTS", "ROW_PARTS", "Parts", "more_blocks_than_told", "not_apart"]

Broken = tuple[int, np.ndarray]
"""How many rows were looked at, and for each row whether it breaks the rule."""


@dataclass(frozen=True)
class Parts:
    """A rule about single rows.

    Args:
        meaning: what must hold.
        columns: what it needs of each table, by the table's name, the columns in an order that
            ``broken`` knows; for episodes there is one table.
        broken: asks rows that have those columns.
    """

    meaning: str
    columns: Mapping[str, tuple[str, ...]]
    broken: Callable[[pd.DataFrame], Broken]


def _known(rows: pd.DataFrame, *columns: str) -> np.ndarray:
    known = np.ones(len(rows), bool)
    for column in columns:
        known &= rows[column].to_numpy(np.int64) != UNKNOWN
    return known


def _no_more(rows: pd.DataFrame, part: str, whole: str) -> Broken:
    known = _known(rows, part, whole)
    return int(known.sum()), known & (rows[part] > rows[whole]).to_numpy()


def _all_no_more(*pairs: tuple[str, str]) -> Callable[[pd.DataFrame], Broken]:
    def broken(rows: pd.DataFrame) -> Broken:
        looked, found = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for part, whole in pairs:
            if part in rows and whole in rows:
                looked |= _known(rows, part, whole)
                found |= _no_more(rows, part, whole)[1]
        return int(looked.sum()), found

    return broken


def _blocked_in_call(calls: pd.DataFrame) -> Broken:
    known = _known(calls, "enter_ns", "blocked_ns")
    length = calls["exit_ns"] - calls["enter_ns"]
    broken = (calls["blocked_ns"] > length) | ((calls["blocks"] == 0) & (calls["blocked_ns"] > 0))
    return int(known.sum()), known & broken.to_numpy()


def _hold_in_call(episodes: pd.DataFrame) -> Broken:
    known = _known(episodes, "hold_ns", "exit_ns")
    # A taker that was at work as the call returned tells of it a little later.
    most_ns = episodes["exit_ns"] - episodes["block_ns"] + RETURN_RACE_NS
    broken = episodes["hold_ns"] > most_ns
    return int(known.sum()), known & broken.to_numpy()


def _parts_in_latency(episodes: pd.DataFrame) -> Broken:
    parts = np.zeros(len(episodes), np.int64)
    for _, name, _ in PARTS:
        part = episodes[name].to_numpy(np.int64)
        parts += np.where(part == UNKNOWN, 0, part)
    known = _known(episodes, "retake_ns")
    return int(known.sum()), known & (parts > episodes["retake_ns"].to_numpy(np.int64))


ROW_PARTS: Mapping[str, Parts] = {
    "blocked_in_call": Parts(
        "A call was blocked for no longer than it took, and for no time if it never blocked.",
        {"syscall": ("enter_ns", "exit_ns", "blocked_ns", "blocks")},
        _blocked_in_call,
    ),
    "interval_in_order": Parts(
        "An interval of time begins before it ends.",
        {
            "runtime": ("since_ns", "ts_ns"),
            "pstate": ("since_ns", "ts_ns"),
            "waiting": ("oldest_ns", "ts_ns"),
            "loss": ("begin_ns", "end_ns"),
            "throttle": ("begin_ns", "end_ns"),
            "reach": ("exec_ns", "ts_ns"),
        },
        _all_no_more(
            ("since_ns", "ts_ns"),
            ("oldest_ns", "ts_ns"),
            ("begin_ns", "end_ns"),
            ("exec_ns", "ts_ns"),
        ),
    ),
    "ps_in_all": Parts(
        "No more Ps are idle, unseen or have a timer due than there are Ps.",
        {"waiting": ("ts_ns", "npidle", "unseen", "timers_due", "gomaxprocs")},
        _all_no_more(
            ("npidle", "gomaxprocs"), ("unseen", "gomaxprocs"), ("timers_due", "gomaxprocs")
        ),
    ),
    "queues_read_in_all": Parts(
        "The queues that were read at a look hold no more goroutines than all queues.",
        {"waiting": ("ts_ns", "runq_least", "runq")},
        _all_no_more(("runq_least", "runq")),
    ),
}
"""Rules about rows of a trace's tables, by name."""

EPISODE_PARTS: Mapping[str, Parts] = {
    "hold_in_call": Parts(
        "P was held until the call's return at most, or to a taker that was at work then.",
        {"episodes": ("hold_ns", "block_ns", "exit_ns")},
        _hold_in_call,
    ),
    "harm_in_hold": Parts(
        "A hold did harm for no longer than it lasted.",
        {"episodes": ("harm_ns", "hold_ns")},
        _all_no_more(("harm_ns", "hold_ns")),
    ),
    "parts_in_latency": Parts(
        "The steps of a P-retake latency last no longer than the latency.",
        {"episodes": ("retake_ns", *(name for _, name, _ in PARTS))},
        _parts_in_latency,
    ),
}
"""Rules about episodes, by name: what they say of the analysis itself."""


def not_apart(calls: pd.DataFrame, machine: str | None = None) -> Broken:
    """Calls of a thread that begin before the one before them is over.

    A call may lie inside another where a signal's handler made it: the outer call goes on after
    the handler. So the outer one blocked at least twice, or has the handler's rt_sigreturn in it.

    Args:
        calls: of known entry: ``tid``, ``enter_ns``, ``exit_ns``, ``blocks``, ``nr``; its index
            is that of the result.
        machine: the architecture of the trace, as its manifest tells it.
    """
    ordered = calls.sort_values(["tid", "enter_ns"], kind="stable")
    longest = ordered.groupby("tid")["exit_ns"].cummax()
    place = pd.Series(np.arange(len(ordered)), ordered.index)
    # The call before that ends last: the outer one, if this one lies inside it.
    outer = place.where(ordered["exit_ns"] == longest).groupby(ordered["tid"]).ffill()
    outer = outer.groupby(ordered["tid"]).shift().fillna(0).astype(np.int64)
    end = longest.groupby(ordered["tid"]).shift().fillna(UNKNOWN)
    early = (ordered["enter_ns"] < end).to_numpy()
    of_handler = np.zeros(len(ordered), bool)
    returned = early & ordered["nr"].isin(syscall_numbers(machine, "rt_sigreturn")).to_numpy()
    of_handler[outer.to_numpy()[returned]] = True
    of_handler |= (ordered["blocks"] >= 2).to_numpy()
    inside = (ordered["exit_ns"] <= end).to_numpy() & of_handler[outer.to_numpy()]
    broken = pd.Series(early & ~inside, ordered.index)
    return len(calls), broken.reindex(calls.index).to_numpy(bool)


def more_blocks_than_told(blocks: pd.DataFrame, calls: pd.DataFrame) -> Broken:
    """Finished calls of which there are more rows of table block than times that they blocked.

    Args:
        blocks: ``tid`` and ``enter_ns`` of each block inside a call.
        calls: ``tid``, ``enter_ns`` and ``blocks`` of each call.
    """
    rows = blocks.groupby(["tid", "enter_ns"]).size()
    at = pd.MultiIndex.from_frame(calls[["tid", "enter_ns"]])
    seen = rows.reindex(at, fill_value=0).to_numpy()
    known = _known(calls, "enter_ns", "blocks")
    return int(known.sum()), known & (seen > calls["blocks"].to_numpy(np.int64))
