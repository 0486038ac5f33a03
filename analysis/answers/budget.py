"""Where every P-second of each process went, and whose work waited meanwhile.

The pass (:mod:`analysis.ptime.budget`) computes all figures. This file gives them names and adds
them up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from analysis.answers.pressure import CAUSES, Pressure, pressure_of
from analysis.answers.where import NOWHERE, Site, functions_of, sites_of
from analysis.names import syscall_names
from analysis.ptime.budget import Pass, PassRunner, ProcessBudget, run_pass
from analysis.ptime.engine.state import STATES
from analysis.ptime.packed import Packed
from analysis.ptime.setting import PassSetting, bin_length, pass_setting
from analysis.ptime.together import EpisodesAlong
from analysis.stats.quantiles import quantiles
from analysis.windowed.columns import ColumnWindow, read
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = [
    "LOST_STATES",
    "STATE_MEANINGS",
    "Budget",
    "Process",
    "budget",
    "budget_of",
    "budget_over_time",
]

STATE_MEANINGS = {
    "running": "its M is on a CPU",
    "syscall": "its M is blocked in a system call: the hold",
    "fault": "its M is blocked in a page fault",
    "no_cpu": "its M could run, but has no CPU",
    "stopped": "its M is stopped: SIGSTOP, a debugger, or a frozen cgroup",
    "transit": "it was released, and runs no goroutine yet",
    "stw": "it stands still for the garbage collector, or another stop-the-world",
    "idle": "it is on the idle list",
    "unknown": "records were lost, or the process was not in reach",
}
"""What a P does in each state (docs/design.md)."""

LOST_STATES = CAUSES
"""What a P that is lost can be in: every state but running, idle and unknown."""

_BIN_NS = 1_000_000_000
_MOST_BINS = 100_000
_SITES = 50
_STOPS = 20


class Range(TypedDict):
    """The least and the most that it can have been, in ns."""

    least: int
    most: int


class Wait(TypedDict):
    """Goroutine wait in ns; of ``unknown`` ns it is not known how many waited."""

    least: int
    most: int
    unknown: int


class Spread(TypedDict):
    """Quantiles in ns; None where there is no value."""

    p50: int | None
    p99: int | None
    max: int | None


class Latency(TypedDict):
    """The same, with how many there were, and how many of them nobody knows."""

    p50: int | None
    p99: int | None
    max: int | None
    count: int
    unknown: int


class Waited(TypedDict):
    """What stops waited for, summed: in which function, or which system call, in what state."""

    function: str | None
    syscall: str | None
    state: str
    ns: int


class Stops(TypedDict):
    """Stop-the-worlds: how long the world took to stand still, and whom it waited for.

    Keys:
        count: how many were seen; every: whether that is all of them. Without a uprobe in it Go's
            runtime is looked at where a thread leaves a CPU or comes to one: a stop between two
            looks is not seen.
        unknown: how many of them have no known length.
    """

    count: int
    every: bool
    unknown: int
    stopping_ns: Spread
    waited_for: list[Waited]


class Taken(TypedDict):
    """How many Ps were taken from a thread in a call, by what that thread did."""

    blocked: int
    on_cpu: int
    preempted: int
    unknown: int


class OfWhich(TypedDict):
    """Parts of states: throttled of no_cpu, None where no cgroup was asked; idle_beside_work of
    idle."""

    throttled: int | None
    idle_beside_work: int


class Holds(TypedDict):
    """Calls and faults in which a thread held its P blocked.

    Keys:
        count: how many; unknown: those of which the end is not known.
        blocked_ns: the threads were blocked; monitor_no_cpu_ns: of it the monitor, which would
            have taken P, wanted a CPU and had none.
        awake_ns: they were awake again, and had no CPU.
    """

    count: int
    unknown: int
    blocked_ns: int
    monitor_no_cpu_ns: int
    awake_ns: int


class LostAt(TypedDict):
    """Lost P time of one call site, system call and state; ``raw`` is a call that the runtime was
    not told of, so that nobody takes P from it, ``runtime_wait`` one by which it sleeps itself."""

    state: str
    syscall: str | None
    raw: bool
    runtime_wait: bool
    function: str | None
    file: str | None
    line: int | None
    holds: int
    blocked_ns: int
    least: int
    most: int


class Process(TypedDict):
    """The budget of one process; the time of every state is in ns of P time.

    Keys:
        container, pod: the container's id and the pod's uid, as the path of the process's cgroup
            names them; None where it names none, and where nobody asked for it.
        procs: GOMAXPROCS at the end of it.
        p_ns: the number of Ps x time; the sum of ``states``.
        states: every state of :data:`analysis.ptime.engine.state.STATES`.
        of_which: parts of states, which are in them already.
        lost_ns: lost P time by the state that caused it.
        wait_ns: the time of all goroutines that were ready and did not run.
        stops, taken, holds: see there.
        without_goroutine_ns: from when P had no goroutine that runs (its thread blocked, or P
            was released, whichever is first) until one ran again.
        lost_at: lost P time by call site, the most first.
        pressure: stall time over the last 10, 60 and 300 s of it, and over all of it
            (:mod:`analysis.answers.pressure`).
    """

    pid: int
    comm: str | None
    container: str | None
    pod: str | None
    begin_ns: int
    procs: int
    p_ns: int
    states: dict[str, int]
    of_which: OfWhich
    lost_ns: dict[str, Range]
    wait_ns: Wait
    stops: Stops
    taken: Taken
    holds: Holds
    without_goroutine_ns: Latency
    lost_at: list[LostAt]
    pressure: dict[str, Pressure]


class Budget(TypedDict):
    """What :func:`budget` returns: every process with Ps, the one that lost most P time first."""

    processes: list[Process]


Ints = npt.NDArray[np.int64]
_Key = tuple[int, int, int, int, int]


class _Holds:
    """Sums of holds by process, state, system call, stack and ``raw``; of a single hold nothing
    stays."""

    def __init__(self) -> None:
        self.sums: defaultdict[_Key, npt.NDArray[np.int64]] = defaultdict(
            lambda: np.zeros(7, np.int64)
        )

    def add(self, holds: dict[str, Ints]) -> None:
        """Take the holds of one window."""
        keys = np.column_stack([holds[n] for n in ("pid", "state", "nr", "stack_id", "raw")])
        if not len(keys):
            return
        values = np.column_stack(
            [
                np.ones(len(keys), np.int64),
                (holds["end"] == 2).astype(np.int64),
                *(holds[n] for n in ("blocked_ns", "monitor_ns", "awake_ns")),
                *(holds[n] for n in ("least_ns", "most_ns")),
            ]
        )
        order = np.lexsort(keys.T)
        keys, values = keys[order], values[order]
        firsts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
        sums = np.add.reduceat(values, firsts, axis=0)
        for key, more in zip(keys[firsts].tolist(), sums, strict=True):
            pid, state, nr, stack_id, raw = key
            self.sums[pid, state, nr, stack_id, raw] += more


def budget(
    trace: Trace,
    setting: PassSetting | None = None,
    along: EpisodesAlong | None = None,
) -> Budget:
    """The budget of a trace.

    Args:
        trace: the trace.
        setting: from :func:`analysis.ptime.setting.pass_setting`, if it is at hand.
        along: makes episodes from the same reading.

    Raises:
        PretakeError: the trace cannot be read.
    """
    setting = setting or pass_setting(trace)
    # A stranger's trace may claim to be of three hundred years.
    bin_ns = bin_length(trace, setting, _MOST_BINS, _BIN_NS)
    if along is None:
        return _run(trace, setting, bin_ns)[0]
    told, _ = _run(trace, setting, bin_ns, along.add_holds, along.window)
    along.end()
    return told


def budget_over_time(
    trace: Trace,
    pieces: int,
    on_holds: Callable[[dict[str, Ints]], None] | None = None,
) -> tuple[Budget, dict[str, Ints]]:
    """The budget, and the sums of every process (:data:`analysis.ptime.engine.sums.BIN`) at
    ``pieces`` moments that are equally far apart, for a picture.

    Raises:
        PretakeError: the trace cannot be read.
    """
    setting = pass_setting(trace)
    bin_ns = bin_length(trace, setting, pieces)
    told, found = _run(trace, setting, bin_ns, on_holds)
    return told, found.bins


def _run(
    trace: Trace,
    setting: PassSetting,
    bin_ns: int,
    on_holds: Callable[[dict[str, Ints]], None] | None = None,
    on_window: Callable[[ColumnWindow, list[Packed], PassRunner], None] | None = None,
) -> tuple[Budget, Pass]:
    sums = _Holds()

    def add(holds: dict[str, Ints]) -> None:
        sums.add(holds)
        if on_holds is not None:
            on_holds(holds)

    found = run_pass(trace, setting=setting, bin_ns=bin_ns, on_holds=add, on_window=on_window)
    return _budget(trace, found, sums), found


def budget_of(trace: Trace, found: Pass) -> Budget:
    """The same from a pass that was run for other reasons, too, and has kept its holds."""
    holds = _Holds()
    holds.add(found.holds)
    return _budget(trace, found, holds)


def _budget(trace: Trace, found: Pass, holds: _Holds) -> Budget:
    stack_ids = {key[3] for key in holds.sums} | set(found.waited["stack_id"].tolist())
    sites = sites_of(trace, stack_ids - {UNKNOWN})
    waited = (found.waited[name].tolist() for name in ("pid", "begin_ns", "pc"))
    functions = functions_of(
        trace, {row for row in zip(*waited, strict=True) if row[2] != UNKNOWN}
    )
    asked = set(read(trace, "throttle", ["pid"])["pid"].tolist())
    manifest = trace.manifest
    looked = manifest.target.runtime == "go" and manifest.asked.get("probes") == "none"
    named = _Told(sites, functions, asked, manifest.arch, not looked)
    processes = [_process(process, found, holds, named) for process in found.processes]
    processes.sort(key=lambda process: -_least_lost_ns(process))
    return {"processes": processes}


def _least_lost_ns(process: Process) -> int:
    return sum(lost["least"] for lost in process["lost_ns"].values())


@dataclass(frozen=True)
class _Told:
    sites: Mapping[int, Site]
    functions: Mapping[tuple[int, int, int], str]
    asked: Set[int]
    """Processes whose cgroups were asked what their quotas took."""
    machine: str | None
    """The architecture of the trace, whose the numbers of system calls are."""
    every_stop: bool
    """Whether each stop-the-world has left a row."""

    def site(self, stack_id: int) -> Site:
        return self.sites.get(stack_id, NOWHERE)


def _process(process: ProcessBudget, found: Pass, holds: _Holds, named: _Told) -> Process:
    pid = process.pid
    blocked, on_cpu, preempted, unknown = process.taken
    own = {key: sums for key, sums in holds.sums.items() if key[0] == pid}
    total = sum(own.values(), np.zeros(7, np.int64)).tolist()
    return {
        "pid": pid,
        "comm": process.comm,
        "container": process.place.container,
        "pod": process.place.pod,
        "begin_ns": process.begin_ns,
        "procs": process.procs,
        "p_ns": process.p_ns,
        "states": process.states,
        "of_which": {
            "throttled": process.throttled_ns if pid in named.asked else None,
            "idle_beside_work": process.idle_beside_work_ns,
        },
        "lost_ns": {
            state: {"least": process.lost_least[state], "most": process.lost_most[state]}
            for state in LOST_STATES
        },
        "wait_ns": {
            "least": process.wait_least_ns,
            "most": process.wait_most_ns,
            "unknown": process.wait_unknown_ns,
        },
        "stops": _stops(pid, found, named),
        "taken": {
            "blocked": blocked,
            "on_cpu": on_cpu,
            "preempted": preempted,
            "unknown": unknown,
        },
        "holds": {
            "count": total[0],
            "unknown": total[1],
            "blocked_ns": total[2],
            "monitor_no_cpu_ns": total[3],
            "awake_ns": total[4],
        },
        "without_goroutine_ns": _latency(pid, found),
        "lost_at": _lost_at(own, named),
        "pressure": pressure_of(found.bins, pid, process.begin_ns),
    }


def _lost_at(own: Mapping[_Key, Ints], named: _Told) -> list[LostAt]:
    rows: list[LostAt] = []
    for (_, state, nr, stack_id, raw), sums in own.items():
        count, _, blocked_ns, _, _, least, most = sums.tolist()
        site = named.site(stack_id)
        rows.append(
            {
                "state": STATES[state],
                "syscall": _call(nr, named.machine),
                "raw": raw == 1,
                "runtime_wait": site.runtime_wait,
                "function": site.function,
                "file": site.file,
                "line": site.line,
                "holds": count,
                "blocked_ns": blocked_ns,
                "least": least,
                "most": most,
            }
        )
    # Stacks that differ above their call site are one site.
    merged: dict[tuple[object, ...], LostAt] = {}
    for row in rows:
        key = (
            *(row["state"], row["syscall"], row["raw"], row["runtime_wait"]),
            *(row["function"], row["file"], row["line"]),
        )
        same = merged.setdefault(key, row)
        if same is not row:
            same["holds"] += row["holds"]
            same["blocked_ns"] += row["blocked_ns"]
            same["least"] += row["least"]
            same["most"] += row["most"]
    order = sorted(merged.values(), key=lambda row: (-row["least"], -row["most"]))
    return order[:_SITES]


def _call(nr: int, machine: str | None) -> str | None:
    name = syscall_names([nr], machine)[0]
    return None if name is None else str(name)


def _latency(pid: int, found: Pass) -> Latency:
    rows = found.latencies
    own = rows["pid"] == pid
    ran = own & (rows["end"] == 1)
    values = rows["until_ns"][ran] - rows["since_ns"][ran]
    return {
        **_spread(values),
        "count": int(ran.sum()),
        "unknown": int((own & (rows["end"] == 2)).sum()),
    }


def _spread(values: Ints) -> Spread:
    told = quantiles(values, 0.5, 0.99, 1.0)
    return {"p50": told["p50"], "p99": told["p99"], "max": told["p100"]}


def _stops(pid: int, found: Pass, named: _Told) -> Stops:
    stops, waited = found.stops, found.waited
    own = stops["pid"] == pid
    told = own & (stops["stand_ns"] != UNKNOWN)
    sums: Counter[tuple[str | None, str | None, str]] = Counter()
    its = np.flatnonzero(waited["pid"] == pid)
    for at in its.tolist():
        stack_id, ns, pc = (int(waited[name][at]) for name in ("stack_id", "begin_ns", "pc"))
        function = named.site(stack_id).function or named.functions.get((pid, ns, pc))
        state = STATES[int(waited["state"][at])]
        sums[function, _call(int(waited["nr"][at]), named.machine), state] += int(waited["ns"][at])
    return {
        "count": int(own.sum()),
        "every": named.every_stop,
        "unknown": int((own & ~told).sum()),
        "stopping_ns": _spread(stops["stand_ns"][told] - stops["begin_ns"][told]),
        "waited_for": [
            {"function": function, "syscall": call, "state": state, "ns": ns}
            for (function, call, state), ns in sums.most_common(_STOPS)
        ],
    }
