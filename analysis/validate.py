"""Replays a trace against the rules of the model and counts what breaks them.

The reader checks files, this checks sense: a trace whose rows contradict the model was captured
wrongly, or the model is wrong. Each rule is one function from the trace's rows to the number of
things that it looked at and the moments at which they broke it. Where records were lost, rules
that need every row of a table look only at what is left, and say so by their count.

A rule is of one of two kinds. A *runtime* rule holds of the program's scheduler whatever the
kernel tells, so a break is a fault of the capture or of the model. A *kernel* rule asks that the
kernel told everything, and it does not always: threads that a hypervisor's agent or the kernel
hides from tracepoints are switched to unseen, and ``perf sched record`` misses the same switches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import plain
from analysis.asof import NOT_FOUND, Ints, Timelines, take
from analysis.episodes import EpisodeStream, setting_of
from analysis.schema import Field, Frame
from analysis.tasks import p_key
from tracer.schema import UNKNOWN
from tracer.trace import Trace

__all__ = ["KINDS", "RULES", "VALIDATION", "validate"]

KINDS = ("runtime", "kernel")
"""What a rule asks about: the program's scheduler, or the completeness of what the kernel told."""

VALIDATION = Frame(
    "validation",
    "one rule of the model, and how the trace keeps it",
    (
        Field("rule", "name of the rule", "str"),
        Field("kind", "what it asks about", words=KINDS),
        Field("meaning", "what must hold", "str"),
        Field("checked", "things looked at"),
        Field("broken", "those that break the rule"),
        Field("first_ns", "when the first of them happened"),
    ),
)


@dataclass(frozen=True)
class _Rows:
    """What the rules look at: plain tables, and plain episodes."""

    tables: Mapping[str, pd.DataFrame]
    episodes: pd.DataFrame
    begin_ns: int | None
    end_ns: int | None


_Found = tuple[int, Ints]
"""How many things were looked at, and when each of those that break the rule happened."""


def validate(trace: Trace) -> pd.DataFrame:
    """Check a trace against every rule; the whole trace is read into memory.

    Returns:
        A DataFrame of :data:`VALIDATION`, one row for each of :data:`RULES`.

    Raises:
        PretakeError: the trace cannot be read.
    """
    tables = {name: plain.from_arrow(name, trace.arrow(name)) for name in plain.TIME_COLUMN}
    stream = EpisodeStream(setting_of(trace))
    last_ns = max(
        (int(rows[plain.TIME_COLUMN[name]].max()) for name, rows in tables.items() if len(rows)),
        default=0,
    )
    episodes = pd.concat([stream.feed(tables, last_ns), stream.close()], ignore_index=True)
    rows = _Rows(tables, _numbers(episodes), trace.manifest.begin_ns, trace.manifest.end_ns)
    found = [rule(rows) for rule in RULES.values()]
    return VALIDATION.finish(
        {
            "rule": np.array(list(RULES), object),
            "kind": np.array(
                [KINDS.index("kernel" if n in _KERNEL else "runtime") for n in RULES]
            ),
            "meaning": np.array([(rule.__doc__ or "").strip() for rule in RULES.values()], object),
            "checked": np.array([checked for checked, _ in found]),
            "broken": np.array([len(broken) for _, broken in found]),
            "first_ns": np.array(
                [broken.min() if len(broken) else UNKNOWN for _, broken in found]
            ),
        }
    )


def _in_capture(rows: _Rows) -> _Found:
    """Every row's time is within the capture."""
    times = np.concatenate(
        [table[plain.TIME_COLUMN[name]].to_numpy(np.int64) for name, table in rows.tables.items()]
    )
    broken = np.zeros(len(times), bool)
    if rows.begin_ns is not None:
        broken |= times < rows.begin_ns
    if rows.end_ns is not None:
        broken |= times > rows.end_ns
    return len(times), times[broken]


def _call_in_order(rows: _Rows) -> _Found:
    """A call returns no sooner than it was entered."""
    calls = rows.tables["syscall"]
    known = calls[calls["enter_ns"] != UNKNOWN]
    return len(known), _times(known[known["exit_ns"] < known["enter_ns"]], "exit_ns")


def _calls_apart(rows: _Rows) -> _Found:
    """A thread is in one call at a time."""
    calls = rows.tables["syscall"]
    known = calls[calls["enter_ns"] != UNKNOWN]
    return _overlaps(known["tid"], known["enter_ns"], known["exit_ns"])


def _block_in_call(rows: _Rows) -> _Found:
    """A thread blocks between its call's entry and its return."""
    blocks, calls = rows.tables["block"], rows.tables["syscall"]
    known = blocks[blocks["enter_ns"] != UNKNOWN]
    calls = calls[calls["enter_ns"] != UNKNOWN]
    lines = Timelines(calls["tid"], calls["enter_ns"])
    at = lines.first_after(known["tid"], known["enter_ns"])
    own = take(calls["enter_ns"], at, UNKNOWN) == known["enter_ns"].to_numpy()
    exits = np.where(own & (at != NOT_FOUND), take(calls["exit_ns"], at, UNKNOWN), UNKNOWN)
    times = known["ts_ns"].to_numpy(np.int64)
    early = times < known["enter_ns"].to_numpy()
    return len(known), times[early | ((exits != UNKNOWN) & (times > exits))]


