"""What another policy, machine or number of Ps would have made of a captured run.

This module makes the scripts of the run (:mod:`analysis.whatif.scripts`), finds the prices of the
machine (what each step costs there), lets a simulator that the caller gives replay the scripts,
and computes the error.

1. The prices of each step of a P's way are measured in the *first* half of the capture
   (:mod:`analysis.whatif.prices`). If a capture does not show a price (a trace made by hand, a Go
   program that hardly retakes), it is fitted: the replay of the policy that was really used must
   agree with that half in the median way of P (release to run), in the part of it until the next
   thread is woken, and under ``sysmon`` in the median hold.
2. The *second* half is replayed, under the policy that was really used and under the others.
3. The replay under the policy that was used is compared with the second half itself, which it has
   not seen: an error for each column. A column that is too far off is told for no policy
   (:mod:`analysis.whatif.errors`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from analysis.ptime.episodes import episode_windows
from analysis.schema import Field, Frame
from analysis.stats.quantiles import quantiles
from analysis.units import duration_text
from analysis.whatif.errors import (
    COLUMNS,
    LIMIT_PERCENT,
    Error,
    Figures,
    error_fields,
    error_name,
    errors_of,
    why_name,
)
from analysis.whatif.prices import Price, busy_cpus, prices
from analysis.whatif.quota import Quota, quota_of
from analysis.whatif.scripts import Goroutine, Scripts, scripts
from analysis.windowed import plain
from analysis.windowed.asof import Ints
from tracer.errors import PretakeError
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["WHATIF", "Machine", "Replay", "Replayer", "machine_text", "used_policy", "whatif"]

SOURCES = ("captured", "replayed")

WHATIF = Frame(
    "whatif",
    "a captured run (its second half), or its replay under a policy",
    (
        Field("policy", "retake policy", "str"),
        Field("source", "captured, or replayed on the simulated host", words=SOURCES),
        Field("used", "whether it is the policy that the run was captured under", "bool"),
        Field("procs", "number of Ps"),
        Field("cpus", "number of CPUs"),
        Field("syscall_cost", "cost of a system call, as a multiple of the captured one", "float"),
        Field(
            "throttled_ns",
            "time for which CPU quotas throttled the run, summed over CPUs. A replay has no "
            "quota, so its row shows the run without it. Null if no cgroup was read",
        ),
        Field("calls", "system calls that blocked"),
        *(
            Field(name, meaning, "float" if name == "calls_per_s" else "int")
            for name, meaning in COLUMNS.items()
        ),
        *error_fields(),
        Field(
            "ends",
            "whether the replay came to an end. It does not if goroutines wait for each other in "
            "calls that keep all Ps",
            "bool",
        ),
    ),
)

_FITTED = (
    ("wake_call_ns", "wake_call_ns", 1_000),
    ("wakeup_ns", "unpark_ns", 3_000),
    ("timer_slack_ns", "timer_spread_ns", 50_000),
)
"""Prices that are fitted where the capture does not tell them, the price that would tell, and
what they are at first."""
_ROUNDS = 4
_FEWEST = 40
_MOST_CALLS = 20_000


@dataclass(frozen=True)
class Machine:
    """What to replay on.

    Args:
        procs: number of Ps.
        cpus: number of CPUs.
        syscall_cost: price of a system call, times what it is on the captured machine. costs:
        prices that differ from the simulator's own, by name (:mod:`analysis.whatif.prices`).
    """

    procs: int
    cpus: int
    syscall_cost: float = 1.0
    costs: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True)
class Replay:
    """What a simulator made of the scripts: one number an episode, ns; ``UNKNOWN`` for none.

    Args:
        retake_ns: P-retake latencies.
        hold_ns: holds.
        move_ns: from P's release to its next goroutine.
        ahead_ns: from a handoff before a call to the block.
        without_ns: from the block, or the handoff before it, until P ran a goroutine again.
        harm_ns: all harm together, at least.
        calls: system calls made.
        elapsed_ns: from the first step to the last.
        handoffs: Ps given away before a call.
        harm_most_ns: what the harm can have been at most; None of a simulator, which knows it.
    """

    retake_ns: Ints
    hold_ns: Ints
    move_ns: Ints
    ahead_ns: Ints
    without_ns: Ints
    harm_ns: int
    calls: int
    elapsed_ns: int
    handoffs: int
    harm_most_ns: int | None = None


class Replayer(Protocol):
    """Plays scripts under a policy on a simulated machine."""

    def __call__(
        self, goroutines: Sequence[Goroutine], policy: str, machine: Machine, max_ns: int
    ) -> Replay | None:
        """The replay, or None if it has no end within ``max_ns``."""


def used_policy(trace: Trace) -> str | None:
    """The policy that a run was captured under; Go's own is ``sysmon``."""
    told = (trace.manifest.workload or {}).get("policy")
    if isinstance(told, str):
        return told
    return "sysmon" if trace.manifest.target.runtime == "go" else None


