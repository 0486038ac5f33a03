"""Whether runs of two kinds differ: one design for every command that says so.

- **The unit is a run.** Calls within one run are not independent, and two runs of the same program
  differ by more than chance within each: intervals from single calls call more than half of all
  figures different where nothing has changed. A run gives one number for each figure.
- **The test** is Welch's on logarithms, two-sided: what changes a latency changes it by a factor,
  and the two kinds may scatter differently. Where a value is 0 or less it is Welch's on the
  values.
- **The primary figure** is the first, the one to act on: it is tested at 5 % by itself. All others
  are one family, corrected by Holm's method. So with nothing changed the primary figure is called
  different in at most 5 % of the comparisons, and any figure in at most 10 %.
- **One run of each gives no verdict**, whatever the figures look like. The least change that five
  runs of each would show is estimated from how far such a run varies within itself, in blocks of
  time that are longer than what is measured.
- **"same"** means: no difference was found, and one that doubles or halves the figure would have
  been found (in four of five cases). If even that would have been missed, the verdict is "none".

Example: a has 100, 104 and 98 µs, b has 121, 118 and 125 µs. The ratio of the geometric means is
1.205, its 95 % interval 1.14 to 1.27, p 0.001: "higher".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import Field, Frame
from analysis.stats.student import quantile, welch

__all__ = [
    "DIFFERENCE",
    "FEW",
    "LEVEL",
    "VERDICTS",
    "apart",
    "detectable",
    "holm",
    "judge",
    "p_above",
]

VERDICTS = ("lower", "higher", "same", "none")

DIFFERENCE = Frame(
    "difference",
    "one figure of the runs of two sides",
    (
        Field("figure", "what is compared; the first is the primary one", "str"),
        Field(
            "a",
            "geometric mean of the first side's runs (mean, where one is not above 0)",
            "float",
        ),
        Field("b", "the same of the second side", "float"),
        Field("a_runs", "runs of the first side that have the figure"),
        Field("b_runs", "runs of the second side that have it"),
        Field("ratio", "b / a; null where a value is not above 0", "float"),
        Field("ratio_low", "lower end of its 95 % interval; null with one run a side", "float"),
        Field("ratio_high", "upper end", "float"),
        Field("p", "of Welch's test, by itself", "float"),
        Field("p_holm", "the same, corrected for all but the primary figure", "float"),
        Field(
            "detectable",
            "the least change, as a factor less 1, that these runs show in four of five cases",
            "float",
        ),
        Field("verdict", "b against a: p_holm below 0.05, or not", words=VERDICTS),
        Field("why", "why there is no verdict", "str"),
    ),
)

FEW = 5
"""Runs a side that are a good beginning; what they would show is told where there are fewer."""

LEVEL = 0.05
"""How often something may be called different where nothing is."""

_POWER = 0.8
_DOUBLED = 1.0
_APART = 3.5

Floats = npt.NDArray[np.float64]
Values = Mapping[str, float | None]


def judge(
    a: Sequence[Values], b: Sequence[Values], figures: Sequence[str], primary: bool = True
) -> pd.DataFrame:
    """Compare two sides.

    Args:
        a: the figures of each run of the first side; None or absent where it has none.
        b: the same of the second side.
        figures: which to compare, the primary one first.
        primary: whether there is one; else all figures are one family.

    Returns:
        A DataFrame of :data:`DIFFERENCE`, a row for each figure, in their order.
    """
    pairs = [(_known(a, name), _known(b, name)) for name in figures]
    first = 1 if primary else 0
    family = max(sum(len(x) > 1 and len(y) > 1 for x, y in pairs[first:]), 1)
    rows = [_compare(x, y, 1 if at < first else family) for at, (x, y) in enumerate(pairs)]
    ps = [row["p"] for row in rows]
    corrected = [*ps[:first], *holm(ps[first:])]
    columns: dict[str, list[object]] = {name: [] for name in DIFFERENCE.names}
    for name, row, p_holm in zip(figures, rows, corrected, strict=True):
        verdict, why = _verdict(row, p_holm)
        told: dict[str, object] = {**row, "figure": name, "p_holm": p_holm, "why": why}
        told["verdict"] = VERDICTS.index(verdict)
        for column, values in columns.items():
            values.append(told[column])
    return DIFFERENCE.finish(
        {
            f.name: np.array(columns[f.name], object)
            if f.type == "str" and not f.words
            else np.array(columns[f.name], np.float64 if f.type == "float" else np.int64)
            for f in DIFFERENCE.fields
        }
    )


def p_above(values: Sequence[float], limits: Sequence[float], factor: float = 1.0) -> float | None:
    """How often chance alone lifts one side's values above ``factor`` times the other's so far.

    Returns:
        p of the one-sided test; None with fewer than two runs of a side: there is no saying.
    """
    if min(len(values), len(limits)) < 2:
        return None
    x, y = np.array(limits, np.float64) * factor, np.array(values, np.float64)
    if min(x.min(), y.min()) > 0:
        x, y = np.log(x), np.log(y)
    if _spread(x) == _spread(y) == 0:
        return float(y.mean() <= x.mean())
    return welch(x, y).above()


def apart(values: Sequence[float | None]) -> list[bool]:
    """Which runs stand apart from the others of their side, and want a look.

    The modified z-score (Iglewicz and Hoaglin) of the logarithms is above 3.5; with fewer than
    five runs none is.
    """
    known = np.array([v for v in values if v is not None and v > 0], np.float64)
    if len(known) < FEW:
        return [False] * len(values)
    middle = np.median(np.log(known))
    scatter = float(np.median(np.abs(np.log(known) - middle)))
    if scatter == 0:
        return [False] * len(values)
    return [
        v is not None and v > 0 and bool(0.6745 * abs(math.log(v) - middle) / scatter > _APART)
        for v in values
    ]


def detectable(noise: float, runs: int = FEW, figures: int = 1) -> float:
    """The least change, as a factor less 1, that so many runs a side show in four of five cases.

    Args:
        noise: standard deviation of a run's logarithm.
        runs: on each side.
        figures: in the family.
    """
    return _least(noise * math.sqrt(2 / runs), 2 * runs - 2, figures)


def _known(runs: Sequence[Values], name: str) -> Floats:
    found = [run.get(name) for run in runs]
    return np.array([v for v in found if v is not None and math.isfinite(v)], np.float64)


def _compare(a: Floats, b: Floats, family: int) -> dict[str, float]:
    logs = bool(len(a) and len(b) and min(a.min(), b.min()) > 0)
    found = dict.fromkeys(("ratio", "ratio_low", "ratio_high", "p", "detectable"), math.nan)
    found |= {"a_runs": len(a), "b_runs": len(b)}
    found |= {"a": _mean(a, logs), "b": _mean(b, logs)}
    if logs:
        found["ratio"] = found["b"] / found["a"]
    if min(len(a), len(b)) < 2:
        return found
    x, y = (np.log(a), np.log(b)) if logs else (a, b)
    if _spread(x) == _spread(y) == 0:
        # Nothing scatters: Welch's statistic does not exist, and a difference needs no test.
        found["p"] = float(x[0] == y[0])
        found["detectable"] = 0.0
        if logs:
            found["ratio_low"] = found["ratio_high"] = found["ratio"]
        return found
    test = welch(x, y)
    found["p"] = test.apart()
    if logs:
        low, high = test.interval(1 - LEVEL)
        found["ratio_low"], found["ratio_high"] = _exp(low), _exp(high)
        found["detectable"] = _least(test.error, test.df, family)
    return found


def _verdict(row: Mapping[str, float], p_holm: float) -> tuple[str, str | None]:
    runs = (int(row["a_runs"]), int(row["b_runs"]))
    if 0 in runs:
        return "none", "no run of one side has it"
    if 1 in runs:
        return "none", "one run of a side says nothing of how runs differ"
    if p_holm < LEVEL:
        return ("higher" if row["b"] > row["a"] else "lower"), None
    if row["detectable"] > _DOUBLED:
        return "none", "the runs scatter so much that twice as much would be missed"
    return "same", None


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction; what was not tested (NaN) is not of the family."""
    tested = sorted((p, at) for at, p in enumerate(ps) if not math.isnan(p))
    found = [math.nan] * len(ps)
    largest = 0.0
    for rank, (p, at) in enumerate(tested):
        largest = max(largest, min(p * (len(tested) - rank), 1.0))
        found[at] = largest
    return found


def _least(error: float, df: float, figures: int) -> float:
    t = quantile(1 - LEVEL / 2 / figures, df) + quantile(_POWER, df)
    return _exp(t * error) - 1


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _spread(values: Floats) -> float:
    return float(values.max() - values.min())


def _mean(values: Floats, logs: bool) -> float:
    if len(values) == 0:
        return math.nan
    return float(np.exp(np.log(values).mean()) if logs else values.mean())
