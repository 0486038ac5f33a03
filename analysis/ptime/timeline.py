"""What happened around an episode: which thread ran where, and who held P."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.schema import Field, Frame
from analysis.windowed import plain
from analysis.windowed.asof import Ints
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["STATES", "TIMELINE", "rows_around", "timelines"]

STATES = (
    "running",  # the thread was on a CPU
    "waiting",  # it was runnable, and waited for a CPU
    "blocked",  # it was neither
    "used",  # P was with a thread that did not block (as far as is known)
    "held",  # P was held by the blocked thread
    "moving",  # P was on its way to a thread
)

TIMELINE = Frame(
    "timeline",
    "a span of time in one lane (a thread or P) around an episode",
    (
        Field("episode", "which of the episodes asked for, from 0"),
        Field("lane", "name of the lane: the P first, then the threads", "str"),
        Field("state", "what the thread or P was doing", words=STATES),
        Field("begin_ns", "begin of the span"),
        Field("end_ns", "end of the span"),
        Field("cpu", "CPU on which the thread ran"),
        Field("tid", "the lane's thread; for P, the thread it was with"),
    ),
)

_MARGIN = 0.12
_TAIL = 1.5
"""How much longer than the part up to P's next goroutine the shown end of a call may be."""

_SWITCH = ("ts_ns", "prev_tid", "next_tid", "cpu", "prev_state")
_PREEMPTED = 0


def timelines(trace: Trace, episodes: pd.DataFrame) -> pd.DataFrame:
    """The time lines of a few episodes.

    Args:
        trace: the trace.
        episodes: rows of its episode table. Only what lies around them is read.

    Returns:
        A DataFrame of :data:`TIMELINE`.

    Raises:
        PretakeError: the trace cannot be read.
    """
    spans = [_shown_span(row) for row in _plain_rows(episodes)]
    switches = rows_around(trace, "sched_switch", _SWITCH, spans)
    wakeups = rows_around(trace, "sched_wakeup", ("ts_ns", "tid"), spans)
    pieces: list[pd.DataFrame] = []
    for number, (row, span) in enumerate(zip(_plain_rows(episodes), spans, strict=True)):
        pieces.append(_p_lane(row, span).assign(episode=number))
        tids = [row["tid"], row["taker_tid"], row["runner_tid"]]
        for tid in dict.fromkeys(tid for tid in tids if tid != UNKNOWN):
            lane = _thread_lane(tid, span, switches, wakeups)
            pieces.append(lane.assign(episode=number, lane=f"thread {tid}", tid=tid))
    if not pieces:
        return TIMELINE.finish({})
    rows = pd.concat(pieces, ignore_index=True)
    rows = rows[rows["end_ns"] > rows["begin_ns"]]
    return TIMELINE.finish({name: rows[name] for name in TIMELINE.names})


def _plain_rows(episodes: pd.DataFrame) -> Iterator[dict[str, int]]:
    """Each episode's numbers; a handful of them, so a loop is no loop over events."""
    numbers = episodes.select_dtypes("Int64").fillna(UNKNOWN)
    for values in numbers.to_numpy(np.int64).tolist():
        yield dict(zip(numbers.columns, values, strict=True))


def _shown_span(row: dict[str, int]) -> tuple[int, int]:
    """What to show: the call from its entry, to its return if that is not far beyond."""
    moments = [row[name] for name in ("enter_ns", "block_ns", "release_ns") if row[name] > 0]
    # A damaged trace may have times before the machine began.
    begin = min(moments, default=row["block_ns"])
    way = [row[name] for name in ("release_ns", "acquirep_ns", "run_ns")]
    stop = max(*way, row["block_ns"])
    end = row["exit_ns"] if row["exit_ns"] != UNKNOWN else row["block_ns"] + row["hold_ns"]
    if stop > row["block_ns"]:
        end = min(end, stop + round(_TAIL * (stop - begin)))
    end = max(end, stop)
    margin = max(round(_MARGIN * (end - begin)), 1_000)
    # A time near the end of the clock has no room for a margin.
    return begin - margin, min(end + margin, np.iinfo(np.int64).max)