def whatif(
    trace: Trace,
    policies: Sequence[str],
    replay: Replayer,
    *,
    procs: int | None = None,
    cpus: int | None = None,
    syscall_cost: float = 1.0,
    limit: int = _MOST_CALLS,
    one_more: bool = False,
) -> pd.DataFrame:
    """Predict what a captured run had been under other policies.

    Args:
        trace: the trace.
        policies: names that ``replay`` knows.
        replay: the simulator.
        procs: number of Ps to ask about; None for as many as the run had.
        cpus: number of CPUs; None for as many as the run was seen on.
        syscall_cost: price of a system call, times the captured machine's.
        limit: calls to take of the run, from its begin.
        one_more: whether to replay the used policy with one P more, and with one CPU more, too:
            what a person can have without another runtime.

    Returns:
        A DataFrame of :data:`WHATIF`: the capture, then each policy.

    Raises:
        PretakeError: too few calls whose goroutine is known, or what ``replay`` raises.
    """
    known = _first_episodes(trace, limit)
    middle = len(known) // 2
    first_ns, last_ns = _span_of_episodes(known[:middle])
    costs = prices(trace, first_ns, last_ns)
    probe = costs.get("probe_ns", 0)
    probe_ns = probe if isinstance(probe, int) else 0
    first = scripts(trace, known[:middle], probe_ns)
    second = scripts(trace, known[middle:], probe_ns)
    if first.calls + second.calls < _FEWEST:
        raise PretakeError(
            f"{trace.path} has {first.calls + second.calls} calls whose goroutine and return are "
            f"known, and a replay needs {_FEWEST}",
            "capture for longer, or with 'pretake record' as root",
        )
    # CPython's threads need its lock for all that the runtime does; Go's have none.
    costs["gil"] = trace.manifest.target.runtime == "reference"
    own = _own_machine(trace, known, busy_cpus(trace, first_ns, last_ns))
    used = used_policy(trace)
    measured = _measured(known[middle:], second)
    quota = quota_of(trace, _process_of(known))
    told = seen = None
    if used is not None:
        untouched = quota.untouched(known[:middle])
        fitting = untouched if len(untouched) >= _FEWEST else known[:middle]
        _fit(costs, first, fitting, used, own, replay)
        as_used = Machine(own.procs, own.cpus, 1.0, costs)
        told = replay(second.goroutines, used, as_used, _bound(second))
        seen = _without_quota(measured, known[middle:], second, quota)
    errors = errors_of(
        None if told is None else _figures(told),
        None if seen is None else _figures(seen),
        used,
        "CPU quotas throttled nearly all of the run, and a replay has none",
    )
    asked = Machine(procs or own.procs, cpus or own.cpus, syscall_cost, costs)
    vague = {"harm_ns": Error(None, _vague(measured))}
    rows = [_row(used or "unknown", "captured", own, measured, True, vague)]
    taken_ns = quota.taken_ns(second.begin_ns, second.end_ns)
    rows[0]["throttled_ns"] = UNKNOWN if taken_ns is None else taken_ns
    for policy in policies:
        told = replay(second.goroutines, policy, asked, _bound(second))
        rows.append(_row(policy, "replayed", asked, told, policy == used, errors))
    if one_more and used is not None:
        for more in (replace(asked, procs=asked.procs + 1), replace(asked, cpus=asked.cpus + 1)):
            told = replay(second.goroutines, used, more, _bound(second))
            rows.append(_row(used, "replayed", more, told, True, errors))
    table = pd.DataFrame(rows)
    return WHATIF.finish({str(name): table[name].to_numpy() for name in table})


