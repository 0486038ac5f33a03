"""Replays a trace against the rules of the model and counts what breaks them.

The reader checks that files are well-formed; this module checks that their rows make sense. For
example, two threads cannot be blocked with the same P at the same time. If a trace has that, it
was captured wrongly, or the model is wrong.

Each rule is one function. It gets the rows, and returns how many things it looked at and when they
broke the rule. If records were lost, a rule that needs every row of a table skips the time of the
loss, and its count is smaller.

A trace may be larger than memory. Rules about single rows read one piece of a table after the
other. Rules about the next switch of a thread read one window of time after the other. Rules about
the calls of a thread go through the threads in groups that have up to :data:`ROWS` rows. Of each
episode only a few numbers are kept.

There are two kinds of rules. A *runtime* rule is about the program's scheduler; if one is broken,
the capture or the model is wrong. A *kernel* rule assumes that the kernel reported every event. It
does not always: some threads (of a hypervisor's agent, for example) are hidden from tracepoints,
so no tracer sees switches to them. ``perf sched record`` misses the same switches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.ptime.episodes import episode_windows, setting_of
from analysis.ptime.tasks import p_key
from analysis.schema import Field, Frame
from analysis.trust.wholes import (
    EPISODE_PARTS,
    ROW_PARTS,
    Parts,
    more_blocks_than_told,
    not_apart,
)
from analysis.windowed import plain
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from analysis.windowed.memory import LastRows
from analysis.windowed.windows import windows
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["KINDS", "ROWS", "RULES", "VALIDATION", "validate"]

ROWS = 4_000_000
"""Rows of one table that are in memory at once, about; more only where one thread has more."""

KINDS = ("runtime", "kernel")
"""What a rule asks about: the program's scheduler, or the completeness of what the kernel told."""

VALIDATION = Frame(
    "validation",
    "one rule of the model, and how often the trace breaks it",
    (
        Field("rule", "name of the rule", "str"),
        Field("kind", "what it is about", words=KINDS),
        Field("meaning", "what must hold", "str"),
        Field("checked", "number of things that were checked"),
        Field("broken", "number of those that break the rule"),
        Field("first_ns", "when the first of them happened"),
    ),
)


_Found = tuple[int, Ints]
"""How many things were looked at, and when each of those that break the rule happened."""


