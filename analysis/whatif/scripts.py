"""A captured run as scripts: what each goroutine did, as far as the trace tells.

Example: a goroutine computed for 50 µs, then read for 3 ms until another goroutine wrote. Its
script keeps the CPU time, and says that the read ends with that write. It does not keep when the
goroutine got a P; the replay decides that. The rules:

- The calls of a goroutine are its episodes. The CPU time of its thread between two of them is
  the goroutine's CPU time. If the thread changed goroutines in between (``run``, ``acquirep``),
  CPU time counts from there on, and up to an ``exit_slow`` or a handoff before.
- If a call was woken by a thread on which another goroutine of this process ran, it waits for
  that goroutine (*until* its *fire*), which may come sooner or later under another policy. Any
  other call lasts as long as it did.
- If a P begins with one goroutine (``run``), and the next call on its thread is another's, they
  changed places in between at an unknown time. The caller is given as much CPU time as it uses
  before its other calls, but no more than since its last call; the first goroutine has the rest.
- In the time in which a goroutine neither ran nor was in a call, it waited for a P. The
  exception is when a P was idle meanwhile: then it waited for something else, and the script
  sleeps as long.
- If the runtime does not tell which goroutine a P runs (Go), what ran on it while the next
  caller was still in its last call is work of an unknown goroutine. There is one such goroutine
  for each P. It lets others run wherever the capture saw its P change its M.
- A call that did not block is CPU time. If the capture has such calls (``--detail full``), each
  stretch of CPU time tells how many it has, so that a dearer system call can be charged.

Not in a script: goroutines that change places on a P without a system call, and calls whose
goroutine or return is unknown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.ptime.timeline import rows_around
from analysis.whatif.clocks import CpuClock, IdleClock, ShortCalls
from analysis.whatif.lines import NAMELESS, Item, thread_lines
from analysis.windowed import plain
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["Goroutine", "Scripts", "Step", "scripts"]


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
    clock = CpuClock(trace, begin, end)
    short = ShortCalls(trace, begin, end)
    lines = thread_lines(calls, runtime, end, clock)
    wakeups = rows_around(trace, "sched_wakeup", ("ts_ns", "tid", "waker_tid"), span)
    tied = _tie(wakeups, calls, lines)
    idle = IdleClock(runtime)
    rows = _Rows(*(calls[name].tolist() for name in _Rows._fields))
    by_goroutine: dict[int, list[Item]] = defaultdict(list)
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
    rows = pd.DataFrame({n: plain.numbers(known[n]) for n in names})
    rows["enter_ns"] = np.where(rows["enter_ns"] < 0, rows["block_ns"], rows["enter_ns"])
    handed = known["outcome"].eq("handed_off").to_numpy(bool)
    release = plain.numbers(known["release_ns"])
    # What a thread does between its own handoff and the call is the price of the handoff.
    rows["ready_ns"] = np.where(handed & (release > 0), release, rows["enter_ns"])
    rows["site"] = known["syscall"].fillna("unknown").astype(str).to_numpy()
    rows["waited_ns"] = np.where(
        rows["wake_ns"] > 0, rows["wake_ns"] - rows["block_ns"], rows["exit_ns"] - rows["block_ns"]
    )
    several = (rows["blocks"] > 1) & (rows["blocked_ns"] > 0)
    rows["waited_ns"] = np.where(several, rows["blocked_ns"], rows["waited_ns"])
    return rows.sort_values("enter_ns", kind="stable", ignore_index=True)


def _tie(wakeups: pd.DataFrame, calls: pd.DataFrame, lines: Mapping[int, list[Item]]) -> int:
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
    items: Sequence[Item],
    calls: _Rows,
    clock: CpuClock,
    short: ShortCalls,
    idle: IdleClock,
    begin: int,
    probe_ns: int,
) -> Goroutine:
    made = Goroutine(goid, items[0].begin - begin)
    last = items[0].begin
    queued = False
    previous: Item | None = None
    for item in items:
        begun = item.ready or item.begin
        if begun > last and not queued and idle.was_idle(last, begun):
            made.steps.append(Step("sleep", begun - last))
        if goid <= NAMELESS and made.steps:
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


def _continues(call: Item | None, item: Item) -> bool:
    """Whether a stretch begins where a call on the same thread returned."""
    return (
        call is not None
        and call.call is not None
        and (call.tid, call.end) == (item.tid, item.begin)
    )


def _add_cpu(made: Goroutine, ns: int, calls: int) -> None:
    if ns > 0 or calls:
        made.steps.append(Step("cpu", max(ns, 0), calls=calls))
