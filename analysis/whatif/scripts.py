"""A captured run as scripts: what each goroutine did, as far as the trace tells.

A script is told apart from its run: CPU time and block times stay as they were captured, and who
waited for a P, or was woken when, is left to whoever plays the script. The rules:

- A goroutine's calls are its episodes. What its thread used of a CPU between two of them is the
  goroutine's CPU time; where the thread changed goroutines in between (``run``, ``acquirep``), it
  is counted from there on, and up to ``exit_slow`` or a handoff before.
- A call that was woken by a thread on which another goroutine of this process ran waits for that
  goroutine (*fire*, and *until*): under another policy the other may come later, or sooner. A call
  that was woken by anybody else lasts as long as it did.
- Where a P begins with one goroutine (``run``) and the next call on its thread is another's, they
  changed places in between, which nothing tells. The caller's part is as much CPU time as it uses
  before its calls elsewhere, no more than since its call before; the first one lets it run then.
- Time in which a goroutine neither ran nor was in a call, it was runnable and waited for a P,
  unless a P was idle meanwhile: then it waited for something else, and sleeps as long.

- Where the runtime does not tell whom a P runs (Go), what ran on it while the next caller was in
  its call before is work without a name: one goroutine for each P, which lets others run wherever
  the capture saw its P change hands.

- A call that did not block is CPU time. Where the capture has such calls (``--detail full``), each
  stretch of CPU time tells how many of them it holds: they are what a dearer system call reaches.

What is not in it: goroutines that change places on a P without a system call, and calls whose
goroutine or return the trace does not tell.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.ptime.timeline import rows_around
from analysis.windowed.asof import Ints
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["Goroutine", "Scripts", "Step", "scripts"]

_KIND = TABLES["runtime"].column("kind")
_RUN = _KIND.code("run")
_FUTEX = 202
_ACQUIREP = _KIND.code("acquirep")
_NAMELESS = -2
"""From here downwards: goroutines without a name, one for each P."""
_EXIT_SLOW = _KIND.code("exit_slow")
_ENDS = (_EXIT_SLOW, _KIND.code("stopm"))


class Step(NamedTuple):
    """One thing that a goroutine does.

    ``cpu`` uses a CPU for ``ns``, in which it makes ``calls`` system calls that do not block;
    ``sleep`` waits for ``ns`` without a thread; ``yield`` lets others run first; ``call`` is a
    system call at ``site`` that blocks for ``ns``, or until ``event``, and uses ``cpu_ns`` before
    it blocks and ``after_ns`` after it, up to where the runtime is told; ``fire`` makes ``event``
    happen. Without an event that is ``UNKNOWN``.
    """

    kind: str
    ns: int = 0
    site: str = ""
    event: int = UNKNOWN
    cpu_ns: int = 0
    after_ns: int = 0
    calls: int = 0


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
        unblocked: calls that did not block, within the scripts' CPU time; None if the capture
            has none of them.
        left_out: episodes of the span that are in no script.
    """

    goroutines: Sequence[Goroutine]
    begin_ns: int
    end_ns: int
    calls: int
    tied: int
    left_out: int
    unblocked: int | None = None


class _Rows(NamedTuple):
    """What a script says of each call, a list a column."""

    block_ns: list[int]
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
    ready: int = 0
    """Of a call: when the goroutine was done with all but the call's handoff."""
    queued: bool = False
    """What follows is a wait for a P: the runtime said so."""
    probed: bool = False
    """It begins in a probe: at ``run``."""
    lets_run: bool = False
    """Another goroutine has the P after it, and it waits in a queue."""
    slow: bool = False
    """It ends where the runtime finds that P is gone: at ``exit_slow``."""
    fires: list[tuple[int, int]] = field(default_factory=list)
    """Moments, and the events that happened at them."""


