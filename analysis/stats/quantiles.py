"""Quantiles, each of which is one of the values, and sums that do not wrap around.

Every quantile of the analysis is computed here, by one definition: the smallest value that at
least this share of all values is not above (``inverted_cdf``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from pandas.core.groupby import SeriesGroupBy

__all__ = ["exact_sum", "group_quantile", "quantile_name", "quantiles", "values_at"]


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
    found = values_at(array, shares)
    return {quantile_name(s): int(v) for s, v in zip(shares, found, strict=True)}


def values_at(values: npt.ArrayLike, shares: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The quantiles of integers, of which there must be some, in the order of ``shares``."""
    array = np.asarray(values, np.int64)
    return np.asarray(np.quantile(array, np.asarray(shares), method="inverted_cdf"), np.int64)


def group_quantile(groups: SeriesGroupBy[Any, Any], share: float) -> pd.Series[int]:
    """A quantile of the known integers of each group; null for a group without any."""
    name = quantile_name(share)

    def of_group(values: pd.Series[Any]) -> Any:  # noqa: ANN401 - None becomes null
        return quantiles(values.dropna(), share)[name]

    return groups.agg(of_group).astype("Int64")


def exact_sum(values: npt.NDArray[np.int64]) -> int:
    """The sum, as large as it is: numpy's wraps around at 2**63."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFF_FFFF).sum())
