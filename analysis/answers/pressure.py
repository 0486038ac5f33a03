"""Stall time of Ps by cause, as the kernel's /proc/pressure tells it of tasks.

Example: of two Ps one is blocked in ``read`` for 6 of the last 10 seconds, and for 2 of these the
other one is blocked in a page fault; goroutines wait all the while. Then ``read`` (state
``syscall``) has ``some`` 60 %, and ``full`` 20 %, since for 2 s no P ran. The page fault has
``some`` 20 % and ``full`` 20 %. Any cause has ``some`` 60 % and ``full`` 20 %.

The rule, for each cause (a state of the budget, :data:`CAUSES`) and for any of them:

- ``some``: the share of time in which at least one P was lost to it: work waited that this P
  would have run (docs/design.md, lost P time). The kernel's: a task is delayed by it.
- ``full``: the share of time in which that held, and no P ran a goroutine. The kernel's: and no
  task is productive.

Causes overlap, so ``some`` of any cause is at most their sum.

**The averages are plain ones**, over the last 10, 60 and 300 s of the process, or as many as there
were (``seconds``). The kernel's are exponential, updated every 2 s (kernel/sched/psi.c,
``calc_avgs``). They begin at 0: over 300 s they would tell 3 % of a capture of 10 s in which all
of the time was lost. ``total`` is that of /proc/pressure: all stall time since the process began.

What the trace cannot tell makes a least and a most. Of a P in state ``unknown`` nobody knows
whether it ran, and between two looks nobody knows how many goroutines waited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from analysis.ptime.engine.state import STATES

__all__ = [
    "ANY",
    "CAUSES",
    "KINDS",
    "WINDOWS_S",
    "CauseStall",
    "Pressure",
    "ProcessPressure",
    "Stall",
    "Stalled",
    "distinct_windows",
    "kind_of",
    "pressure_of",
    "stalls_of",
]

WINDOWS_S: Final = (10, 60, 300)
"""Lengths of the averages, as /proc/pressure has them."""
KINDS: Final = ("some", "full")
ANY: Final = "any"
CAUSES: Final = STATES[1:7]

_SECOND_NS: Final = 1_000_000_000
Ints = npt.NDArray[np.int64]


class Stall(TypedDict):
    """The least and the most that it can have been, in percent of time, and in ns."""

    least: float
    most: float
    least_ns: int
    most_ns: int


class Stalled(TypedDict):
    """Stall of one cause."""

    some: Stall
    full: Stall


class Pressure(TypedDict):
    """Stall over one window.

    Keys:
        seconds: how long the window is: shorter than its name where there was less.
        any: of any cause. some, full: its least percent; some_most, full_most: its most.
        unknown: P time of which nobody knows what it was, in percent.
        causes: by cause, every one of them.
    """

    seconds: float
    some: float
    full: float
    some_most: float
    full_most: float
    unknown: float
    any: Stalled
    causes: dict[str, Stalled]


class ProcessPressure(TypedDict):
    """Pressure of one process, where it is (as in :class:`analysis.answers.budget.Process`), its
    number of Ps, and its P time by state in ns."""

    pid: int
    comm: str | None
    container: str | None
    pod: str | None
    procs: int
    states: dict[str, int]
    pressure: dict[str, Pressure]


def pressure_of(bins: Mapping[str, Ints], pid: int, begin_ns: int) -> dict[str, Pressure]:
    """The pressure of one process, by window: ``10s``, ``60s``, ``300s``, and ``total``.

    Args:
        bins: sums over time (:data:`analysis.ptime.engine.sums.BIN`). A window begins with a
            bin, so it is up to one bin longer than its name.
        pid: of the process.
        begin_ns: its begin.
    """
    own = bins["pid"] == pid
    times = bins["ts_ns"][own]
    if not len(times) or int(times[-1]) <= begin_ns:
        return {}
    sums = {name: values[own] for name, values in bins.items()}
    told: dict[str, Pressure] = {}
    for seconds in (*WINDOWS_S, None):
        first = -1
        if seconds is not None:
            since_ns = int(times[-1]) - seconds * _SECOND_NS
            first = int(np.searchsorted(times, since_ns, "right")) - 1
        name = "total" if seconds is None else f"{seconds}s"
        told[name] = _window(sums, first, begin_ns)
    return told


def _window(sums: Mapping[str, Ints], first: int, begin_ns: int) -> Pressure:
    """Over the bins behind number ``first``."""

    def grown(name: str) -> int:
        values = sums[name]
        return int(values[-1]) - (int(values[first]) if first >= 0 else 0)

    times = sums["ts_ns"]
    span_ns = int(times[-1]) - (int(times[first]) if first >= 0 else begin_ns)

    def stall(kind: str, cause: str) -> Stall:
        least, most = (grown(f"{kind}_{end}_{cause}_ns") for end in ("least", "most"))
        return {
            "least": 100 * least / span_ns,
            "most": 100 * most / span_ns,
            "least_ns": least,
            "most_ns": most,
        }

    def stalled(cause: str) -> Stalled:
        return {"some": stall("some", cause), "full": stall("full", cause)}

    own = stalled(ANY)
    some, full = own["some"], own["full"]
    p_ns = grown("p_ns")
    return {
        "seconds": span_ns / _SECOND_NS,
        "some": some["least"],
        "full": full["least"],
        "some_most": some["most"],
        "full_most": full["most"],
        "unknown": 100 * grown("unknown_ns") / p_ns if p_ns else 0.0,
        "any": own,
        "causes": {cause: stalled(cause) for cause in CAUSES},
    }


class CauseStall(NamedTuple):
    """A row of a table of pressure: ``over`` has the least and the most in percent, by window."""

    cause: str
    kind: str
    over: dict[str, tuple[float, float]]


def stalls_of(told: Mapping[str, Pressure]) -> Iterator[CauseStall]:
    """What there is to show: any cause first, then those that something may have been lost to."""
    for cause in ("any cause", *CAUSES):
        for kind in KINDS:
            over = {}
            for window, own in told.items():
                stall = kind_of(own["causes"].get(cause, own["any"]), kind)
                over[window] = (stall["least"], stall["most"])
            if any(most > 0 for _, most in over.values()):
                yield CauseStall(cause, kind, over)


def kind_of(stalled: Stalled, kind: str) -> Stall:
    """``some`` or ``full`` of it."""
    return stalled["some"] if kind == "some" else stalled["full"]


def distinct_windows(told: Mapping[str, Pressure]) -> dict[str, str]:
    """The windows that are shorter than the whole span, and that one, with what to call them."""
    if not told:
        return {}
    by_length: dict[float, str] = {}
    for window, own in told.items():
        by_length.setdefault(own["seconds"], window)
    whole = told["total"]["seconds"]
    shorter = {
        window: f"last {seconds:.3g} s" for seconds, window in by_length.items() if seconds < whole
    }
    return {**shorter, "total": f"all {whole:.3g} s"}