def _episode_in_order(rows: _Rows) -> _Found:
    """P's way goes forward: block, release, handoff, acquirep, run."""
    episodes = rows.episodes
    broken = np.zeros(len(episodes), bool)
    before = episodes["release_ns"].to_numpy(np.int64)
    for column in ("handoff_ns", "acquirep_ns", "run_ns"):
        at = episodes[column].to_numpy(np.int64)
        broken |= (at != UNKNOWN) & (at < before)
        before = np.maximum(before, at)
    return len(episodes), _times(episodes[broken], "block_ns")


def _p_at_one_m(rows: _Rows) -> _Found:
    """A P is held by one blocked thread at a time."""
    held = _held(rows.episodes)
    return _overlaps(p_key(held["pid"], held["p"]), held["block_ns"], held["until_ns"])


def _m_has_one_p(rows: _Rows) -> _Found:
    """An M holds one P at a time."""
    held = _held(rows.episodes)
    return _overlaps(held["tid"], held["block_ns"], held["until_ns"])


def _g_in_one_call(rows: _Rows) -> _Found:
    """A goroutine is in one call at a time."""
    calls = rows.episodes
    calls = calls[(calls["goid"] != UNKNOWN) & (calls["exit_ns"] != UNKNOWN)]
    goroutines = calls.groupby(["pid", "goid"]).ngroup()
    return _overlaps(goroutines, calls["block_ns"], calls["exit_ns"])


def _m_is_one_thread(rows: _Rows) -> _Found:
    """An M is the same thread for as long as that thread lives."""
    seen = rows.episodes
    seen = seen[seen["m"] != UNKNOWN]
    first = seen.groupby(["pid", "tid"])["m"].transform("first")
    return len(seen), _times(seen[seen["m"] != first], "block_ns")


def _switches_alternate(rows: _Rows) -> _Found:
    """A thread enters a CPU and leaves it in turn: it never runs on two."""
    switches = rows.tables["sched_switch"]
    targets = rows.tables["task"]["tid"].unique()
    columns = {"prev_tid": 0, "next_tid": 1}
    edges = pd.concat(
        [
            pd.DataFrame({"tid": switches[name], "ts_ns": switches["ts_ns"], "enters": enters})
            for name, enters in columns.items()
        ],
        ignore_index=True,
    )
    # In one switch the leaving comes first: a thread can follow itself after a migration.
    edges = edges[edges["tid"].isin(targets) & (edges["tid"] > 0)]
    edges = edges.sort_values(["tid", "ts_ns", "enters"], kind="stable")
    same_thread = edges["tid"].to_numpy()[1:] == edges["tid"].to_numpy()[:-1]
    enters = edges["enters"].to_numpy()
    broken = same_thread & (enters[1:] == enters[:-1])
    return len(edges), edges["ts_ns"].to_numpy(np.int64)[1:][broken]


RULES: Mapping[str, Callable[[_Rows], _Found]] = {
    "in_capture": _in_capture,
    "call_in_order": _call_in_order,
    "calls_apart": _calls_apart,
    "block_in_call": _block_in_call,
    "episode_in_order": _episode_in_order,
    "p_at_one_m": _p_at_one_m,
    "m_has_one_p": _m_has_one_p,
    "g_in_one_call": _g_in_one_call,
    "m_is_one_thread": _m_is_one_thread,
    "switches_alternate": _switches_alternate,
}
"""Every rule, by name; a rule's docstring is its meaning."""

_KERNEL = ("switches_alternate",)


def _kind(rule: str) -> str:
    return "kernel" if rule in _KERNEL else "runtime"


def _held(episodes: pd.DataFrame) -> pd.DataFrame:
    """Episodes that held a P for a known time, with its end as ``until_ns``."""
    known = episodes[(episodes["p"] != UNKNOWN) & (episodes["hold_ns"] > 0)]
    return known.assign(until_ns=known["block_ns"] + known["hold_ns"])


def _overlaps(keys: pd.Series | Ints, begin: pd.Series, end: pd.Series) -> _Found:
    """Spans of one key that begin before the one before them is over."""
    spans = pd.DataFrame(
        {"key": np.asarray(keys), "begin": begin.to_numpy(), "end": end.to_numpy()}
    ).sort_values(["key", "begin"], kind="stable")
    over = spans.groupby("key")["end"].cummax().shift(fill_value=UNKNOWN)
    same_key = spans["key"] == spans["key"].shift()
    broken = spans[same_key & (spans["begin"] < over)]
    return len(spans), broken["begin"].to_numpy(np.int64)


def _times(rows: pd.DataFrame, column: str) -> Ints:
    return rows[column].to_numpy(np.int64)


def _numbers(episodes: pd.DataFrame) -> pd.DataFrame:
    """The integer columns of an episode table, null as ``UNKNOWN``."""
    numbers = episodes.select_dtypes("Int64")
    return pd.DataFrame(
        {name: numbers[name].to_numpy(np.int64, na_value=UNKNOWN) for name in numbers}
    )