def rows_around(
    trace: Trace, table: str, columns: tuple[str, ...], spans: list[tuple[int, int]]
) -> pd.DataFrame:
    """The plain rows of a table that lie in any of the spans; only what lies there is read.

    ``columns`` hold the one by which the table's rows stand in time.
    """
    time = plain.TIME_COLUMN[table]
    found = [plain.empty(table, columns)]
    for group in trace.row_groups(table, time):
        near = [
            (begin, end)
            for begin, end in spans
            if (group.end_ns is None or group.end_ns >= begin)
            and (group.begin_ns is None or group.begin_ns <= end)
        ]
        if not near:
            continue
        rows = trace.read_row_group(table, group, list(columns))
        times = rows.column(time)
        inside = pa.array(np.zeros(rows.num_rows, bool))
        for begin, end in near:
            within = pc.and_(pc.greater_equal(times, begin), pc.less_equal(times, end))
            inside = pc.or_(inside, within)
        found.append(plain.from_arrow(table, rows.filter(inside)))
    whole = pd.concat(found, ignore_index=True)
    return whole.sort_values(time, kind="stable", ignore_index=True)


def _p_lane(row: dict[str, int], span: tuple[int, int]) -> pd.DataFrame:
    begin, end = span
    block, release = row["block_ns"], row["release_ns"]
    went_on = row["run_ns"] if row["run_ns"] != UNKNOWN else row["acquirep_ns"]
    if release == UNKNOWN:
        kept = block + max(row["hold_ns"], 0)
        bounds = [("used", begin, block, row["tid"]), ("held", block, kept, row["tid"])]
        bounds.append(("used", kept, end if row["exit_ns"] != UNKNOWN else kept, row["tid"]))
    else:
        stop = went_on if went_on != UNKNOWN else end
        if row["pidle_ns"] != UNKNOWN:
            stop = row["pidle_ns"]
        bounds = [
            ("used", begin, min(block, release), row["tid"]),
            ("held", block, max(release, block), row["tid"]),
            ("moving", release, stop, row["taker_tid"]),
        ]
        if went_on != UNKNOWN:
            bounds.append(("used", went_on, end, row["runner_tid"]))
    name = "P" if row["p"] == UNKNOWN else f"P {row['p']}"
    return pd.DataFrame(
        {
            "lane": name,
            "state": [STATES.index(state) for state, *_ in bounds],
            "begin_ns": [first for _, first, _, _ in bounds],
            "end_ns": [last for _, _, last, _ in bounds],
            "cpu": UNKNOWN,
            "tid": [tid for *_, tid in bounds],
        }
    )


def _thread_lane(
    tid: int, span: tuple[int, int], switches: pd.DataFrame, wakeups: pd.DataFrame
) -> pd.DataFrame:
    """Spans of one thread from the switches and wake-ups that concern it."""
    begin, end = span
    here = switches[switches["ts_ns"].between(begin, end)]
    enters, leaves = here[here["next_tid"] == tid], here[here["prev_tid"] == tid]
    woken = wakeups[(wakeups["tid"] == tid) & wakeups["ts_ns"].between(begin, end)]
    preempted = leaves["prev_state"].to_numpy() == _PREEMPTED
    running, waiting, blocked = (STATES.index(s) for s in ("running", "waiting", "blocked"))
    edges = pd.concat(
        [
            pd.DataFrame({"begin_ns": woken["ts_ns"], "state": waiting, "cpu": UNKNOWN}),
            pd.DataFrame(
                {
                    "begin_ns": leaves["ts_ns"],
                    "state": np.where(preempted, waiting, blocked),
                    "cpu": UNKNOWN,
                }
            ),
            pd.DataFrame({"begin_ns": enters["ts_ns"], "state": running, "cpu": enters["cpu"]}),
        ]
    ).sort_values("begin_ns", kind="stable")
    # A wake-up of a thread that runs changes nothing.
    states: Ints = edges["state"].to_numpy(np.int64)
    idle_wake = (states == waiting) & (np.r_[UNKNOWN, states[:-1]] == running)
    idle_wake &= np.isin(edges["begin_ns"].to_numpy(), woken["ts_ns"].to_numpy())
    edges = edges[~idle_wake]
    if len(edges):
        # What it was in before the first edge follows from that edge; before it enters a CPU
        # it may have been blocked or waiting, so then nothing is shown.
        first = edges.iloc[0]
        before, cpu = blocked, UNKNOWN
        if first["begin_ns"] in leaves["ts_ns"].to_numpy():
            before = running
            cpu = int(leaves.loc[leaves["ts_ns"] == first["begin_ns"], "cpu"].iloc[0])
        starts = [] if first["state"] == running else [begin]
        head = pd.DataFrame({"begin_ns": starts, "state": before, "cpu": cpu}, dtype="int64")
        edges = pd.concat([head, edges], ignore_index=True)
    lane: pd.DataFrame = edges.assign(end_ns=edges["begin_ns"].shift(-1, fill_value=end))
    return lane
