"""One definition of a quantile: a value that was seen, and at least that share is not above."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.quantiles import group_quantile, quantiles, values_at


@pytest.mark.parametrize(
    ("count", "share", "answer"),
    [
        # The p99 of ten values is the largest: nine of ten are less than 99 %.
        (10, 0.99, 10),
        (100, 0.99, 99),
        (200, 0.99, 198),
        # Of an even number the lower of both middles, and none between them.
        (4, 0.5, 2),
        (5, 0.5, 3),
        (3, 0.0, 1),
        (3, 1.0, 3),
    ],
)
def test_quantiles_by_hand(count: int, share: float, answer: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, count + 1))
    assert list(quantiles(values, share).values()) == [answer]
    assert values_at(values, [share]).tolist() == [answer]


def test_of_groups_it_is_the_same() -> None:
    rows = pd.DataFrame(
        {
            "group": [*"a" * 10, "b", "b", "c"],
            "ns": pd.array([*range(1, 11), 7, None, None], "Int64"),
        }
    )
    found = group_quantile(rows.groupby("group")["ns"], 0.99)
    assert found.fillna(-1).tolist() == [10, 7, -1]
    assert quantiles([], 0.5) == {"p50": None}
