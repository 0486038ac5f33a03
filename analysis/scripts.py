"""A captured run as scripts: what each goroutine did, as far as the trace tells.

A script is told apart from its run: CPU time and block times stay as they were captured, and who
waited for a P, or was woken when, is left to whoever plays the script. The rules:

- A goroutine's calls are its episodes. What its thread used of a CPU between two of them is the
  goroutine's CPU time; where the thread changed goroutines in between (``run``, ``acquirep``), it
  is counted from there on, and up to ``exit_slow`` or a handoff before.
- A call that was woken by a thread on which another goroutine of this process ran waits for that
  goroutine (*fire*, and *until*): under another policy the other may come later, or sooner. A call
  that was woken by anybody else lasts as long as it did.
- Time in which a goroutine neither ran nor was in a call, it was runnable and waited for a P,
  unless a P was idle meanwhile: then it waited for something else, and sleeps as long.

- Where the runtime does not tell whom a P runs (Go), what ran on it while the next caller was in
  its call before is work without a name: one goroutine for each P, which lets others run wherever
  the capture saw its P change hands.

What is not in it: calls that did not block (their time is CPU time), goroutines that change places
on a P without a system call, and calls whose goroutine or return the trace does not tell.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.asof import Ints
from analysis.timeline import rows_around
from tracer.schema import TABLES, UNKNOWN
from tracer.trace import Trace

__all__ = ["Goroutine", "Scripts", "Step", "scripts"]

_KIND = TABLES["runtime"].column("kind")
_BEGINS = (_KIND.code("run"), _KIND.code("acquirep"))
_ACQUIREP = _KIND.code("acquirep")
_NAMELESS = -2
"""From here downwards: goroutines without a name, one for each P."""
_ENDS = (_KIND.code("exit_slow"), _KIND.code("stopm"))


class Step(NamedTuple):
    """One thing that a goroutine does.

    ``cpu`` uses a CPU for ``ns``; ``sleep`` waits for ``ns`` without a thread; ``yield`` lets
    others run first; ``call`` is a system call at ``site`` that blocks for ``ns``, or until
    ``event``, and uses ``cpu_ns`` in the kernel; ``fire`` makes ``event`` happen. Without an event
    that is ``UNKNOWN``.
    """

    kind: str
    ns: int = 0
    site: str = ""
    event: int = UNKNOWN
    cpu_ns: int = 0


@dataclass
class Goroutine:
    """The script of one goroutine; ``start_ns`` counts from the begin of the span."""

    goid: int
    start_ns: int
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Scripts:
    """A span of a run.

    Args:
        goroutines: their scripts.
        begin_ns: begin of the span, CLOCK_MONOTONIC.
        end_ns: its end.
        calls: calls in the scripts.
        tied: how many of them wait for another goroutine.
        left_out: episodes of the span that are in no script.
    """

    goroutines: Sequence[Goroutine]
    begin_ns: int
    end_ns: int
    calls: int
    tied: int
    left_out: int


class _Rows(NamedTuple):
    """What a script says of each call, a list a column."""

    waited_ns: list[int]
    site: list[str]
    event: list[int]


@dataclass
class _Item:
    """A stretch of CPU time (``call`` is None) or a call, of one goroutine on one thread."""

    goid: int
    tid: int
    begin: int
    end: int
    call: int | None = None
    queued: bool = False
    """What follows is a wait for a P: the runtime said so."""
    fires: list[tuple[int, int]] = field(default_factory=list)
    """Moments, and the events that happened at them."""


def scripts(trace: Trace, episodes: pd.DataFrame) -> Scripts:
    """Turn a span of a run into scripts.

    Args:
        trace: the trace.
        episodes: those of its episodes that the span shall hold, in the order of ``block_ns``;
            only those of the process with the most of them are taken.

    Raises:
        PretakeError: the trace cannot be read.
    """
    calls = _calls(episodes)
    left_out = len(episodes) - len(calls)
    if calls.empty:
        return Scripts((), 0, 0, 0, 0, left_out)
    begin, end = int(calls["enter_ns"].min()), int(calls["exit_ns"].max())
    span = [(begin, end)]
    names = ("ts_ns", "goid", "tid", "p", "kind", "npidle")
    runtime = rows_around(trace, "runtime", names, span)
    clock = _CpuClock(trace, begin, end)
    lines = _thread_lines(calls, runtime, end)
    wakeups = rows_around(trace, "sched_wakeup", ("ts_ns", "tid", "waker_tid"), span)
    tied = _tie(wakeups, calls, lines)
    idle = _IdleClock(runtime)
    rows = _Rows(*(calls[name].tolist() for name in _Rows._fields))
    by_goroutine: dict[int, list[_Item]] = defaultdict(list)
    for line in lines.values():
        for item in line:
            by_goroutine[item.goid].append(item)
    made = [
        _script(goid, sorted(items, key=lambda i: (i.begin, i.end)), rows, clock, idle, begin)
        for goid, items in sorted(by_goroutine.items())
    ]
    return Scripts(made, begin, end, len(calls), tied, left_out)


def _calls(episodes: pd.DataFrame) -> pd.DataFrame:
    """The calls that can be played, as plain numbers, in order."""
    known = episodes[
        episodes[["goid", "exit_ns"]].notna().all(axis=1)
        # A raw wait for a futex is one inside the runtime (CPython's lock), no goroutine's call.
        & ~(episodes["p_use"].eq("raw") & episodes["syscall"].eq("futex"))
    ]
    if known.empty:
        return known
    pid = known["pid"].mode()
    known = known[known["pid"].eq(pid.iloc[0])] if len(pid) else known
    names = ("tid", "goid", "enter_ns", "block_ns", "wake_ns", "exit_ns", "blocks", "blocked_ns")
    rows = pd.DataFrame({n: known[n].to_numpy(np.int64, na_value=UNKNOWN) for n in names})
    rows["enter_ns"] = np.where(rows["enter_ns"] < 0, rows["block_ns"], rows["enter_ns"])
    handed = known["outcome"].eq("handed_off").to_numpy(bool)
    release = known["release_ns"].to_numpy(np.int64, na_value=UNKNOWN)
    # What a thread does between its own handoff and the call is the price of the handoff.
    rows["ready_ns"] = np.where(handed & (release > 0), release, rows["enter_ns"])
    rows["site"] = known["syscall"].fillna("unknown").astype(str).to_numpy()
    rows["waited_ns"] = np.where(
        rows["wake_ns"] > 0, rows["wake_ns"] - rows["block_ns"], rows["exit_ns"] - rows["block_ns"]
    )
    several = (rows["blocks"] > 1) & (rows["blocked_ns"] > 0)
    rows["waited_ns"] = np.where(several, rows["blocked_ns"], rows["waited_ns"])
    return rows.sort_values("enter_ns", kind="stable", ignore_index=True)


def _thread_lines(
    calls: pd.DataFrame, runtime: pd.DataFrame, end: int
) -> Mapping[int, list[_Item]]:
    """What each thread did, in order: stretches and calls of goroutines."""
    marks: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for code, rank in (*((c, 1) for c in _BEGINS), *((c, 0) for c in _ENDS)):
        rows = runtime[runtime["kind"] == code]
        for tid, ts, goid, p in rows[["tid", "ts_ns", "goid", "p"]].to_numpy().tolist():
            nameless = _NAMELESS - p if code == _ACQUIREP and p != UNKNOWN else UNKNOWN
            marks[tid].append((ts, rank, nameless if goid == UNKNOWN else goid))
    numbers = calls[["tid", "goid", "enter_ns", "ready_ns", "exit_ns"]].to_numpy().tolist()
    returned = calls.groupby("goid")["exit_ns"].shift(fill_value=UNKNOWN).tolist()
    for row, (tid, _, enter, _, _) in enumerate(numbers):
        marks[tid].append((enter, 2, row))
    lines: dict[int, list[_Item]] = {}
    for tid, found in marks.items():
        line: list[_Item] = []
        goid, since = UNKNOWN, UNKNOWN
        for ts, rank, value in sorted(found):
            if rank == 2:
                _, own, enter, ready, exit_ = numbers[value]
                if goid <= _NAMELESS and since != UNKNOWN:
                    # While the caller was in its call before, somebody else had this P.
                    cut = min(max(returned[value], since), ready)
                    if cut > since:
                        line.append(_Item(goid, tid, since, cut, queued=True))
                    goid, since = own, cut
                who = own if goid == UNKNOWN else goid
                if since != UNKNOWN and ready > since:
                    line.append(_Item(who, tid, since, ready))
                line.append(_Item(own, tid, enter, exit_, value))
                goid, since = own, exit_
            elif line and ts < line[-1].end:
                continue
            elif rank == 1:
                if since != UNKNOWN and goid != UNKNOWN and ts > since and value != UNKNOWN:
                    line.append(_Item(goid, tid, since, ts))
                # acquirep begins a stretch, and the run after it says whose it is.
                since = ts if since == UNKNOWN or goid not in (UNKNOWN, value) else since
                goid = value
            else:
                if since != UNKNOWN and goid != UNKNOWN:
                    line.append(_Item(goid, tid, since, max(ts, since), queued=True))
                goid, since = UNKNOWN, UNKNOWN
        if since != UNKNOWN and goid != UNKNOWN and end > since:
            line.append(_Item(goid, tid, since, end))
        lines[tid] = line
    return lines


def _tie(wakeups: pd.DataFrame, calls: pd.DataFrame, lines: Mapping[int, list[_Item]]) -> int:
    """Fill in ``event`` of the calls that another goroutine woke, and that one's ``fires``."""
    wakeups = wakeups.drop_duplicates(["tid", "ts_ns"])
    woken = calls[["tid", "wake_ns"]].merge(
        wakeups, how="left", left_on=["tid", "wake_ns"], right_on=["tid", "ts_ns"]
    )
    wakers = woken["waker_tid"].fillna(UNKNOWN).to_numpy(np.int64)
    events = np.full(len(calls), UNKNOWN, np.int64)
    begins = {tid: [item.begin for item in line] for tid, line in lines.items()}
    own, woke_ns = calls["goid"].to_numpy(), calls["wake_ns"].to_numpy(np.int64)
    # With several blocks, each had its own waker, and the trace tells only the first.
    single = calls["blocks"].to_numpy() <= 1
    for row in np.flatnonzero((wakers > 0) & single).tolist():
        line = lines.get(int(wakers[row]))
        at_ns = int(woke_ns[row])
        place = bisect_right(begins[int(wakers[row])], at_ns) - 1 if line else -1
        if line is None or place < 0:
            continue
        item = line[place]
        if item.goid != own[row] and item.call is None and at_ns <= item.end:
            item.fires.append((at_ns, row))
            events[row] = row
    calls["event"] = events
    return int((events != UNKNOWN).sum())