def scripts(trace: Trace, episodes: pd.DataFrame, probe_ns: int = 0) -> Scripts:
    """Turn a span of a run into scripts.

    Args:
        trace: the trace.
        episodes: those of its episodes that the span shall hold, in the order of ``block_ns``;
            only those of the process with the most of them are taken.
        probe_ns: what a probe on a transition took; it is no CPU time of the goroutine's.

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
    short = _ShortCalls(trace, begin, end)
    lines = _thread_lines(calls, runtime, end, clock)
    wakeups = rows_around(trace, "sched_wakeup", ("ts_ns", "tid", "waker_tid"), span)
    tied = _tie(wakeups, calls, lines)
    idle = _IdleClock(runtime)
    rows = _Rows(*(calls[name].tolist() for name in _Rows._fields))
    by_goroutine: dict[int, list[_Item]] = defaultdict(list)
    for line in lines.values():
        for item in line:
            by_goroutine[item.goid].append(item)
    made = [
        _script(
            goid,
            sorted(items, key=lambda i: (i.begin, i.end)),
            rows,
            clock,
            short,
            idle,
            begin,
            probe_ns,
        )
        for goid, items in sorted(by_goroutine.items())
    ]
    unblocked = sum(step.calls for goroutine in made for step in goroutine.steps)
    told = unblocked if short.told else None
    return Scripts(made, begin, end, len(calls), tied, left_out, told)


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
    calls: pd.DataFrame, runtime: pd.DataFrame, end: int, clock: _CpuClock
) -> Mapping[int, list[_Item]]:
    """What each thread did, in order: stretches and calls of goroutines."""
    lines = _raw_lines(calls, runtime, end)
    alone: dict[int, list[int]] = defaultdict(list)
    for line in lines.values():
        for item, call in pairwise(line):
            if call.call is not None and item.call is None and item.goid == call.goid:
                alone[call.goid].append(clock.used(item.tid, item.begin, item.end))
    usual = {goid: int(median(used)) for goid, used in alone.items()}
    anybody = int(median(usual.values())) if usual else 0
    returned = calls.groupby("goid")["exit_ns"].shift(fill_value=UNKNOWN).tolist()
    return {
        tid: _with_changes(line, returned, clock, usual, anybody) for tid, line in lines.items()
    }


def _with_changes(
    line: list[_Item],
    returned: Sequence[int],
    clock: _CpuClock,
    usual: Mapping[int, int],
    anybody: int,
) -> list[_Item]:
    """A line with the stretches cut in which another goroutine came to its call."""
    made: list[_Item] = []
    for item, call in zip(line, [*line[1:], None], strict=True):
        made.append(item)
        if call is None or call.call is None or item.call is not None or not item.probed:
            continue
        if item.goid != call.goid:
            own = clock.before(item.tid, item.end, usual.get(call.goid, anybody))
            cut = min(max(own, returned[call.call], item.begin), item.end)
            made[-1] = replace(item, end=cut, queued=True, lets_run=True)
            made.append(_Item(call.goid, item.tid, cut, item.end))
    return made


def _raw_lines(calls: pd.DataFrame, runtime: pd.DataFrame, end: int) -> dict[int, list[_Item]]:
    """The same, with all of a stretch for the goroutine that began it."""
    marks: dict[int, list[tuple[int, int, int, bool]]] = defaultdict(list)
    # Where the runtime tells whom a P runs, that is where the stretch begins.
    tells_run = bool((runtime["kind"] == _RUN).any())
    begins = (_RUN,) if tells_run else (_RUN, _ACQUIREP)
    for code, rank in (*((c, 1) for c in begins), *((c, 0) for c in _ENDS)):
        rows = runtime[runtime["kind"] == code]
        for tid, ts, goid, p in rows[["tid", "ts_ns", "goid", "p"]].to_numpy().tolist():
            nameless = _NAMELESS - p if code == _ACQUIREP and p != UNKNOWN else UNKNOWN
            who = nameless if goid == UNKNOWN else goid
            marks[tid].append((ts, rank, who, code == _EXIT_SLOW))
    numbers = calls[["tid", "goid", "enter_ns", "ready_ns", "exit_ns"]].to_numpy().tolist()
    returned = calls.groupby("goid")["exit_ns"].shift(fill_value=UNKNOWN).tolist()
    for row, (tid, _, enter, _, _) in enumerate(numbers):
        marks[tid].append((enter, 2, row, False))
    lines: dict[int, list[_Item]] = {}
    for tid, found in marks.items():
        line: list[_Item] = []
        goid, since, probed = UNKNOWN, UNKNOWN, False
        for ts, rank, value, slow in sorted(found):
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
                    line.append(_Item(who, tid, since, ready, probed=probed))
                line.append(_Item(own, tid, enter, exit_, value, ready=min(ready, enter)))
                goid, since, probed = own, exit_, False
            elif line and ts < line[-1].end:
                continue
            elif rank == 1:
                if since != UNKNOWN and goid != UNKNOWN and ts > since and value != UNKNOWN:
                    # Back from a call it took an idle P: up to here it was not on that yet.
                    back = tells_run and goid == value
                    line.append(_Item(goid, tid, since, ts, probed=tells_run, slow=back))
                    since, probed = ts, tells_run
                elif since == UNKNOWN or goid not in (UNKNOWN, value):
                    since, probed = ts, tells_run
                goid = value
            else:
                if since != UNKNOWN and goid != UNKNOWN:
                    stop = max(ts, since)
                    line.append(
                        _Item(goid, tid, since, stop, queued=True, probed=probed, slow=slow)
                    )
                goid, since, probed = UNKNOWN, UNKNOWN, False
        if since != UNKNOWN and goid != UNKNOWN and end > since:
            line.append(_Item(goid, tid, since, end, probed=probed))
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
    short: _ShortCalls,
    idle: _IdleClock,
    begin: int,
    probe_ns: int,
) -> Goroutine:
    made = Goroutine(goid, items[0].begin - begin)
    last = items[0].begin
    queued = False
    previous: _Item | None = None
    for item in items:
        begun = item.ready or item.begin
        if begun > last and not queued and idle.was_idle(last, begun):
            made.steps.append(Step("sleep", begun - last))
        if goid <= _NAMELESS and made.steps:
            made.steps.append(Step("yield"))
        if item.call is None:
            if item.slow and not item.fires and _continues(previous, item):
                # From the return to where the runtime finds that P is gone.
                call = made.steps[-1]
                used = clock.used(item.tid, item.begin, item.end)
                used = max(used - (probe_ns if item.probed else 0), 0)
                made.steps[-1] = call._replace(after_ns=call.after_ns + used)
            else:
                since, less = item.begin, probe_ns if item.probed else 0
                for at_ns, event in sorted(item.fires):
                    used = clock.used(item.tid, since, at_ns)
                    _add_cpu(made, used - less, short.made(item.tid, since, at_ns))
                    made.steps.append(Step("fire", event=event))
                    since, less = at_ns, max(less - used, 0)
                used = clock.used(item.tid, since, item.end)
                _add_cpu(made, used - less, short.made(item.tid, since, item.end))
                if item.lets_run:
                    made.steps.append(Step("yield"))
        else:
            row = item.call
            block_ns = min(max(calls.block_ns[row], item.begin), item.end)
            made.steps.append(
                Step(
                    "call",
                    max(calls.waited_ns[row], 0),
                    calls.site[row],
                    calls.event[row],
                    clock.used(item.tid, item.begin, block_ns),
                    clock.used(item.tid, block_ns, item.end),
                )
            )
        last, queued, previous = max(last, item.end), item.queued, item
    return made


def _continues(call: _Item | None, item: _Item) -> bool:
    """Whether a stretch begins where a call on the same thread returned."""
    return (
        call is not None
        and call.call is not None
        and (call.tid, call.end) == (item.tid, item.begin)
    )


def _add_cpu(made: Goroutine, ns: int, calls: int) -> None:
    if ns > 0 or calls:
        made.steps.append(Step("cpu", max(ns, 0), calls=calls))


class _ShortCalls:
    """How many calls that did not block each thread made, where a capture tells them."""

    def __init__(self, trace: Trace, begin: int, end: int) -> None:
        names = ("exit_ns", "tid", "nr", "blocks")
        rows = rows_around(trace, "syscall", names, [(begin, end)])
        rows = rows[rows["blocks"] == 0]
        self.told = bool(len(rows))
        # A futex is the runtime's own: a replay's runtime makes its own, too.
        rows = rows[rows["nr"] != _FUTEX].sort_values("exit_ns", kind="stable")
        self._lines = {
            int(str(tid)): own.to_numpy() for tid, own in rows.groupby("tid")["exit_ns"]
        }

    def made(self, tid: int, begin: int, end: int) -> int:
        """Those of a thread that returned in [begin, end)."""
        line = self._lines.get(tid)
        if line is None:
            return 0
        first, last = np.searchsorted(line, (begin, end), "left")
        return int(max(last - first, 0))


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

    def before(self, tid: int, end: int, ns: int) -> int:
        """The moment from which a thread used ``ns`` of a CPU up to ``end``."""
        line = self._lines.get(tid)
        if line is None:
            return end - ns
        at, on, sums = line
        wanted = self._until(line, end) - ns
        place = max(int(np.searchsorted(sums, wanted, "right")) - 1, 0)
        return int(at[place] + (wanted - sums[place]) * on[place])

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
