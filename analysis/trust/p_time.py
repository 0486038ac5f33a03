"""The time of each P against a Go program's own execution trace.

Go's own trace has events for when a P gets an M and loses it (ProcStart, ProcStop, ProcSteal),
when its goroutine is in a system call, and when the world is stopped. It has nothing of CPUs. So
the states of a budget are added up to those that Go distinguishes:

=========  =====================================================================================
running    running, no_cpu, fault, stopped outside of a call, and waits of the runtime's own
syscall    from the entry of a call that blocked to its return, as long as its M has P
idle       idle and transit: no M has it
stw        stw: no M has it, and the world is stopped
=========  =====================================================================================

``with_m`` is the sum of the first two. Go also counts calls that do not block, and the time for
which their thread waits for a CPU; a capture does not have these calls. So on a busy machine Go
has more ``syscall`` and less ``running``, and only the sum of the two can be compared.

Two more things are known to one side only:

- An M that gets a P writes ProcStart once it runs. If its thread loses its CPU before that, P is
  idle in Go's trace, and has a thread without a CPU in the capture. That time (``untold_ns``) may
  be either, so only a difference beyond it counts.
- In Go's trace the M that stops the world keeps its own P. In the budget that P is ``stw``, like
  all others. Here it is counted as Go does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from analysis.ptime.budget import Pass, run_pass
from analysis.ptime.engine.state import STATES
from analysis.windowed.columns import LAST_NS, capture_span, read
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["PTime", "compare_p_time", "go_p_time"]

_EVENT = re.compile(
    r"^M=(-?\d+) P=(-?\d+) G=-?\d+ "
    r"(?:StateTransition Time=(\d+) (ProcID|GoID)=(\d+) (\w+)->(\w+)"
    r"|(RangeBegin|RangeEnd) Time=(\d+) Name=\"stop-the-world)",
    re.MULTILINE,
)
_M = re.compile(r"^M=(\d+) ", re.MULTILINE)
_TOLD_WITHIN_NS = 100_000
"""CPU time after which an M has surely told Go of the P that it got: some microseconds of code."""
_RUNNING, _NO_CPU, _STW = (STATES.index(state) for state in ("running", "no_cpu", "stw"))
_AS_GO = {
    "running": "running",
    "no_cpu": "running",
    "fault": "running",
    "stopped": "running",
    "syscall": "running",
    "transit": "idle",
    "idle": "idle",
    "stw": "stw",
    "unknown": "unknown",
}

Ints = npt.NDArray[np.int64]
Sums = dict[int, dict[str, int]]


class PTime(TypedDict):
    """One P's time in one state, in ns, by the trace and by Go itself."""

    p: int
    state: str
    trace_ns: int
    go_ns: int
    untold_ns: int
    apart_percent: float


class _Ps:
    """Follows Ps through an execution trace, and adds up what is between two moments."""

    def __init__(self, least_ns: int, most_ns: int) -> None:
        self.least_ns, self.most_ns = least_ns, most_ns
        self.sums: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.has_m: dict[int, bool] = {}
        self.call: dict[int, str | None] = {}
        self.since_ns: dict[int, int] = {}
        self.stopped = False

    def settle(self, p: int, ns: int) -> None:
        if self.has_m.get(p):
            state = "syscall" if self.call.get(p) else "running"
        else:
            state = "stw" if self.stopped else "idle"
        if p in self.since_ns:
            since_ns = max(self.since_ns[p], self.least_ns)
            self.sums[p][state] += max(min(ns, self.most_ns) - since_ns, 0)
        self.since_ns[p] = ns

    def proc(self, ns: int, p: int, after: str) -> None:
        self.settle(p, ns)
        self.has_m[p] = after == "Running"
        self.call[p] = None

    def goroutine(self, ns: int, p: int, goid: str, before: str, after: str) -> None:
        if after == "Syscall" and p in self.has_m:
            self.settle(p, ns)
            self.call[p] = goid
        elif before == "Syscall":
            for other, in_call in self.call.items():
                if in_call == goid:
                    self.settle(other, ns)
                    self.call[other] = None

    def world(self, ns: int, stopped: bool) -> None:
        for p in self.has_m:
            self.settle(p, ns)
        self.stopped = stopped


