"""What the programs of this folder tell of their speed, a line every 50 ms.

A line has the begin and the end of a slice (``CLOCK_MONOTONIC``, ns), the answers or round trips
between, and of some programs the CPU time that they took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WHOLE_S", "Slice", "cost_ns", "overlapping", "read", "whole"]

WHOLE_S = 0.15
"""The shortest span that has a whole slice wherever it begins, with half of it to spare."""


@dataclass(frozen=True)
class Slice:
    """One line; ``cpu_ns`` is None of a program that does not tell it."""

    begin_ns: int
    end_ns: int
    count: int
    cpu_ns: int | None = None


def read(path: Path) -> list[Slice]:
    """The slices so far. A line that is not written to its end is left for later."""
    lines = path.read_text().splitlines(keepends=True)
    return [Slice(*map(int, line.split())) for line in lines if line.endswith("\n")]


def whole(slices: Iterable[Slice], begin_ns: int, end_ns: int) -> list[Slice]:
    """Those that lie inside of a span.

    There are none in a span that is too short, and none where the program stood still: the host
    gave it no CPU, or the disk took its line late, and a slice begins when the line before it is
    written.
    """
    return [each for each in slices if begin_ns <= each.begin_ns and each.end_ns <= end_ns]


def overlapping(slices: Iterable[Slice], begin_ns: int, end_ns: int) -> list[Slice]:
    """Those that lie inside of a span, or partly so."""
    return [each for each in slices if each.begin_ns < end_ns and begin_ns < each.end_ns]


def cost_ns(slices: Iterable[Slice], of_cpu: bool = False) -> float | None:
    """Time of one answer or round trip: that of the fastest tenth of the slices.

    What else runs on the machine only ever makes a slice slower, and is no cost of a tool.

    Args:
        slices: of one span.
        of_cpu: CPU time instead.

    Returns:
        None if there is no slice, or the program does not tell its CPU time.
    """
    costs = []
    for each in slices:
        took_ns = each.cpu_ns if of_cpu else each.end_ns - each.begin_ns
        if took_ns is None:
            return None
        costs.append(took_ns / max(each.count, 1))
    return sorted(costs)[len(costs) // 10] if costs else None
