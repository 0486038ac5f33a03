"""How far a figure of one run varies by itself, from blocks of time.

Calls near in time resemble each other: 10,000 calls in three long bursts are three values and not
10,000. So neighbours are joined, two and two, until blocks no longer resemble their neighbours,
and the figure is computed again with each block left out (the jackknife).

What a run does not show is how far the next run differs; for that there are several runs
(:mod:`analysis.stats.verdict`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.stats.student import quantile

__all__ = ["Estimate", "block_mean", "block_noise"]

_BLOCKS = 20
_FEWEST_BLOCKS = 5
_CORRELATED = 0.2
_TAIL = 0.975

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A value, and its 95 % interval as distances: ``value - below`` to ``value + above``."""

    value: float
    below: float
    above: float


def block_mean(values: npt.ArrayLike) -> Estimate | None:
    """The mean of values in the order of time, with its interval (Student's t over blocks).

    Returns:
        None with fewer than five values.
    """
    x = np.asarray(values, np.float64)
    if len(x) < _FEWEST_BLOCKS:
        return None
    sums, counts = _blocks(x, np.ones(len(x)))
    without = (sums.sum() - sums) / (counts.sum() - counts)
    half = quantile(_TAIL, len(sums) - 1) * _jackknife(without)
    return Estimate(float(x.mean()), half, half)


def block_noise(parts: npt.ArrayLike, whole: npt.ArrayLike) -> float | None:
    """How far a share scatters within one run: the standard error of its logarithm.

    Args:
        parts: of each piece of time, in order, what is counted (lost P time).
        whole: of each piece what it is a share of (P time).

    Returns:
        None where fewer than five blocks are left, or nothing was counted.
    """
    x, y = _blocks(np.asarray(parts, np.float64), np.asarray(whole, np.float64))
    if len(x) < _FEWEST_BLOCKS or x.sum() <= 0:
        return None
    without = (x.sum() - x) / np.maximum(y.sum() - y, 1)
    if without.min() <= 0:
        return None
    return _jackknife(np.log(without))


def _blocks(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Sums over blocks that do not resemble their neighbours in ``x / y``."""
    while len(x) > _BLOCKS:
        x, y = _joined(x), _joined(y)
    while len(x) >= 2 * _FEWEST_BLOCKS and _neighbours_alike(x / np.maximum(y, 1)):
        x, y = _joined(x), _joined(y)
    return x, y


def _jackknife(without: Floats) -> float:
    """The standard error of a figure, from its values with one block left out."""
    count = len(without)
    return math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))


def _joined(values: Floats) -> Floats:
    """Neighbours added up, two and two; one that is left over goes to the last two."""
    pairs: Floats = values[: len(values) // 2 * 2].reshape(-1, 2).sum(axis=1)
    if len(values) % 2 and len(pairs):
        pairs[-1] += values[-1]
    return pairs


def _neighbours_alike(values: Floats) -> bool:
    x, y = values[:-1] - values.mean(), values[1:] - values.mean()
    power = float(((values - values.mean()) ** 2).sum())
    return power > 0 and float((x * y).sum()) / power > _CORRELATED
