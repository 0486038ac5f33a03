"""Quantiles, each of which is one of the values, and sums that do not wrap around."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["exact_sum", "quantile_name", "quantiles"]


def quantile_name(share: float) -> str:
    """``p50`` for 0.5, ``p99.9`` for 0.999."""
    return f"p{share * 100:g}"


def quantiles(values: npt.ArrayLike, *shares: float) -> dict[str, int | None]:
    """Quantiles by name.

    Args:
        values: integers, none of them null.
        shares: from 0 to 1; each answer is the smallest value that at least this share of all
            is not above (``inverted_cdf``): one that was seen, never one between two.

    Returns:
        ``{"p50": …}``; None for each where there are no values.
    """
    array = np.asarray(values, np.int64)
    if len(array) == 0:
        return {quantile_name(share): None for share in shares}
    found = np.quantile(array, shares, method="inverted_cdf")
    return {quantile_name(s): int(v) for s, v in zip(shares, found, strict=True)}


def exact_sum(values: npt.NDArray[np.int64]) -> int:
    """The sum, as large as it is: numpy's wraps around at 2**63."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFF_FFFF).sum())
