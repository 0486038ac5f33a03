"""Uncertainty by bootstrap, fast enough for millions of values.

Resampling a million values a thousand times is slow, and not needed. The quantile of a bootstrap
sample is one of the sorted values, and its rank has a Beta distribution; the mean of a large
sample has a normal distribution. Only small samples are really resampled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["DRAWS", "Floats", "interval", "resampled_mean", "resampled_quantile"]

DRAWS = 2_000
"""How many bootstrap samples stand for the distribution."""

_SMALL = 2_000

Floats = npt.NDArray[np.float64]


def resampled_quantile(
    values: npt.NDArray[np.int64], share: float, random: np.random.Generator
) -> Floats:
    """The quantile of :data:`DRAWS` bootstrap samples; ``values`` must not be empty."""
    ordered = np.sort(values)
    count = len(ordered)
    # The rank of the inverted-CDF quantile, and how that of a resample scatters around it.
    rank = min(max(int(np.ceil(share * count)), 1), count)
    places = random.beta(rank, count - rank + 1, DRAWS)
    return ordered[np.minimum((places * count).astype(np.int64), count - 1)].astype(np.float64)


def resampled_mean(values: npt.NDArray[np.float64], random: np.random.Generator) -> Floats:
    """The mean of :data:`DRAWS` bootstrap samples; ``values`` must not be empty."""
    count = len(values)
    if count <= _SMALL:
        return np.asarray(values[random.integers(0, count, (DRAWS, count))].mean(axis=1))
    return random.normal(values.mean(), values.std() / np.sqrt(count), DRAWS)


def interval(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile interval."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
