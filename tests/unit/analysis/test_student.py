"""Student's t and Welch's test, against SciPy's and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats.student import quantile, tail, welch

FREE = (1.0, 1.7, 4.0, 19.0, 130.5, 1e6)


@pytest.mark.parametrize("df", FREE)
@pytest.mark.parametrize("t", [-40.0, -2.228, 0.0, 0.3, 2.228, 12.0, 1e6, math.inf])
def test_the_tail_is_scipy_s(t: float, df: float) -> None:
    assert tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-9, abs=1e-250)


@pytest.mark.parametrize("df", FREE)
@pytest.mark.parametrize("p", [0.0004, 0.025, 0.5, 0.8, 0.975, 0.99975])
def test_the_quantile_is_scipy_s(p: float, df: float) -> None:
    assert quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0, 4.0, 8.0, 9.0], [3.0, 5.0, 6.0]),
        ([1.0, 1.1], [2.0, 2.5]),
        ([5.0, 4.0, 6.0], [1.0, 1.1, 1.2, 0.9]),
    ],
)
def test_welch_s_test_is_scipy_s(x: list[float], y: list[float]) -> None:
    own, a, b = welch(np.array(x), np.array(y)), np.array(x), np.array(y)
    theirs = stats.ttest_ind(b, a, equal_var=False)
    assert own.df == pytest.approx(theirs.df)
    assert own.apart() == pytest.approx(theirs.pvalue)
    assert own.interval(0.95) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    above = stats.ttest_ind(b, a, equal_var=False, alternative="greater").pvalue
    assert own.above() == pytest.approx(above)


def test_by_hand() -> None:
    """Means 2 and 5, variances 1 and 8/3, three and four values: of the error² 1/3 and 2/3."""
    own = welch(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 5.0, 7.0]))
    of_x, of_y = 1 / 3, 8 / 3 / 4
    assert own.difference == 3
    assert own.error == pytest.approx(1)
    assert own.df == pytest.approx(1 / (of_x**2 / 2 + of_y**2 / 3))