def go_p_time(parsed: str, least_ns: int = 0, most_ns: int = LAST_NS) -> tuple[Sums, int, int]:
    """The time of each P in each state, and the first and the last moment, of an execution trace.

    Args:
        parsed: from :func:`analysis.trust.go_trace.parsed_text`.
        least_ns, most_ns: what is before and after does not count.
    """
    ps = _Ps(least_ns, most_ns)
    begin_ns = end_ns = 0
    for found in _EVENT.finditer(parsed):
        _, p, at, what, number, before, after, edge, edge_at = found.groups()
        end_ns = int(at or edge_at)
        begin_ns = begin_ns or end_ns
        if edge:
            ps.world(end_ns, edge == "RangeBegin")
        elif what == "ProcID":
            ps.proc(end_ns, int(number), after)
        else:
            ps.goroutine(end_ns, int(p), number, before, after)
    for number in list(ps.has_m):
        ps.settle(number, end_ns)
    sums = {p: dict(sums) for p, sums in ps.sums.items()}
    return sums, max(begin_ns, least_ns), min(end_ns, most_ns)


def compare_p_time(trace: Trace, parsed: str, ahead_ns: int = 0) -> list[PTime]:
    """Each P's time in each of Go's states, by the trace and by the program's own.

    Args:
        trace: of one Go program.
        parsed: from :func:`analysis.trust.go_trace.parsed_text`.
        ahead_ns: how far the program's clock is ahead of the trace's (a time namespace).

    Returns:
        A row for each P and state, of the time that both tell of: the window of a flight
        recorder may begin before the trace. ``apart_percent`` is of that time.

    Raises:
        PretakeError: the trace cannot be read.
    """
    least_ns, most_ns = capture_span(trace)
    told, begin_ns, end_ns = go_p_time(parsed, least_ns + ahead_ns, most_ns + ahead_ns)
    found = run_pass(trace, spans=True)
    ms = {int(tid) for tid in set(_M.findall(parsed))}
    pids = {found.setting.threads[tid] for tid in ms if tid in found.setting.threads}
    ours = _as_go(trace, found, pids, begin_ns - ahead_ns, end_ns - ahead_ns)
    whole_ns = max(end_ns - begin_ns, 1)
    rows: list[PTime] = []
    for p in sorted(told):
        for sums in (ours.setdefault(p, {}), told[p]):
            sums["with_m"] = sums.get("running", 0) + sums.get("syscall", 0)
        untold_ns = ours[p].get("untold", 0)
        for state in ("with_m", "running", "syscall", "idle", "stw"):
            ns, go_ns = ours[p].get(state, 0), told[p].get(state, 0)
            either_ns = untold_ns if state in ("with_m", "running", "idle") else 0
            apart_ns = max(ns - go_ns, go_ns - ns - either_ns, 0)
            rows.append(
                {
                    "p": p,
                    "state": state,
                    "trace_ns": ns,
                    "go_ns": go_ns,
                    "untold_ns": either_ns,
                    "apart_percent": 100 * apart_ns / whole_ns,
                }
            )
    return rows


def _as_go(trace: Trace, found: Pass, pids: set[int], begin_ns: int, end_ns: int) -> Sums:
    own = np.isin(found.spans["pid"], sorted(pids))
    spans = {name: values[own] for name, values in found.spans.items()}
    order = np.lexsort((spans["begin_ns"], spans["p"]))
    spans = {name: values[order] for name, values in spans.items()}
    untold = _untold(spans)
    spans["state"] = np.where(_stoppers(trace, spans), _RUNNING, spans["state"])
    begins = np.clip(spans["begin_ns"], begin_ns, end_ns)
    ends = np.clip(spans["end_ns"], begin_ns, end_ns)
    in_calls = np.zeros(len(begins), np.int64)
    for tid, (entered, returned) in _calls(trace).items():
        at = np.flatnonzero(spans["tid"] == tid)
        in_calls[at] = _before(ends[at], entered, returned) - _before(
            begins[at], entered, returned
        )
    sums: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for code, state in enumerate(STATES):
        for p in np.unique(spans["p"]).tolist():
            at = np.flatnonzero((spans["p"] == p) & (spans["state"] == code) & ~untold)
            whole = int((ends[at] - begins[at]).sum())
            in_call = int(in_calls[at].sum()) if _AS_GO[state] == "running" else 0
            sums[p][_AS_GO[state]] += whole - in_call
            sums[p]["syscall"] += in_call
    for p in np.unique(spans["p"]).tolist():
        at = np.flatnonzero((spans["p"] == p) & untold)
        sums[p]["untold"] = int((ends[at] - begins[at]).sum())
    return {p: dict(its) for p, its in sums.items()}