@dataclass(frozen=True)
class _Seen:
    """What the rules look at: a trace, and its episodes as plain numbers."""

    trace: Trace
    episodes: pd.DataFrame
    of_episodes: Mapping[str, _Found]
    """What breaks the rules that are asked of each episode while it is at hand."""
    rows: int
    tells_run: bool

    def pieces(self, table: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The plain rows of a table, one row group after the other."""
        for group in self.trace.row_groups(table, plain.TIME_COLUMN[table]):
            rows = self.trace.read_row_group(table, group, list(columns))
            yield plain.from_arrow(table, rows)

    def of_threads(
        self,
        wanted: Mapping[str, Sequence[str]],
    ) -> Iterator[Mapping[str, pd.DataFrame]]:
        """All rows of some threads, then those of the next ones.

        Args:
            wanted: tables and their columns, of which ``tid`` is one.
        """
        counts: pd.Series[int] = pd.Series(dtype="int64")
        for table in wanted:
            for rows in self.pieces(table, ["tid"]):
                counts = counts.add(rows["tid"].value_counts(), fill_value=0)
        # Threads with many rows first, each into the lot that its rows begin in.
        counts = counts.sort_index().sort_values(ascending=False, kind="stable")
        lots = ((counts.cumsum() - counts) // self.rows).astype(np.int64)
        for _, threads in counts.index.to_series().groupby(lots.to_numpy()):
            these = pa.array(threads.to_numpy(np.int64), pa.int32())
            yield {table: self._rows_of(table, names, these) for table, names in wanted.items()}

    def _rows_of(self, table: str, columns: Sequence[str], threads: pa.Array) -> pd.DataFrame:
        found = [plain.empty(table, columns)]
        for group in self.trace.row_groups(table, plain.TIME_COLUMN[table]):
            rows = self.trace.read_row_group(table, group, list(columns))
            found.append(plain.from_arrow(table, rows.filter(pc.is_in(rows["tid"], threads))))
        whole = pd.concat(found, ignore_index=True)
        return whole.sort_values(plain.TIME_COLUMN[table], kind="stable", ignore_index=True)


def validate(trace: Trace, rows: int = ROWS) -> pd.DataFrame:
    """Check a trace against every rule.

    Args:
        trace: the trace.
        rows: of one table, to hold in memory at once, about; changes nothing in the result.

    Returns:
        A DataFrame of :data:`VALIDATION`, one row for each of :data:`RULES`.

    Raises:
        PretakeError: the trace cannot be read.
    """
    pieces: dict[str, list[Ints]] = {name: [] for name in (*_NARROW, *_WIDE)}
    asked: dict[str, list[_Found]] = {name: [] for name in (_IN_ORDER, *EPISODE_PARTS)}
    setting = setting_of(trace)
    of_parts = [column for rule in EPISODE_PARTS.values() for column in rule.columns["episodes"]]
    wanted = tuple(dict.fromkeys((*pieces, *_WAY, *of_parts)))
    for piece in episode_windows(trace, setting=setting, columns=wanted):
        asked[_IN_ORDER].append(_out_of_order(piece))
        for rule_name, rule in EPISODE_PARTS.items():
            asked[rule_name].append(_broken_parts(rule, piece))
        for name, parts in pieces.items():
            width = np.int32 if name in _NARROW else np.int64
            parts.append(piece[name].to_numpy(width, na_value=UNKNOWN))
    # Column by column, so that no more than one of them is there twice.
    columns = {name: np.concatenate(pieces.pop(name)) for name in [*pieces]}
    # In order: a thread's first M is that of its first block.
    order = np.lexsort((columns["tid"], columns["block_ns"]))
    episodes = pd.DataFrame({name: columns.pop(name)[order] for name in [*columns]})
    of_episodes = {name: _together(iter(found)) for name, found in asked.items()}
    seen = _Seen(trace, episodes, of_episodes, rows, setting.tells_run)
    found = [rule(seen) for rule in RULES.values()]
    return VALIDATION.finish(
        {
            "rule": np.array(list(RULES), object),
            "kind": np.array(
                [KINDS.index("kernel" if n in _KERNEL else "runtime") for n in RULES]
            ),
            "meaning": np.array([_meaning(name) for name in RULES], object),
            "checked": np.array([checked for checked, _ in found]),
            "broken": np.array([len(broken) for _, broken in found]),
            "first_ns": np.array(
                [broken.min() if len(broken) else UNKNOWN for _, broken in found]
            ),
        }
    )


def _together(parts: Iterator[_Found]) -> _Found:
    """What was found piece by piece."""
    checked, broken = 0, [np.empty(0, np.int64)]
    for count, times in parts:
        checked += count
        broken.append(times)
    return checked, np.concatenate(broken)


def _in_capture(seen: _Seen) -> _Found:
    """Every row's time is within the capture."""
    begin, end = seen.trace.manifest.begin_ns, seen.trace.manifest.end_ns

    def found() -> Iterator[_Found]:
        for table, column in plain.TIME_COLUMN.items():
            for rows in seen.pieces(table, [column]):
                times = _times(rows, column)
                broken = np.zeros(len(times), bool)
                if begin is not None:
                    broken |= times < begin
                if end is not None:
                    broken |= times > end
                yield len(times), times[broken]

    return _together(found())


def _call_in_order(seen: _Seen) -> _Found:
    """A call returns no sooner than it was entered."""

    def found() -> Iterator[_Found]:
        for calls in seen.pieces("syscall", ["enter_ns", "exit_ns"]):
            known = calls[calls["enter_ns"] != UNKNOWN]
            yield len(known), _times(known[known["exit_ns"] < known["enter_ns"]], "exit_ns")

    return _together(found())


def _calls_apart(seen: _Seen) -> _Found:
    """A thread is in one call at a time."""

    def found() -> Iterator[_Found]:
        columns = ["tid", "enter_ns", "exit_ns", "blocks", "nr"]
        for tables in seen.of_threads({"syscall": columns}):
            calls = tables["syscall"]
            known = calls[calls["enter_ns"] != UNKNOWN]
            checked, broken = not_apart(known, seen.trace.manifest.arch)
            yield checked, _times(known[broken], "enter_ns")

    return _together(found())


def _block_in_call(seen: _Seen) -> _Found:
    """A thread blocks between its call's entry and its return."""
    wanted = {"block": ["ts_ns", "tid", "enter_ns"], "syscall": ["tid", "enter_ns", "exit_ns"]}

    def found() -> Iterator[_Found]:
        for tables in seen.of_threads(wanted):
            blocks, calls = tables["block"], tables["syscall"]
            known = blocks[blocks["enter_ns"] != UNKNOWN]
            calls = calls[calls["enter_ns"] != UNKNOWN]
            lines = Timelines(calls["tid"], calls["enter_ns"])
            at = lines.first_after(known["tid"], known["enter_ns"])
            own = take(calls["enter_ns"], at, UNKNOWN) == known["enter_ns"].to_numpy()
            exits = np.where(own & (at != NOT_FOUND), take(calls["exit_ns"], at, UNKNOWN), UNKNOWN)
            times = _times(known, "ts_ns")
            early = times < known["enter_ns"].to_numpy()
            yield len(known), times[early | ((exits != UNKNOWN) & (times > exits))]

    return _together(found())


def _blocks_of_call(seen: _Seen) -> _Found:
    """A call has no more rows of table block than times that it blocked."""
    wanted = {
        "block": ["ts_ns", "tid", "enter_ns"],
        "syscall": ["tid", "enter_ns", "exit_ns", "blocks"],
    }

    def found() -> Iterator[_Found]:
        for tables in seen.of_threads(wanted):
            calls = tables["syscall"]
            checked, broken = more_blocks_than_told(tables["block"], calls)
            yield checked, _times(calls[broken], "exit_ns")

    return _together(found())


def _losses_told(seen: _Seen) -> _Found:
    """The spans of loss of a table have no more records than it lost in all."""
    table = TABLES["loss"].column("table")
    spans = plain.from_arrow("loss", seen.trace.arrow("loss"))
    sums = spans.groupby("table").agg({"lost": "sum", "begin_ns": "min"})
    in_all = [seen.trace.manifest.lost.get(table.words[code], 0) for code in sums.index]
    broken = sums[sums["lost"] > np.array(in_all, np.int64)]
    return len(sums), broken["begin_ns"].to_numpy(np.int64)


def _p_is_there(seen: _Seen) -> _Found:
    """A P that is held is one of the process's: its number is below GOMAXPROCS."""
    most: dict[int, int] = {}
    for rows in seen.pieces("waiting", ["ts_ns", "pid", "gomaxprocs"]):
        for pid, count in rows.groupby("pid")["gomaxprocs"].max().items():
            most[int(str(pid))] = max(most.get(int(str(pid)), 0), int(count))
    held = seen.episodes[seen.episodes["p"] != UNKNOWN]
    ps = held["pid"].map(most)
    known = held[ps > 0]
    return len(known), _times(known[known["p"] >= ps[ps > 0]], "block_ns")


def _parts_of_rows(rule: Parts) -> Callable[[_Seen], _Found]:
    def asked(seen: _Seen) -> _Found:
        def found() -> Iterator[_Found]:
            for table, columns in rule.columns.items():
                if table in plain.TIME_COLUMN:
                    for rows in seen.pieces(table, list(columns)):
                        yield _broken_parts(rule, rows)
                else:
                    rows = plain.from_arrow(table, seen.trace.arrow(table, list(columns)))
                    yield _broken_parts(rule, rows)

        return _together(found())

    return asked


def _parts_of_episodes(name: str) -> Callable[[_Seen], _Found]:
    return lambda seen: seen.of_episodes[name]


def _broken_parts(rule: Parts, rows: pd.DataFrame) -> _Found:
    """Of rows, or of episodes: which break a rule, by the moment that they became known."""
    names = [name for columns in rule.columns.values() for name in columns if name in rows]
    numbers = pd.DataFrame({name: plain.numbers(rows[name]) for name in dict.fromkeys(names)})
    checked, broken = rule.broken(numbers)
    times = next(name for name in ("block_ns", "exit_ns", "begin_ns", "ts_ns") if name in rows)
    return checked, rows[times].to_numpy(np.int64)[broken]


def _episode_in_order(seen: _Seen) -> _Found:
    """The times of an episode are in order: block, release, handoff, acquirep, run."""
    return seen.of_episodes[_IN_ORDER]


def _out_of_order(episodes: pd.DataFrame) -> _Found:
    way = {name: plain.numbers(episodes[name]) for name in _WAY}
    broken = np.zeros(len(episodes), bool)
    before = way["release_ns"]
    for column in ("handoff_ns", "acquirep_ns", "run_ns"):
        at = way[column]
        broken |= (at != UNKNOWN) & (at < before)
        before = np.maximum(before, at)
    return len(episodes), episodes["block_ns"].to_numpy(np.int64)[broken]


def _p_at_one_m(seen: _Seen) -> _Found:
    """At most one blocked thread holds a P."""
    held = _held(seen.episodes)
    if seen.tells_run:
        # Such a runtime tells each change of P. Where it does not, as Go, who uses a P that
        # another seemed to hold is no fault of the trace: the hold's end is unknown then.
        held = pd.concat([held, _holds_of_unknown_end(seen.episodes)], ignore_index=True)
    return _overlaps(p_key(held["pid"], held["p"]), held["block_ns"], held["until_ns"])


def _m_has_one_p(seen: _Seen) -> _Found:
    """An M holds one P at a time."""
    held = _held(seen.episodes)
    return _overlaps(held["tid"], held["block_ns"], held["until_ns"])


def _g_in_one_call(seen: _Seen) -> _Found:
    """A goroutine is in one call at a time."""
    calls = seen.episodes
    calls = calls[(calls["goid"] != UNKNOWN) & (calls["exit_ns"] != UNKNOWN)]
    goroutines = calls.groupby(["pid", "goid"]).ngroup()
    return _overlaps(goroutines, calls["block_ns"], calls["exit_ns"])


def _m_is_one_thread(seen: _Seen) -> _Found:
    """An M stays on one thread as long as that thread lives."""
    found = seen.episodes[seen.episodes["m"] != UNKNOWN]
    first = found.groupby(["pid", "tid"])["m"].transform("first")
    return len(found), _times(found[found["m"] != first], "block_ns")


def _switches_alternate(seen: _Seen) -> _Found:
    """A thread leaves its CPU before it enters another one."""
    targets = plain.from_arrow("task", seen.trace.arrow("task", ["tid"]))["tid"].unique()
    last = LastRows("tid")

    def found() -> Iterator[_Found]:
        for window in windows(seen.trace, {"sched_switch": ("ts_ns", *_EDGES)}):
            switches = window.tables["sched_switch"]
            edges = pd.concat(
                [
                    pd.DataFrame(
                        {"tid": switches[name], "ts_ns": switches["ts_ns"], "enters": way}
                    )
                    for name, way in _EDGES.items()
                ],
                ignore_index=True,
            )
            edges = edges[edges["tid"].isin(targets) & (edges["tid"] > 0)]
            # In one switch the leaving comes first: a thread can follow itself after a migration.
            edges = edges.sort_values(["ts_ns", "enters"], kind="stable")
            both = last.extend(edges).sort_values(["tid"], kind="stable")
            tids, enters = both["tid"].to_numpy(), both["enters"].to_numpy()
            broken = (tids[1:] == tids[:-1]) & (enters[1:] == enters[:-1])
            yield len(edges), both["ts_ns"].to_numpy(np.int64)[1:][broken]

    return _together(found())


_EDGES = {"prev_tid": 0, "next_tid": 1}
"""Who leaves a CPU in a switch, and who enters it."""


RULES: Mapping[str, Callable[[_Seen], _Found]] = {
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
    "blocks_of_call": _blocks_of_call,
    "losses_told": _losses_told,
    "p_is_there": _p_is_there,
    **{name: _parts_of_rows(rule) for name, rule in ROW_PARTS.items()},
    **{name: _parts_of_episodes(name) for name in EPISODE_PARTS},
}
"""Every rule, by name."""


def _meaning(name: str) -> str:
    parts = {**ROW_PARTS, **EPISODE_PARTS}
    return parts[name].meaning if name in parts else (RULES[name].__doc__ or "").strip()


_KERNEL = ("switches_alternate",)
_IN_ORDER = "episode_in_order"
_NARROW = ("pid", "tid", "p", "m")
_WIDE = ("goid", "block_ns", "hold_ns", "exit_ns", "exit_slow_ns")
_WAY = ("release_ns", "handoff_ns", "acquirep_ns", "run_ns")
"""What the rules need of an episode; the way, only while it is at hand."""


def _held(episodes: pd.DataFrame) -> pd.DataFrame:
    """Episodes that held a P for a known time, with its end as ``until_ns``."""
    known = episodes[(episodes["p"] != UNKNOWN) & (episodes["hold_ns"] > 0)]
    return known.assign(until_ns=known["block_ns"] + known["hold_ns"])


def _holds_of_unknown_end(episodes: pd.DataFrame) -> pd.DataFrame:
    """Episodes of which nobody tells when P was released, up to their return."""
    lost = episodes[
        (episodes["p"] != UNKNOWN)
        & (episodes["hold_ns"] == UNKNOWN)
        & (episodes["exit_slow_ns"] == UNKNOWN)
        & (episodes["exit_ns"] != UNKNOWN)
    ]
    return lost.assign(until_ns=lost["exit_ns"])


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