def _script(
    goid: int,
    items: Sequence[_Item],
    calls: _Rows,
    clock: _CpuClock,
    idle: _IdleClock,
    begin: int,
) -> Goroutine:
    made = Goroutine(goid, items[0].begin - begin)
    last = items[0].begin
    queued = False
    for item in items:
        if item.begin > last and not queued and idle.was_idle(last, item.begin):
            made.steps.append(Step("sleep", item.begin - last))
        if goid <= _NAMELESS and made.steps:
            made.steps.append(Step("yield"))
        if item.call is None:
            since = item.begin
            for at_ns, event in sorted(item.fires):
                _add_cpu(made, clock.used(item.tid, since, at_ns))
                made.steps.append(Step("fire", event=event))
                since = at_ns
            _add_cpu(made, clock.used(item.tid, since, item.end))
        else:
            row = item.call
            made.steps.append(
                Step(
                    "call",
                    max(calls.waited_ns[row], 0),
                    calls.site[row],
                    calls.event[row],
                    clock.used(item.tid, item.begin, item.end),
                )
            )
        last, queued = max(last, item.end), item.queued
    return made


def _add_cpu(made: Goroutine, ns: int) -> None:
    if ns > 0:
        made.steps.append(Step("cpu", ns))


class _CpuClock:
    """How long each thread had a CPU, from the switches of a span."""

    def __init__(self, trace: Trace, begin: int, end: int) -> None:
        names = ("ts_ns", "prev_tid", "next_tid")
        rows = rows_around(trace, "sched_switch", names, [(begin, end)])
        times = rows["ts_ns"].to_numpy()
        edges = pd.DataFrame(
            {
                "tid": np.r_[rows["prev_tid"].to_numpy(), rows["next_tid"].to_numpy()],
                "ts_ns": np.r_[times, times],
                "on": np.repeat((0, 1), len(times)),
            }
        )
        edges = edges[edges["tid"] > 0].sort_values(["tid", "ts_ns", "on"], kind="stable")
        self._lines: dict[int, tuple[Ints, Ints, Ints]] = {}
        for tid, own in edges.groupby("tid"):
            at, on = own["ts_ns"].to_numpy(), own["on"].to_numpy()
            # Before its first switch a thread was what that switch ended.
            at, on = np.r_[begin, at], np.r_[1 - on[0], on]
            sums = np.r_[0, np.cumsum(np.diff(at) * on[:-1])]
            self._lines[int(str(tid))] = (at, on, sums)

    def used(self, tid: int, begin: int, end: int) -> int:
        """CPU time of a thread between two moments; all of it where it never switched."""
        line = self._lines.get(tid)
        if line is None or end <= begin:
            return max(end - begin, 0)
        return self._until(line, end) - self._until(line, begin)

    @staticmethod
    def _until(line: tuple[Ints, Ints, Ints], at_ns: int) -> int:
        at, on, sums = line
        place = int(np.searchsorted(at, at_ns, "right")) - 1
        return int(sums[place] + on[place] * (at_ns - at[place])) if place >= 0 else 0


class _IdleClock:
    """Whether a P was idle between two moments, by what the runtime's rows told."""

    def __init__(self, runtime: pd.DataFrame) -> None:
        told = runtime[runtime["npidle"] != UNKNOWN]
        self._at = told["ts_ns"].to_numpy()
        self._sums = np.r_[0, np.cumsum(told["npidle"].to_numpy() > 0)]

    def was_idle(self, begin: int, end: int) -> bool:
        """Whether any row in the span, or the last before it, told of an idle P."""
        first = max(int(np.searchsorted(self._at, begin, "right")) - 1, 0)
        last = int(np.searchsorted(self._at, end, "left"))
        return bool(self._sums[last] > self._sums[min(first, last)])
