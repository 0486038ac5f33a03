"""Whether two series of one run go together: a rank correlation, tested by shifting time.

Calls near in time resemble each other, so a test for independent values finds something where
nothing is: intervals by Fisher's formula excluded 0 in 9 to 35 % of such cases. Here one series
is shifted against the other around the run (the last calls come before the first), by every
possible number of calls. Each series keeps its own bursts, and only what ties the two together is
lost. So the correlations of the shifted series show what chance alone makes of such series.

Example: a correlation of 0.3, where 95 of 100 shifts are within 0.1: the interval is about 0.2 to
0.39. Where 95 of 100 are within 0.4, it is -0.11 to 0.62: nothing is shown.

The shift does not protect against two drifts: what grows over the whole run goes with everything
else that does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.stats.student import tail

__all__ = ["FEWEST", "Shifted", "shift_test"]

FEWEST = 40
"""Fewer values than these tell nothing: with so few shifts no correlation stands out."""

_LEVEL = 0.05
_ALMOST_ONE = 1 - 1e-12


class Shifted(NamedTuple):
    """A correlation and how sure it is.

    Args:
        effect: Spearman's rank correlation, -1 to 1.
        low: lower end of its interval, high: upper end (95 %).
        p: share of all shifts, the one by 0 among them, that correlate as much; where that is
            5 % or less, Student's t with the spread of the shifts, if it is smaller.
    """

    effect: float
    low: float
    high: float
    p: float


def shift_test(a: npt.ArrayLike, b: npt.ArrayLike) -> Shifted | None:
    """Correlate two series of one run, in the order of time.

    Returns:
        None for fewer than :data:`FEWEST` values, and for a series that never changes.
    """
    x, y = (_standard_ranks(values) for values in (a, b))
    count = len(x)
    if count < FEWEST or not (x.any() and y.any()):
        return None
    # All circular correlations at once.
    spectrum = np.fft.rfft(x) * np.conj(np.fft.rfft(y))
    shifted = np.clip(np.fft.irfft(spectrum, count) / count, -1, 1)
    effect = float(np.clip(np.dot(x, y) / count, -_ALMOST_ONE, _ALMOST_ONE))
    by_chance = np.abs(shifted)
    by_chance[0] = abs(effect)
    half = float(np.quantile(by_chance, 1 - _LEVEL, method="higher"))
    middle, width = np.arctanh(effect), np.arctanh(min(half, _ALMOST_ONE))
    # What rounding makes of equal correlations is no difference.
    p = float(np.mean(by_chance >= abs(effect) - 1e-9))
    if p <= _LEVEL:
        p = min(p, _beyond(effect, by_chance[1:]))
    return Shifted(effect, float(np.tanh(middle - width)), float(np.tanh(middle + width)), p)


def _beyond(effect: float, by_chance: npt.NDArray[np.float64]) -> float:
    """How often chance alone makes such an effect, where next to no shift does.

    The variance of the shifted correlations is that of so many independent values (Clifford,
    Richardson and Hemon, Biometrics 45, 1989), for which there is Student's t.
    """
    free = min(1 / float(np.mean(by_chance**2)) + 1, len(by_chance) + 1) - 2
    if free < 1:
        return 1.0
    t = abs(effect) * np.sqrt(free / (1 - effect**2))
    return 2 * tail(float(t), free)


def _standard_ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Ranks with mean 0 and variance 1; all 0 where the values are equal."""
    ranks = pd.Series(np.asarray(values)).rank().to_numpy(np.float64)
    if len(ranks) == 0 or ranks.max() == ranks.min():
        return np.zeros(len(ranks))
    return np.asarray((ranks - ranks.mean()) / ranks.std(), np.float64)