def _untold(spans: dict[str, Ints]) -> npt.NDArray[np.bool_]:
    """Spans without a CPU of a thread that got P and has hardly run since; by P and time."""
    with_m = np.isin(
        spans["state"], [STATES.index(s) for s, go in _AS_GO.items() if go == "running"]
    )
    same = np.r_[False, (np.diff(spans["p"]) == 0) & (np.diff(spans["tid"]) == 0)]
    goes_on = same & with_m & np.r_[False, with_m[:-1]]
    tenure = np.cumsum(~goes_on)
    ran = np.where(spans["state"] == _RUNNING, spans["end_ns"] - spans["begin_ns"], 0)
    before = np.cumsum(ran) - ran
    first = np.flatnonzero(~goes_on)
    since = before - before[first][tenure - 1] if len(first) else before
    return np.asarray((spans["state"] == _NO_CPU) & (since <= _TOLD_WITHIN_NS), bool)


def _stoppers(trace: Trace, spans: dict[str, Ints]) -> npt.NDArray[np.bool_]:
    """Spans of a stopped world in which P is that of who stops it; by P and time."""
    rows = read(trace, "runtime", ["ts_ns", "tid", "kind"])
    starts = rows["kind"] == TABLES["runtime"].column("kind").code("stw_start")
    stopped = (spans["state"] == _STW) & np.r_[False, np.diff(spans["p"]) == 0]
    found = np.zeros(len(stopped), bool)
    for at in np.flatnonzero(stopped).tolist():
        asked = starts & (rows["tid"] == spans["tid"][at - 1])
        asked &= (rows["ts_ns"] >= spans["begin_ns"][at - 1]) & (
            rows["ts_ns"] <= spans["end_ns"][at]
        )
        found[at] = bool(asked.any())
    return found


def _calls(trace: Trace) -> dict[int, tuple[Ints, Ints]]:
    """When each thread's calls that blocked, and that Go was told of, began and ended."""
    blocks = read(trace, "block", ["ts_ns", "enter_ns", "tid", "p_use"])
    exits = read(trace, "syscall", ["exit_ns", "tid"])
    of_go = blocks["p_use"] != TABLES["block"].column("p_use").code("raw")
    calls = {}
    for tid in np.unique(blocks["tid"][of_go]).tolist():
        at = np.flatnonzero(of_go & (blocks["tid"] == tid))
        times, entered = blocks["ts_ns"][at], blocks["enter_ns"][at]
        entered = np.where(entered == UNKNOWN, times, entered)
        returns = np.sort(exits["exit_ns"][exits["tid"] == tid])
        found = np.searchsorted(returns, times)
        inside = found < len(returns)
        # A call that blocks twice has one end.
        ends, first = np.unique(returns[found[inside]], return_index=True)
        calls[tid] = (entered[inside][first], ends)
    return calls


def _before(times: Ints, entered: Ints, returned: Ints) -> Ints:
    """How long the calls, of which none overlaps another, lasted up to each moment."""
    lengths = np.concatenate([[0], np.cumsum(returned - entered)])
    at = np.searchsorted(entered, times, "right")
    cut = np.maximum(returned[at - 1] - times, 0) if len(returned) else 0
    return np.asarray(lengths[at] - np.where(at > 0, cut, 0), np.int64)
