"""Conditions on a summary, for a verdict in CI: ``harm_ns.p99 > 1.1 * baseline``.

A condition without a baseline is a matter of one run. One with a baseline compares runs: it holds
only where the runs of both sides show it, by the one-sided test of :mod:`analysis.stats.verdict`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.stats.verdict import LEVEL, holm, p_above
from tracer.errors import PretakeError

__all__ = ["Condition", "Outcome", "outcomes", "parse_condition"]

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

    def met_by_one(self, runs: Sequence[Mapping[str, Any]]) -> bool | None:
        """Whether a condition without a baseline is met by any run; None where none tells."""
        met = [_compared(value, self.sign, self.limit) for value in _values(runs, self.figure)]
        return any(met) if met else None

    def p(
        self, runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
    ) -> float | None:
        """How often chance alone meets a condition with a baseline so far.

        Returns:
            p of the one-sided test over runs; None where fewer than two runs of a side have the
            figure.

        Raises:
            PretakeError: a summary has no such figure, or there is no baseline.
        """
        if not baseline:
            raise PretakeError(
                "the condition speaks of a baseline, and there is none",
                "name a second trace to compare with",
            )
        known, limits = (_values(side, self.figure) for side in (runs, baseline))
        if self.sign.startswith(">"):
            return p_above(known, limits, self.limit)
        return p_above([self.limit * value for value in limits], known)


@dataclass(frozen=True)
class Outcome:
    """What became of one condition.

    Args:
        met: whether it holds; None where there is no verdict.
        p: of its test, corrected for the number of conditions; None without a test.
    """

    met: bool | None
    p: float | None = None


def outcomes(
    conditions: Sequence[Condition],
    runs: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]] = (),
) -> list[Outcome]:
    """Judge conditions together, so that identical sides meet any of them in 5 % of cases.

    Args:
        conditions: as they were asked for.
        runs: the summary of each run.
        baseline: the summary of each run to compare with.

    Returns:
        An outcome for each. One without a baseline is met if it is for any of the runs. Those
        with one are tested over runs, as one family (Holm).

    Raises:
        PretakeError: a summary has no such figure, or there is no baseline.
    """
    ps = [c.p(runs, baseline) if c.relative else None for c in conditions]
    corrected = holm([math.nan if p is None else p for p in ps])
    return [
        Outcome(condition.met_by_one(runs))
        if not condition.relative
        else Outcome(None)
        if p is None
        else Outcome(p_holm < LEVEL, p_holm)
        for condition, p, p_holm in zip(conditions, ps, corrected, strict=True)
    ]


def _values(runs: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    found = [_figure(run, name) for run in runs]
    return [value for value in found if value is not None]


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