def machine_text(row: Mapping[Any, Any], captured: Mapping[Any, Any]) -> str:
    """In what a replay's machine differs from the captured one: ``, 3 Ps, no quota``; empty for
    nothing."""
    words = (("procs", "P"), ("cpus", "CPU"))
    differs = [
        f", {row[name]} {word}{'' if row[name] == 1 else 's'}"
        for name, word in words
        if row[name] is not None and row[name] != captured[name]
    ]
    if captured["throttled_ns"] and row["throttled_ns"] == 0:
        differs.append(", no quota")
    return "".join(differs)


def _process_of(known: pd.DataFrame) -> int | None:
    """The process with the most episodes, whose scripts are made."""
    pid = known["pid"].mode()
    return int(pid.iloc[0]) if len(pid) else None


def _without_quota(
    measured: Replay, known: pd.DataFrame, own: Scripts, quota: Quota
) -> Replay | None:
    """The capture where no quota took anything; None where that is too little to tell."""
    if not quota.taken_ns(own.begin_ns, own.end_ns):
        return measured
    untouched = quota.untouched(known)
    if len(untouched) < _FEWEST // 2:
        return None
    left_ns = own.end_ns - own.begin_ns - quota.touched_ns(own.begin_ns, own.end_ns)
    return replace(_measured(untouched, own), calls=len(untouched), elapsed_ns=max(left_ns, 0))


def _first_episodes(trace: Trace, limit: int) -> pd.DataFrame:
    """The first trusted episodes of a trace; what comes after them is not read."""
    pieces: list[pd.DataFrame] = []
    for piece in episode_windows(trace):
        pieces.append(piece[~piece["lost_overlap"]])
        if sum(len(p) for p in pieces) >= limit:
            break
    known = pd.concat([p for p in pieces if len(p)] or pieces[:1], ignore_index=True)
    return known.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True).head(limit)


def _bound(own: Scripts) -> int:
    """Virtual time after which a replay will not end any more."""
    return 100 * (own.end_ns - own.begin_ns) + 1_000_000_000


def _span_of_episodes(known: pd.DataFrame) -> tuple[int, int]:
    """From the first block of some episodes to the last end."""
    if known.empty:
        return 0, 0
    ends = known["exit_ns"].fillna(known["block_ns"])
    return int(known["block_ns"].min()), int(ends.max())


def _own_machine(trace: Trace, known: pd.DataFrame, cpus: int) -> Machine:
    """Ps and CPUs that the run had."""
    told = (trace.manifest.workload or {}).get("procs")
    highest = known["p"].max()
    procs = 1 if pd.isna(highest) else int(highest) + 1
    if isinstance(told, int) and told > 0:
        procs = told
    return Machine(procs, cpus)


def _measured(known: pd.DataFrame, own: Scripts) -> Replay:
    """The capture itself, in the words of a replay."""
    went_on = known["run_ns"].fillna(known["acquirep_ns"])
    given = known["outcome"].eq("handed_off") & went_on.notna()
    left_ns = known[["block_ns", "release_ns"]].min(axis=1)
    # Of a hold whose share is not known, all of it can have been harm.
    longest_ns = known["hold_ns"].fillna(known["exit_ns"] - known["block_ns"])
    return Replay(
        plain.numbers(known["retake_ns"]),
        plain.numbers(known["hold_ns"].where(known["outcome"].eq("retaken"))),
        plain.numbers(went_on - known["release_ns"]),
        plain.numbers((known["block_ns"] - known["release_ns"]).where(given)),
        plain.numbers((went_on - left_ns).where(known["release_ns"].notna())),
        int(known["harm_ns"].fillna(0).sum()),
        own.calls,
        own.end_ns - own.begin_ns,
        int(known["outcome"].eq("handed_off").sum()),
        int(known["harm_most_ns"].fillna(longest_ns).fillna(0).sum()),
    )


