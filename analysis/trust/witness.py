"""The trace against a second witness: the runtime's own record of its retakes.

The reference runtime writes such a record on request (``pretake run … --witness FILE``): one
JSON object a line (or a Parquet file) with ``ts_ns``, the time of the release by its own clock,
the thread ``tid`` that lost the P ``p``, and, if it is known, ``enter_ns``, when that thread
entered its call. A Go program has one in its execution trace (:mod:`analysis.trust.go_trace`). All
clocks are CLOCK_MONOTONIC, so no clock is fitted. The clock of a program in a time namespace is
corrected by the offset that the kernel tells.

A row of the record belongs to the episode of the same thread and P if it lies within the call,
or up to :data:`analysis.ptime.engine.noted.RETURN_RACE_NS` after its return. Each row and
episode is used once.

Two things are told by one side only, and are not compared. A thread that lost its CPU in its
call, and then its P, never blocked: so it has no episode. And the P of a goroutine that was
preempted may be given on while its thread is still blocked: that is an episode, and no retake.

A P that was taken as its thread was about to block has an episode of ``handed_off``: at the block
P was gone. Go writes the time of a steal down some 100 ns behind it, so its record may tell it as
taken from a thread that had blocked. Such an episode counts where the record has a row for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from analysis.ptime.engine.noted import RETURN_RACE_NS
from analysis.ptime.episodes import episode_windows
from analysis.stats.quantiles import quantiles
from analysis.trust.go_trace import blocked, is_go_trace, parsed_text, read_go_trace, steals
from analysis.trust.p_time import PTime, compare_p_time
from analysis.windowed import plain
from analysis.windowed.asof import NOT_FOUND, Timelines, take
from analysis.windowed.columns import capture_span
from tracer.errors import PretakeError
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["Check", "Pair", "check", "check_own", "match_records", "read_witness"]

_COLUMNS = ("ts_ns", "tid", "p")
_ENTERED = "enter_ns"
_COMPARED = ("outcome", "reason", "tid", "p", "enter_ns", "block_ns", "release_ns", "exit_ns")
_BY_PREEMPTION = "async"
_BY_ITSELF = "syscall_block"
_SHOWN = 10


class Pair(TypedDict):
    """A row of one side that has none on the other."""

    ts_ns: int
    tid: int
    p: int | None


class Difference(TypedDict):
    """Quantiles of |release in the trace - time in the record|, in ns."""

    p50: int | None
    p99: int | None
    max: int | None


class Check(TypedDict):
    """What :func:`check` returns.

    Keys:
        records: rows of the record within the capture; outside: the others.
        unblocked: rows that do not count, since their thread never blocked.
        episodes: retake episodes of the trace, without those whose goroutine was preempted.
        matched: those that both tell.
        recall: matched / records; precision: matched / episodes; None for none of them.
        missed: the first rows that the trace has not; extra: that the record has not.
        lost: records that the capture lost, of any table: they explain a miss.
        p_time: each P's time by state, against a Go trace; empty for another record.
    """

    records: int
    outside: int
    unblocked: int
    episodes: int
    matched: int
    recall: float | None
    precision: float | None
    difference_ns: Difference
    missed: list[Pair]
    extra: list[Pair]
    lost: int
    p_time: list[PTime]


def check(trace: Trace, witness: str | Path) -> Check:
    """Compare a trace's retake episodes with the runtime's own record.

    Args:
        trace: the trace.
        witness: file with the record.

    Raises:
        PretakeError: the file is no such record, or the trace cannot be read.
    """
    manifest = trace.manifest
    if Path(witness).exists() and not Path(witness).is_file():
        # Who opens a pipe waits for its writer; and the record is read more than once.
        raise PretakeError(f"{witness} is no regular file", "name a file with the record")
    parsed = _parsed_go_trace(Path(witness))
    given = read_witness(witness) if parsed is None else steals(parsed)
    records = _on_the_traces_clock(given, trace)
    # Of each window only what is compared stays.
    pieces = [
        piece[
            piece["outcome"].isin(["retaken", "handed_off"])
            & piece["release_ns"].notna()
            & ~piece["reason"].isin([_BY_PREEMPTION, _BY_ITSELF])
        ]
        for piece in episode_windows(trace, columns=_COMPARED)
    ]
    found = pd.concat(pieces, ignore_index=True)
    found = found.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)
    unblocked = 0
    if records.attrs:
        # A Go trace: of a part of the program's life. It has no row of a call that began before.
        began, ended = records.attrs["begin_ns"], records.attrs["end_ns"]
        inside = (found["enter_ns"] >= began) & (found["release_ns"] <= ended)
        found = found[inside.fillna(True)]
    if _ENTERED in records:
        told = blocked(records, trace.frame("sched_switch", ["ts_ns", "prev_tid", "prev_state"]))
        # What was before the capture is no answer of its switches.
        inside = records["ts_ns"].between(*capture_span(trace))
        unblocked = int((~told & inside).sum())
        records = records[told | ~inside]
    # One that the record does not tell was of a thread that had not blocked yet.
    late = found[found["outcome"] == "handed_off"].reset_index(drop=True)
    late = late[late.index.isin(_pairs(late, records)["episode"])]
    found = pd.concat([found[found["outcome"] == "retaken"], late.assign(outcome="retaken")])
    found = found.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)
    result = match_records(found, records, manifest.begin_ns, manifest.end_ns)
    result["unblocked"] = unblocked
    result["lost"] = sum(manifest.lost.values())
    if parsed is not None:
        ahead_ns = given.attrs.get("begin_ns", 0) - records.attrs.get("begin_ns", 0)
        result["p_time"] = compare_p_time(trace, parsed, ahead_ns)
    return result


def check_own(trace: Trace) -> tuple[Check | None, str]:
    """Compare a trace with what Go's own flight recorder gave of the same time
    (``pretake watch --flight``).

    Returns:
        The comparison; or None, and why there is none (empty where the trace has nothing of Go's).
    """
    if trace.go_trace is None:
        return None, ""
    try:
        return check(trace, trace.go_trace), ""
    except PretakeError as error:
        return None, str(error)


def _parsed_go_trace(path: Path) -> str | None:
    """The text of a Go execution trace; None for what is none."""
    try:
        return parsed_text(path) if is_go_trace(path) else None
    except OSError:
        # read_witness tells why.
        return None


def _on_the_traces_clock(records: pd.DataFrame, trace: Trace) -> pd.DataFrame:
    """Records of processes whose own clock is ahead (time namespaces), with that taken off.

    Raises:
        PretakeError: it is not known how far ahead the clock of one of them is.
    """
    ahead_ns = {int(pid): ns for pid, ns in trace.manifest.clocks_ahead_ns.items()}
    if not ahead_ns or records.empty:
        return records
    tasks = trace.frame("task", ["tid", "pid"]).drop_duplicates("tid", keep="last")
    pids = records["tid"].map(tasks.set_index("tid")["pid"])
    unread = [pid for pid, ns in ahead_ns.items() if ns is None]
    doubtful = pids[pids.isin(unread)]
    if len(doubtful):
        raise PretakeError(
            f"{len(doubtful)} rows of the record are by a clock that the capture could not read: "
            f"process {int(doubtful.iloc[0])} had ended, or was not the caller's",
            "capture it as root, and let the program run for longer",
        )
    off_ns = pids.map(ahead_ns).fillna(0).astype("int64")
    clocks = [name for name in ("ts_ns", _ENTERED) if name in records]
    moved = records.assign(**{name: records[name] - off_ns for name in clocks})
    # Of a Go trace, which is one process's.
    moved.attrs = {name: ns - int(off_ns.max()) for name, ns in records.attrs.items()}
    return moved


def read_witness(path: str | Path) -> pd.DataFrame:
    """The record in a file: ts_ns, tid, p, and enter_ns if the record has it in every row.

    Raises:
        PretakeError: there is no such file, or it is no record.
    """
    path = Path(path)
    mend = "name what 'pretake run --witness' or a Go program's runtime/trace wrote"
    try:
        if is_go_trace(path):
            return read_go_trace(path)
        if path.suffix == ".parquet":
            known = [name for name in pq.read_schema(path).names if name == _ENTERED]
            table = pq.read_table(path, columns=[*_COLUMNS, *known])
        elif path.stat().st_size == 0:
            # A run without a retake writes no line at all, and that is a record too.
            table = pa.table({name: pa.array([], pa.int64()) for name in _COLUMNS})
        else:
            schema = pa.schema([pa.field(name, pa.int64()) for name in (*_COLUMNS, _ENTERED)])
            options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            table = pj.read_json(path, parse_options=options)
    except OSError as error:
        raise PretakeError(f"cannot read {path}: {error.strerror or 'no file'}", mend) from None
    except pa.ArrowException:
        raise PretakeError(f"{path} is no record of retakes", mend) from None
    if any(table.column(name).null_count for name in _COLUMNS):
        raise PretakeError(f"{path} has rows without {', '.join(_COLUMNS)}", mend)
    names = [name for name in table.column_names if not table.column(name).null_count]
    return pd.DataFrame({name: table.column(name).to_numpy() for name in names})


def match_records(
    episodes: pd.DataFrame,
    records: pd.DataFrame,
    begin_ns: int | None = None,
    end_ns: int | None = None,
) -> Check:
    """Join retake episodes with record rows.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`.
        records: ts_ns, tid and p of each row of the record, at least.
        begin_ns: begin of the capture; earlier rows do not count. None for no limit.
        end_ns: its end likewise.
    """
    inside = pd.Series(True, index=records.index)
    if begin_ns is not None:
        inside &= records["ts_ns"] >= begin_ns
    if end_ns is not None:
        inside &= records["ts_ns"] <= end_ns
    outside = int((~inside).sum())
    records = records[inside].reset_index(drop=True)
    retaken = episodes[episodes["outcome"] == "retaken"].reset_index(drop=True)
    pairs = _pairs(retaken, records)
    missed = records[~records.index.isin(pairs["record"])]
    retaken = retaken.assign(ts_ns=retaken["release_ns"])
    extra = retaken[~retaken.index.isin(pairs["episode"])]
    found = quantiles(pairs["apart_ns"], 0.5, 0.99, 1.0)
    return {
        "records": len(records),
        "outside": outside,
        "unblocked": 0,
        "episodes": len(retaken),
        "matched": len(pairs),
        "recall": len(pairs) / len(records) if len(records) else None,
        "precision": len(pairs) / len(retaken) if len(retaken) else None,
        "difference_ns": {"p50": found["p50"], "p99": found["p99"], "max": found["p100"]},
        "missed": _shown(missed),
        "extra": _shown(extra),
        "lost": 0,
        "p_time": [],
    }


def _pairs(retaken: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Indices of record rows and episodes that tell of the same retake, and how far apart."""
    known = {
        name: plain.numbers(retaken[name])
        for name in ("tid", "p", "enter_ns", "block_ns", "release_ns", "exit_ns")
    }
    begin = np.where(known["enter_ns"] == UNKNOWN, known["block_ns"], known["enter_ns"])
    end = np.where(known["exit_ns"] == UNKNOWN, np.iinfo(np.int64).max, known["exit_ns"])
    end = np.maximum(end, known["release_ns"])
    end += np.where(end < np.iinfo(np.int64).max, RETURN_RACE_NS, 0)
    calls = Timelines(known["tid"], begin)
    at = calls.last_before(records["tid"], records["ts_ns"])
    times = records["ts_ns"].to_numpy(np.int64)
    ours = (
        (at != NOT_FOUND)
        & (take(known["p"], at, UNKNOWN) == records["p"].to_numpy())
        & (take(end, at, UNKNOWN) >= times)
    )
    pairs = pd.DataFrame(
        {
            "record": np.flatnonzero(ours),
            "episode": at[ours],
            "apart_ns": np.abs(take(known["release_ns"], at, UNKNOWN) - times)[ours],
        }
    )
    # Two rows in one call: the nearer one is the episode's, the other has none.
    return pairs.sort_values("apart_ns", kind="stable").drop_duplicates("episode")


def _shown(rows: pd.DataFrame) -> list[Pair]:
    return [
        {"ts_ns": int(ts_ns), "tid": int(tid), "p": None if pd.isna(p) else int(p)}
        for ts_ns, tid, p in rows[list(_COLUMNS)].head(_SHOWN).itertuples(index=False)
    ]
