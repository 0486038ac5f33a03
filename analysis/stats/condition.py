"""Conditions on a summary, for a verdict in CI: ``harm_ns.p99 > 1.1 * baseline``.

A condition without a baseline is a matter of one run. One with a baseline compares runs: it holds
only where the runs of both sides show it (:func:`analysis.stats.verdict.surely_above`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.stats.verdict import surely_above
from tracer.errors import PretakeError

__all__ = ["Condition", "parse_condition"]

_UNITS = {"": 1.0, "ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "%": 1.0}
_CONDITION = re.compile(
    r"""\s*(?P<figure>[a-z_][a-z0-9_]*(?:\.[a-z0-9_.]+)?)\s*(?P<sign>>=|<=|>|<)\s*
    (?:(?P<factor>\d+(?:\.\d+)?)\s*\*\s*(?P<scaled>baseline)
      |(?P<baseline>baseline)(?:\s*\*\s*(?P<after>\d+(?:\.\d+)?))?
      |(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ns|us|µs|ms|s|%|))\s*""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Condition:
    """A condition on a summary, for a verdict: ``harm_ns.p99 > 1.1 * baseline``.

    Args:
        figure: a number of the summary, by its keys: ``harm_ns.p99``, ``lost``.
        sign: one of ``> >= < <=``.
        limit: the number at the right, in ns where it has a unit of time.
        relative: whether ``limit`` is a factor of the baseline's figure.
    """

    figure: str
    sign: str
    limit: float
    relative: bool

    def holds(
        self, runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]] = ()
    ) -> bool | None:
        """Whether the condition is met; None where that cannot be told.

        Args:
            runs: the summary of each run. Without a baseline the condition is met if it is for
                any of them.
            baseline: the summary of each run to compare with. One run of a side cannot be
                compared: None.

        Raises:
            PretakeError: a summary has no such figure, or there is no baseline.
        """
        values = [_figure(run, self.figure) for run in runs]
        known = [value for value in values if value is not None]
        if not self.relative:
            met = [_compared(value, self.sign, self.limit) for value in known]
            return any(met) if met else None
        if not baseline:
            raise PretakeError(
                "the condition speaks of a baseline, and there is none",
                "name a second trace to compare with",
            )
        others = [_figure(run, self.figure) for run in baseline]
        limits = [value for value in others if value is not None]
        if min(len(known), len(limits)) < 2:
            return None
        if self.sign.startswith(">"):
            return surely_above(known, limits, self.limit)
        return surely_above([self.limit * value for value in limits], known)


def _compared(value: float, sign: str, limit: float) -> bool:
    return {
        ">": value > limit,
        ">=": value >= limit,
        "<": value < limit,
        "<=": value <= limit,
    }[sign]


def parse_condition(text: str) -> Condition:
    """Read a condition such as ``retake_ns.p50 > 100us`` or ``lost > 0``.

    Raises:
        PretakeError: it is none.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise PretakeError(
            f"{text!r} is no condition", "write it like 'harm_ns.p99 > 1.1 * baseline'"
        )
    if found["number"] is not None:
        limit = float(found["number"]) * _UNITS[found["unit"]]
        return Condition(found["figure"], found["sign"], limit, False)
    factor = float(found["factor"] or found["after"] or 1)
    return Condition(found["figure"], found["sign"], factor, True)


def _figure(summary: Mapping[str, Any], name: str) -> float | None:
    value: Any = summary
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise PretakeError(
                f"a summary has no figure {name!r}", "'pretake summary --json' shows those it has"
            )
        value = value[key]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise PretakeError(f"{name!r} is no number", "name one of its parts, like 'harm_ns.p99'")
    return None if value is None else float(value)
