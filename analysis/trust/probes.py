"""How well retakes are inferred without a uprobe, compared with the uprobes of the same trace.

A trace of ``record --probes both`` has each retake twice. ``retake`` comes from a uprobe on Go's
own function and has the exact time; all other views count only these. ``retake_inferred`` comes
from looks at the runtime's memory and is an interval (``since_ns`` to ``ts_ns``). A row of each
kind are the same retake if they are of the same P and the exact time is the nearest to the
interval. No row is used twice.

Only retakes that both ways can see are compared: those by sysmon, by a stop-the-world and by the
collector, and from Go 1.26 on those by an M that takes its P back. Up to Go 1.25 no function is
called for the last kind, so inferred retakes with that reason have no witness. They are left out,
and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.stats.quantiles import quantiles
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

__all__ = ["ProbesCompared", "compare_probes"]

_SWITCH = ["ts_ns", "prev_tid", "next_tid"]

NEAR_NS = 1_000_000
"""How far an exact time may lie outside of an interval and still be of the same retake."""

TRAP_NS = 4_000
"""How far the uprobe's time is from the retake, at most: the kernel needs 0.5 to 3.9 µs from the
probed instruction to the probe's program, or from that back to the program, and P is taken a few
instructions before or behind. A look on another CPU may fall into this time, and is right. It is
time on a CPU: a thread that loses its CPU between the two does the rest when it is back."""

_TOLD_BEFORE = ("exitsyscall", "stw")
"""Retakes whose uprobe stands before P is taken: at the begin of exitsyscallTryGetP, and before
preemptall in stopTheWorldWithSema. That of sysmon's stands behind it, in handoffp."""


@dataclass(frozen=True)
class ProbesCompared:
    """The comparison.

    Args:
        exact: retakes that the uprobes told.
        inferred: retakes that were inferred, but those without a witness.
        matched: pairs.
        inside_count: pairs whose retake can have been in (since_ns, ts_ns], by the exact time and
            what its uprobe can have taken (:data:`TRAP_NS`).
        interval_p50_ns: median width of the intervals of the pairs; None without a pair.
        without_witness: inferred retakes that no uprobe can tell in this version.
        missed: exact retakes without a partner, by reason.
        invented: inferred ones without a partner, by reason.
    """

    exact: int
    inferred: int
    matched: int
    inside_count: int
    interval_p50_ns: float | None
    without_witness: int
    missed: Mapping[str, int] = field(default_factory=dict)
    invented: Mapping[str, int] = field(default_factory=dict)

    @property
    def recall(self) -> float | None:
        """Share of the exact retakes that were inferred; None where there are none."""
        return self.matched / self.exact if self.exact else None

    @property
    def precision(self) -> float | None:
        """Share of the inferred retakes that are true; None where there are none."""
        return self.matched / self.inferred if self.inferred else None

    @property
    def inside(self) -> float | None:
        """Share of the pairs whose true time lies in the interval; None without a pair."""
        return self.inside_count / self.matched if self.matched else None

    def as_json(self) -> dict[str, object]:
        """The comparison as ``pretake check --probes --json`` prints it."""
        return {
            "recall": self.recall,
            "precision": self.precision,
            "inside": self.inside,
            "interval_p50_ns": self.interval_p50_ns,
            "exact": self.exact,
            "inferred": self.inferred,
            "matched": self.matched,
            "without_witness": self.without_witness,
            "missed": dict(self.missed),
            "invented": dict(self.invented),
        }


def compare_probes(trace: Trace) -> ProbesCompared:
    """Compare the two ways in one trace.

    Raises:
        PretakeError: the trace was not captured with ``--probes both``.
    """
    if trace.manifest.asked.get("probes") != "both":
        raise PretakeError(
            "this trace tells retakes in one way only", "capture it with 'record --probes both'"
        )
    rows = trace.frame("runtime", ["ts_ns", "since_ns", "tid", "p", "kind", "reason"])
    rows = rows[rows["kind"].isin(["retake", "retake_inferred"])]
    tasks = trace.frame("task", ["tid", "pid"]).drop_duplicates("tid").set_index("tid")["pid"]
    rows = rows.assign(
        pid=rows["tid"].map(tasks), reason=rows["reason"].astype(object).fillna("other")
    )
    is_inferred = rows["since_ns"].notna()
    exact, inferred = rows[~is_inferred], rows[is_inferred]
    # Whether the binary has the function that is probed for a P taken back.
    backs_told = trace.manifest.target.p_in_syscall != "psyscall"
    exact = _with_span(exact, trace.frame("sched_switch", _SWITCH))
    pairs = _pairs(exact, inferred)
    alone = ((inferred["reason"] == "exitsyscall") & (not backs_told)).to_numpy(copy=True)
    # One that has a partner was told, if for another reason.
    alone[[j for _, j in pairs]] = False
    known = np.array([i for i, _ in pairs], np.int64)
    found = np.array([j for _, j in pairs], np.int64)
    begin_ns = exact["begin_ns"].to_numpy(np.int64)[known]
    end_ns = exact["end_ns"].to_numpy(np.int64)[known]
    since_ns = inferred["since_ns"].to_numpy(np.int64)[found]
    until_ns = inferred["ts_ns"].to_numpy(np.int64)[found]
    inside = (since_ns < end_ns) & (begin_ns <= until_ns)
    return ProbesCompared(
        exact=len(exact),
        inferred=len(inferred) - int(alone.sum()),
        matched=len(pairs),
        inside_count=int(inside.sum()),
        interval_p50_ns=quantiles(until_ns - since_ns, 0.5)["p50"],
        without_witness=int(alone.sum()),
        missed=_reasons(exact, known),
        invented=_reasons(inferred, np.concatenate([found, np.flatnonzero(alone)])),
    )


