"""Whether advice comes true: part ``advice``.

Each workload is captured under sysmon, which makes every call with entersyscall. Where ``pretake
advise`` says of its site "block", the workload is really run with entersyscallblock. The truth is
the lost P time for each call in calls and on P's way to its next goroutine, as the budget has it:
the median of the runs under sysmon less that of the runs under block. So it is made by another
pass than the advice, mostly of runs that the advice has not seen. A gain is *covered* if its
interval holds the truth.

``untuned`` are workloads that were not run while the advice was written.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from analysis import load
from bench.captured import LOADS, PRETAKE, record, under

ROUNDS, SHORT_ROUNDS = 5, 2
_LOST = ("syscall", "fault", "transit")


@dataclass(frozen=True)
class Case:
    """A workload nearly all of whose calls are of one site."""

    arguments: tuple[str, ...]
    call: str
    tuned: bool = False


CASES: Mapping[str, Case] = {
    "echo": Case(("echo",), "ppoll", tuned=True),
    "long calls": Case(("calls", "--set", "long_share=1.0"), "clock_nanosleep", tuned=True),
    "calls of 1 ms": Case(
        ("calls", "--set", "long_share=1.0", "--set", "long_ns=1000000"), "clock_nanosleep"
    ),
    "calls of 60 µs": Case(
        ("calls", "--set", "long_share=1.0", "--set", "long_ns=60000"), "clock_nanosleep"
    ),
    "two callers beside three that compute": Case(
        (
            *("calls", "--set", "long_share=1.0", "--set", "workers=2"),
            *("--set", "cpu_goroutines=3"),
        ),
        "clock_nanosleep",
    ),
}


def advice(folder: Path, short: bool = False) -> dict[str, Any]:
    """How many gains were covered, of how many; by load, and for the untuned by themselves."""
    found: dict[str, Any] = {"covered": 0, "of": 0, "untuned": {"covered": 0, "of": 0}}
    cases: dict[str, Any] = {}
    rounds = SHORT_ROUNDS if short else ROUNDS
    for kind in LOADS:
        own = {"covered": 0, "of": 0}
        with under(kind):
            for name, case in CASES.items():
                told = _case(folder, case, rounds, "0.5" if short else "1")
                cases[f"{name}, {kind}"] = told
                held = sum(low <= told["truth_ns"] <= high for low, high in told["told_ns"])
                for tally in (own, found, *(() if case.tuned else (found["untuned"],))):
                    tally["covered"] += held
                    tally["of"] += len(told["told_ns"])
                print(f"{name}, {kind}: {held} of {len(told['told_ns'])}", file=sys.stderr)
        found[kind] = own
    return {"advice": found, "advice_cases": cases}


def _case(folder: Path, case: Case, rounds: int, seconds: str) -> dict[str, Any]:
    """The intervals that were told, and the truth; in turns, so that both see the same load."""
    told: list[tuple[float, float]] = []
    lost: dict[str, list[float]] = {"sysmon": [], "block": []}
    for _ in range(rounds):
        for policy, before in lost.items():
            how = ("--retake", policy, "--seconds", seconds)
            trace = record(folder / "run.pretake", (PRETAKE, "run", *case.arguments, *how))
            before.append(_lost_a_call(trace))
            if policy == "sysmon":
                told += _told(trace, case.call)
    return {
        "truth_ns": round(median(lost["sysmon"]) - median(lost["block"])),
        "told_ns": [(round(low), round(high)) for low, high in told],
    }


def _told(trace: Path, call: str) -> list[tuple[float, float]]:
    """The interval of the gain at the site, where block is advised."""
    advised = load(trace).advise()
    own = advised[advised["site"].astype(str).str.startswith(call)].head(1)
    own = own[own["way_best"] == "block"]
    return [
        (float(row["gain_low_ns"]), float(row["gain_high_ns"])) for row in own.to_dict("records")
    ]


def _lost_a_call(trace: Path) -> float:
    """Lost P time in calls and on P's way, for each call that blocked; ns."""
    loaded = load(trace)
    process = loaded.budget()["processes"][0]
    lost = sum(
        process["lost_ns"][state]["least"] for state in _LOST if state in process["lost_ns"]
    )
    return lost / max(len(loaded.episodes()), 1)
