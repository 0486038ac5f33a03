"""Student's t, and Welch's test for the means of two sides that scatter differently.

The tail of t is a regularized incomplete beta function, which mpmath has. SciPy has all of this in
one call, and would be a quarter of what an installation takes.

Example: of 10 degrees of freedom 2.5 % are above 2.228, so ``tail(2.228, 10)`` is 0.025 and
``quantile(0.975, 10)`` is 2.228.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import mpmath
import numpy as np
import numpy.typing as npt

__all__ = ["Welch", "quantile", "tail", "welch"]

_QUANTILES_KEPT = 4096
_FLOATS_BELOW_DF = 60
"""Floats are 20 times faster, and lose digits where there are many degrees of freedom."""
_NEAR = 1e-11
_LONGEST_LOG = 1200.0
"""Beyond this the tail is below 1e-260, which mpmath does not converge to."""


def tail(t: float, df: float) -> float:
    """How often Student's t of so many degrees of freedom (above 0) is above a value."""
    if t < 0:
        return 1 - tail(-t, df)
    if math.isinf(t) or df * math.log1p(t * t / df) > _LONGEST_LOG:
        return 0.0
    numbers = mpmath.fp if df < _FLOATS_BELOW_DF else mpmath.mp
    if t < 1:
        # Near the middle what is left of x has more digits than x.
        inner = numbers.betainc(0.5, df / 2, 0, t * t / (df + t * t), regularized=True)
        return (1 - float(inner)) / 2
    return float(numbers.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True)) / 2


@lru_cache(_QUANTILES_KEPT)
def quantile(p: float, df: float) -> float:
    """The value that Student's t is not above in a share ``p`` (0 to 1, neither) of cases."""
    if p < 0.5:
        return -quantile(1 - p, df)
    # The tail bends upwards: Newton's steps from below go up to the value and never beyond.
    t, step = NormalDist().inv_cdf(p), math.inf
    scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    while step > _NEAR * t:
        density = math.exp(scale - (df + 1) / 2 * math.log1p(t * t / df))
        step = (tail(t, df) - (1 - p)) / density
        t += step
    return t


class Welch(NamedTuple):
    """The difference of two means, as Welch's test sees it.

    Args:
        difference: of the second mean to the first.
        error: its standard error, above 0.
        df: degrees of freedom (Welch and Satterthwaite); no whole number.
    """

    difference: float
    error: float
    df: float

    def apart(self) -> float:
        """How often chance alone makes so large a difference, in either direction."""
        return 2 * tail(abs(self.difference) / self.error, self.df)

    def above(self) -> float:
        """How often chance alone lifts the second mean so far."""
        return tail(self.difference / self.error, self.df)

    def interval(self, level: float) -> tuple[float, float]:
        """The ends of the difference's interval of such a level, as 0.95."""
        half = quantile((1 + level) / 2, self.df) * self.error
        return self.difference - half, self.difference + half


def welch(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Welch:
    """Compare two sides of at least two values each, at least one of which scatters."""
    of_x, of_y = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    both = of_x + of_y
    df = both**2 / (of_x**2 / (len(x) - 1) + of_y**2 / (len(y) - 1))
    return Welch(float(y.mean() - x.mean()), math.sqrt(both), float(df))