def _with_span(exact: pd.DataFrame, switches: pd.DataFrame) -> pd.DataFrame:
    """``exact``, and when each retake can have been: between ``begin_ns`` and ``end_ns``."""
    told_ns = exact["ts_ns"].to_numpy(np.int64)
    begin_ns, end_ns = told_ns.copy(), told_ns.copy()
    is_told_before = exact["reason"].isin(_TOLD_BEFORE).to_numpy(bool)
    times_ns = switches["ts_ns"].to_numpy(np.int64)
    for tid in exact["tid"].unique():
        on_ns = np.sort(times_ns[(switches["next_tid"] == tid).to_numpy(bool)])
        off_ns = np.sort(times_ns[(switches["prev_tid"] == tid).to_numpy(bool)])
        for row in np.flatnonzero((exact["tid"] == tid).to_numpy(bool)).tolist():
            at_ns = int(told_ns[row])
            if is_told_before[row]:
                # The same, with time turned round.
                end_ns[row] = -_a_trap_sooner_ns(-at_ns, -off_ns[::-1], -on_ns[::-1])
            else:
                begin_ns[row] = _a_trap_sooner_ns(at_ns, on_ns, off_ns)
    return exact.assign(begin_ns=begin_ns, end_ns=end_ns)


def _a_trap_sooner_ns(at_ns: int, on_ns: np.ndarray, off_ns: np.ndarray) -> int:
    """When a thread, on a CPU from ``on_ns`` until ``off_ns``, had :data:`TRAP_NS` to run yet."""
    left_ns = TRAP_NS
    for came_ns in on_ns[on_ns <= at_ns][::-1].tolist():
        before = int(np.searchsorted(off_ns, came_ns)) - 1
        if at_ns - came_ns >= left_ns or before < 0:
            break
        left_ns -= at_ns - came_ns
        at_ns = int(off_ns[before])
    return at_ns - left_ns


def _pairs(exact: pd.DataFrame, inferred: pd.DataFrame) -> list[tuple[int, int]]:
    """Row numbers of an exact and an inferred retake that are the same one."""
    found = []
    for key, told in exact.reset_index(drop=True).groupby(["pid", "p"]):
        others = inferred.reset_index(drop=True)
        own = others[(others["pid"] == key[0]) & (others["p"] == key[1])]
        if own.empty:
            continue
        gap = _gaps(told, own, "begin_ns", "end_ns")
        # The nearest first, of these the nearest to the uprobe's own time; each row once.
        order = np.lexsort((_gaps(told, own, "ts_ns", "ts_ns").ravel(), gap.ravel()))
        used: tuple[set[int], set[int]] = (set(), set())
        for flat in order.tolist():
            row, column = divmod(flat, gap.shape[1])
            if gap[row, column] > NEAR_NS:
                break
            if row in used[0] or column in used[1]:
                continue
            used[0].add(row)
            used[1].add(column)
            found.append((int(told.index[row]), int(own.index[column])))
    return found


def _gaps(told: pd.DataFrame, intervals: pd.DataFrame, begin: str, end: str) -> np.ndarray:
    """How far each retake, between the columns ``begin`` and ``end``, is from each interval."""
    since = intervals["since_ns"].to_numpy(np.int64)
    until = intervals["ts_ns"].to_numpy(np.int64)
    before = since[None, :] + 1 - told[end].to_numpy(np.int64)[:, None]
    after = told[begin].to_numpy(np.int64)[:, None] - until[None, :]
    return np.asarray(np.maximum(np.maximum(before, after), 0))


def _reasons(rows: pd.DataFrame, matched: np.ndarray) -> dict[str, int]:
    alone = np.ones(len(rows), bool)
    alone[matched] = False
    counts = rows.loc[alone, "reason"].value_counts()
    return {str(reason): int(count) for reason, count in counts.items()}
