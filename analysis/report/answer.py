"""The answer that a report begins with: a sentence or two, and three numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.answers.now import range_text, what_now
from analysis.report.material import Material
from analysis.units import UNKNOWN_TEXT, count_text, duration_text, ratio_text

__all__ = ["Answer", "Figure", "answer"]


@dataclass(frozen=True)
class Figure:
    """A number to be seen from afar."""

    value: str
    name: str
    detail: str


@dataclass(frozen=True)
class ToDo:
    """A cause of lost P time: its share, what it is, what helps (empty: nothing in a program)."""

    share: str
    what: str
    today: str


@dataclass(frozen=True)
class Answer:
    """What the reader came for.

    Args:
        sentence: the finding.
        caveat: how far to trust it; empty if there is nothing to say.
        good: whether nothing is wrong.
        figures: three of them.
        todo: causes of lost P time, the largest first, with what a person can change.
        stood: P time that was not lost, but in which a P's own goroutine could not go on.
        apart: causes that no program can change.
        stops: whom stop-the-worlds waited for, and what helps.
        by_runtime: what only the runtime could change.
        others: the other processes, and what they lost.
    """

    sentence: str
    caveat: str
    good: bool
    figures: tuple[Figure, ...]
    todo: tuple[ToDo, ...] = ()
    stood: tuple[ToDo, ...] = ()
    apart: tuple[ToDo, ...] = ()
    stops: str = ""
    by_runtime: str = ""
    others: str = ""


def answer(materials: Sequence[Material]) -> Answer:
    """The answer for one trace, or for several side by side."""
    one = len(materials) == 1
    found = _of_one(materials[0]) if one else _of_several(materials)
    return replace(found, caveat=_caveat(materials))


def _of_one(material: Material) -> Answer:
    told, verdict = (
        material.summary,
        what_now(material.budget, material.trace.manifest.target.runtime),
    )
    processes = material.budget["processes"]
    pressure = processes[0]["pressure"].get("total") if processes else None
    some = full = UNKNOWN_TEXT
    if pressure is not None:
        some = range_text(pressure["some"], pressure["some_most"])
        full = range_text(pressure["full"], pressure["full_most"])
    causes, stood = (
        [ToDo(range_text(f.least_percent, f.most_percent), f.what, f.today) for f in found]
        for found in (verdict.findings, verdict.stood)
    )
    harm = duration_text(told["harm_ns"]["sum"])
    return Answer(
        verdict.sentence,
        "",
        verdict.good,
        (
            Figure(
                duration_text(told["retake_ns"]["p50"]),
                "until P runs again",
                f"median P-retake latency; 99 % within {duration_text(told['retake_ns']['p99'])}",
            ),
            Figure(
                harm,
                "harm of blocked calls",
                f"work waited for held Ps; in one call at most "
                f"{duration_text(told['harm_ns']['max'])}",
            ),
            Figure(
                some,
                "of the time some P was lost",
                f"and for {full} none ran",
            ),
        ),
        tuple(cause for cause in causes if cause.today),
        tuple(stood),
        tuple(cause for cause in causes if not cause.today),
        verdict.stops,
        verdict.by_runtime,
        verdict.others,
    )


def _of_several(materials: Sequence[Material]) -> Answer:
    known = [m for m in materials if m.summary["retake_ns"]["p50"] is not None]
    workloads = list(dict.fromkeys(m.workload for m in materials))
    good = all(what_now(m.budget, m.trace.manifest.target.runtime).good for m in materials)
    figures = tuple(
        Figure(
            duration_text(m.summary["retake_ns"]["p50"]),
            m.label,
            f"median P-retake latency; harm {duration_text(m.summary['harm_ns']['sum'])}",
        )
        for m in _three(materials)
    )
    alone = len(workloads) == 1
    found = [
        _compared("" if alone else f"{name or 'another workload'}: ", of_one)
        for name in workloads
        if len(of_one := [m for m in known if m.workload == name]) > 1
    ]
    sentence = " ".join(text for _, text in sorted(found, key=lambda pair: -pair[0]))
    if not found:
        # One workload is no measure of another.
        sentence = "These traces have no two P-retake latencies of one workload to compare."
    return Answer(sentence, "", good, figures)


def _compared(name: str, materials: Sequence[Material]) -> tuple[float, str]:
    """How far the traces of one workload are apart, as a factor and as a sentence."""
    best = min(materials, key=lambda m: m.summary["retake_ns"]["p50"] or 0)
    worst = max(materials, key=lambda m: m.summary["retake_ns"]["p50"] or 0)
    fast, slow = best.summary["retake_ns"]["p50"] or 0, worst.summary["retake_ns"]["p50"] or 0
    if fast == slow:
        text = f"P runs again equally soon in all of them: {duration_text(fast)} (median)."
        return 1.0, name + text
    if fast == 0:
        text = (
            f"Under {best.label} P already runs another goroutine when the thread blocks; "
            f"under {worst.label} that takes {duration_text(slow)} (median)."
        )
        return math.inf, name + text
    text = (
        f"Under {best.label} P runs again {duration_text(fast)} after a thread blocks, under "
        f"{worst.label} after {duration_text(slow)} (medians): "
        f"{ratio_text(slow / fast)} times as long."
    )
    return slow / fast, name + text


def _three(materials: Sequence[Material]) -> list[Material]:
    """Three of many: those at the ends and in the middle of the latencies."""
    if len(materials) <= 3:
        return list(materials)
    order = sorted(materials, key=lambda m: m.summary["retake_ns"]["p50"] or 0)
    return [order[0], order[len(order) // 2], order[-1]]


def _caveat(materials: Sequence[Material]) -> str:
    parts = []
    for material in materials:
        told = material.summary
        name = f"{material.label}: " if len(materials) > 1 else ""
        if told["lost"]:
            made = count_text(told["events"] + told["lost"])
            left_out = (
                f"{count_text(told['untrusted'])} episodes at those moments are left out"
                if told["untrusted"]
                else "no episode falls into those moments"
            )
            parts.append(
                f"{name}{count_text(told['lost'])} of {made} records were lost; {left_out}."
            )
        if not told["complete"]:
            parts.append(f"{name}the capture did not end in order.")
    return " ".join(parts)
