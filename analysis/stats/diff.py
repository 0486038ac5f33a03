"""A against B: how figures differ, how sure that is, and a verdict for CI.

Intervals are bootstrap intervals of independent episodes; episodes of one run resemble each
other, and two runs differ by more than chance within each, so a difference that matters shows
in repeated runs too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.schema import Field, Frame
from analysis.stats.quantiles import quantile_name
from analysis.stats.resample import Floats, interval, resampled_mean, resampled_quantile
from tracer.errors import PretakeError

__all__ = ["DIFFERENCE", "Condition", "diff", "parse_condition", "tell_difference"]

DIFFERENCE = Frame(
    "difference",
    "one figure in two traces",
    (
        Field("figure", "what is compared, as in the summary: ``retake_ns.p50``", "str"),
        Field("a", "its value in the first trace", "float"),
        Field("a_low", "lower end of its 95 % interval", "float"),
        Field("a_high", "upper end", "float"),
        Field("b", "its value in the second trace", "float"),
        Field("b_low", "lower end of its 95 % interval", "float"),
        Field("b_high", "upper end", "float"),
        Field("ratio", "b / a; null if a is 0", "float"),
        Field("ratio_low", "lower end of its 95 % interval", "float"),
        Field("ratio_high", "upper end", "float"),
        Field(
            "verdict",
            "whether the interval of the ratio leaves 1 out",
            words=(
                "lower",
                "higher",
                "same",
                "unknown",
            ),
        ),
    ),
)

_FIGURES = tuple(
    (column, share)
    for column in ("retake_ns", "hold_ns", "harm_ns")
    for share in (0.5, 0.9, 0.99, None)
)
_VERDICTS = DIFFERENCE.fields[-1].words


def diff(a: pd.DataFrame, b: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Compare the episodes of two traces.

    Args:
        a: episodes (:data:`analysis.schema.EPISODES`) to compare with.
        b: episodes to compare.
        seed: of the resampling; the same seed gives the same intervals.

    Returns:
        A DataFrame of :data:`DIFFERENCE`: quantiles and mean of latency, hold and harm, in ns.
    """
    random = np.random.default_rng(seed)
    rows = []
    for column, share in _FIGURES:
        name = "mean" if share is None else quantile_name(share)
        values = [_trusted(frame, column) for frame in (a, b)]
        rows.append(
            {"figure": f"{column}.{name}", **_compare(values[0], values[1], share, random)}
        )
    table = pd.DataFrame(rows)
    return DIFFERENCE.finish({name: table[name].to_numpy() for name in DIFFERENCE.names})


def _trusted(episodes: pd.DataFrame, column: str) -> np.ndarray:
    rows = episodes.loc[~episodes["lost_overlap"], column].dropna()
    return rows.to_numpy(np.int64)


def _compare(
    a: np.ndarray, b: np.ndarray, share: float | None, random: np.random.Generator
) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(DIFFERENCE.names[1:-1], np.nan)
    found["verdict"] = _VERDICTS.index("unknown")
    draws = {}
    for name, values in (("a", a), ("b", b)):
        if len(values) == 0:
            continue
        if share is None:
            found[name] = float(values.mean())
            draws[name] = resampled_mean(values.astype(np.float64), random)
        else:
            found[name] = float(np.quantile(values, share, method="inverted_cdf"))
            draws[name] = resampled_quantile(values, share, random)
        found[f"{name}_low"], found[f"{name}_high"] = interval(draws[name])
    if len(draws) < 2:
        return found
    if found["a"] == found["b"] == 0:
        found["verdict"] = _VERDICTS.index("same")
        return found
    tell_difference(found, draws["a"], draws["b"])
    return found


def tell_difference(found: dict[str, Any], a: Floats, b: Floats) -> None:
    """Fill in the verdict and the ratio of one figure.

    Args:
        found: the figure's row, with its values ``a`` and ``b``; is changed.
        a: the figure in resamples of the first trace.
        b: the figure in as many resamples of the second one.
    """
    low, high = interval(b - a)
    word = "lower" if high < 0 else "higher" if low > 0 else "same"
    found["verdict"] = _VERDICTS.index(word)
    # Where a may be 0 there is no ratio; the difference still has a sign.
    if found["a"] > 0 and (a > 0).all():
        found["ratio"] = found["b"] / found["a"]
        found["ratio_low"], found["ratio_high"] = interval(b / a)


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
        self, summary: Mapping[str, Any], baseline: Mapping[str, Any] | None = None
    ) -> bool | None:
        """Whether the condition is met; None where a figure is not known.

        Raises:
            PretakeError: the summary has no such figure, or there is no baseline.
        """
        value = _figure(summary, self.figure)
        limit: float | None = self.limit
        if self.relative:
            if baseline is None:
                raise PretakeError(
                    "the condition speaks of a baseline, and there is none",
                    "name a second trace to compare with",
                )
            other = _figure(baseline, self.figure)
            limit = None if other is None else self.limit * other
        if value is None or limit is None:
            return None
        return {
            ">": value > limit,
            ">=": value >= limit,
            "<": value < limit,
            "<=": value <= limit,
        }[self.sign]


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