def _fit(
    costs: dict[str, Price],
    own: Scripts,
    known: pd.DataFrame,
    used: str,
    machine: Machine,
    replay: Replayer,
) -> None:
    """Set what the capture does not tell, so that the replay of the used policy agrees with it."""
    fitted = {
        name: first
        for name, seen, first in _FITTED
        if seen not in costs and (name != "timer_slack_ns" or used == "sysmon")
    }
    if not fitted:
        return
    # What waking costs is told by the moves that woke a thread; an M that spins needs no waking.
    woke = known[known["m_wake_ns"].notna()]
    known = woke if len(woke) >= _FEWEST // 2 else known
    measured = _measured(known, own)
    woken_ns = _median(plain.numbers(known["m_wake_ns"] - known["release_ns"]))
    if "wake_call_ns" in fitted and woken_ns is not None:
        fitted["wake_call_ns"] = woken_ns
    for _ in range(_ROUNDS):
        as_used = Machine(machine.procs, machine.cpus, 1.0, costs | fitted)
        told = replay(own.goroutines, used, as_used, _bound(own))
        if told is None:
            break
        _correct(fitted, "wake_call_ns", _median(measured.ahead_ns), _median(told.ahead_ns))
        _correct(fitted, "wakeup_ns", _median(measured.move_ns), _median(told.move_ns))
        # Two sightings, so that two late timers stand in each hold.
        want, have = _median(measured.hold_ns), _median(told.hold_ns)
        _correct(fitted, "timer_slack_ns", want, have, 2)
    costs |= fitted


def _correct(
    costs: dict[str, int], name: str, want: int | None, have: int | None, times: int = 1
) -> None:
    if name in costs and want is not None and have is not None:
        costs[name] = max(costs[name] + (want - have) // times, 0)


def _row(
    policy: str,
    source: str,
    machine: Machine,
    told: Replay | None,
    used: bool,
    errors: Mapping[str, Error],
) -> dict[str, object]:
    """One row; a column whose error says so is left out of it."""
    figures: Figures = {} if told is None else _figures(told)
    row: dict[str, object] = {
        "policy": policy,
        "source": SOURCES.index(source),
        "used": used,
        "procs": machine.procs,
        "cpus": machine.cpus,
        "syscall_cost": machine.syscall_cost,
        "throttled_ns": 0,
        "calls": UNKNOWN if told is None else told.calls,
        "ends": told is not None,
    }
    for column in COLUMNS:
        error = errors.get(column, Error(None, None))
        value = figures.get(column) if error.why is None else None
        nothing = np.nan if column == "calls_per_s" else UNKNOWN
        row[column] = nothing if value is None else value
        row[error_name(column)] = np.nan if error.percent is None else error.percent
        row[why_name(column)] = error.why
    return row


def _figures(told: Replay) -> Figures:
    """What a replay, or a capture, has in each column."""
    latency = quantiles(told.retake_ns[told.retake_ns != UNKNOWN], 0.5, 0.9, 0.99)
    return {
        **{f"retake_{name}_ns": value for name, value in latency.items()},
        "without_p50_ns": _median(told.without_ns),
        "harm_ns": told.harm_ns if _vague(told) is None else None,
        "calls_per_s": _rate(told),
        "handoffs": told.handoffs,
    }


def _vague(told: Replay) -> str | None:
    """What is said of harm that is only known to be in a wide range."""
    least, most = told.harm_ns, told.harm_most_ns
    if most is None or most - least <= LIMIT_PERCENT / 100 * most:
        return None
    return f"the capture tells only that it is {duration_text(least)} to {duration_text(most)}"


def _rate(told: Replay) -> float:
    return told.calls * 1e9 / told.elapsed_ns if told.elapsed_ns else 0.0


def _median(values: Ints) -> int | None:
    return quantiles(values[values != UNKNOWN], 0.5)["p50"]
