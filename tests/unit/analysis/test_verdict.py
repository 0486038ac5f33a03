"""Verdicts over runs, on numbers whose answers were computed by hand or by permutation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from analysis.stats.blocks import block_noise
from analysis.stats.condition import Condition, outcomes, parse_condition
from analysis.stats.verdict import (
    DIFFERENCE,
    apart,
    detectable,
    judge,
    p_above,
)
from tracer.errors import PretakeError


def runs(*values: float | None, name: str = "x") -> list[dict[str, float | None]]:
    return [{name: value} for value in values]


def test_a_ratio_its_interval_and_its_p_by_hand() -> None:
    """Logarithms 1 2 3 and 3 4 5: means 2 and 4, each variance 1, so the standard error of the
    difference is sqrt(2/3) = 0.8165, and there are 4 degrees of freedom: t = 2.449, p = 0.0705
    (t table: 2.132 at 0.1, 2.776 at 0.05)."""
    a, b = runs(*np.exp([1, 2, 3])), runs(*np.exp([3, 4, 5]))
    table = judge(a, b, ["x"])
    assert tuple(table.columns) == DIFFERENCE.names
    row = table.iloc[0]
    assert (row["a_runs"], row["b_runs"]) == (3, 3)
    assert row["ratio"] == pytest.approx(np.exp(2))
    assert row["ratio_low"] == pytest.approx(np.exp(2 - 2.7764 * 0.81650), rel=1e-4)
    assert row["ratio_high"] == pytest.approx(np.exp(2 + 2.7764 * 0.81650), rel=1e-4)
    assert row["p"] == pytest.approx(0.0705, abs=5e-4)
    # (2.7764 + 0.9410) standard errors: t of 4 degrees at 0.975 and at 0.8.
    assert row["detectable"] == pytest.approx(np.exp((2.7764 + 0.9410) * 0.81650) - 1, rel=1e-3)
    # Not below 0.05, and a factor of 20 could have been missed.
    assert row["verdict"] == "none"


def test_lower_higher_and_same() -> None:
    quiet = [100.0, 101.0, 99.0, 100.5, 99.5]
    table = judge(runs(*quiet), runs(*(v * 1.2 for v in quiet)), ["x"])
    assert table.iloc[0]["verdict"] == "higher"
    table = judge(runs(*(v * 1.2 for v in quiet)), runs(*quiet), ["x"])
    assert table.iloc[0]["verdict"] == "lower"
    row = judge(runs(*quiet), runs(*reversed(quiet)), ["x"]).iloc[0]
    assert (row["verdict"], row["ratio"]) == ("same", pytest.approx(1.0))
    assert row["detectable"] < 0.02


def test_one_run_of_a_side_is_no_ground() -> None:
    for a, b in ((runs(1), runs(50)), (runs(1), runs(50, 51, 52)), (runs(1, 2), runs(None))):
        row = judge(a, b, ["x"]).iloc[0]
        assert row["verdict"] == "none"
        assert row["why"]
        assert row.isna()["p"]


def test_what_is_0_is_compared_without_a_ratio() -> None:
    row = judge(runs(0, 0, 0, 0), runs(5, 6, 5, 6), ["x"]).iloc[0]
    assert row["verdict"] == "higher"
    assert row.isna()["ratio"]
    assert judge(runs(0, 0), runs(0, 0), ["x"]).iloc[0]["verdict"] == "same"
    assert judge(runs(0, 0), runs(3, 3), ["x"]).iloc[0]["verdict"] == "higher"


def test_the_primary_figure_stands_alone_and_the_rest_are_one_family() -> None:
    """Three others with p 0.0705 by themselves: Holm makes 3 times that of the first."""
    logs = (np.exp([1, 2, 3]), np.exp([3, 4, 5]))
    a, b = (
        [dict.fromkeys("wxyz", value) for value in side]  # the same numbers for each figure
        for side in logs
    )
    table = judge(a, b, list("wxyz")).set_index("figure")
    p = table["p"].iloc[0]
    assert table["p_holm"].tolist() == pytest.approx([p, 3 * p, 3 * p, 3 * p])
    alone = judge(a, b, list("wxyz"), primary=False)
    assert alone["p_holm"].tolist() == pytest.approx([4 * p] * 4)


def test_the_p_is_near_that_of_all_permutations() -> None:
    """A second witness: of the 252 ways to part ten runs, how many differ at least as much."""
    a = [10.0, 11.0, 9.5, 10.4, 10.2]
    b = [10.9, 11.5, 10.6, 11.8, 10.8]
    every = np.log([*a, *b])
    told = abs(np.log(b).mean() - np.log(a).mean())
    as_far = 0
    for chosen in combinations(range(10), 5):
        mask = np.zeros(10, bool)
        mask[list(chosen)] = True
        as_far += abs(every[mask].mean() - every[~mask].mean()) >= told - 1e-12
    p = judge(runs(*a), runs(*b), ["x"])["p"].iloc[0]
    assert p == pytest.approx(as_far / 252, abs=0.02)


def test_false_alarms_are_as_many_as_promised() -> None:
    """400 comparisons of nothing: the primary figure 5 %, any of 11 at most 10 %."""
    random = np.random.default_rng(3)
    names = [f"f{i}" for i in range(11)]
    primary = any_of_them = 0
    for _ in range(400):
        values = np.exp(random.normal(10, 0.3, (10, 11)))
        rows = [dict(zip(names, map(float, line), strict=True)) for line in values]
        verdicts = judge(rows[:5], rows[5:], names)["verdict"].isin(["lower", "higher"])
        primary += bool(verdicts.iloc[0])
        any_of_them += bool(verdicts.any())
    # Binomial(400): 5 % is 20 -/+ 3 x 4.4, 10 % is 40 -/+ 3 x 6.
    assert primary <= 33
    assert any_of_them <= 58


def test_what_would_be_shown_is_shown_in_four_of_five_cases() -> None:
    random = np.random.default_rng(5)
    factor = 1 + detectable(0.1, 10)
    found = 0
    for _ in range(400):
        a, b = np.exp(random.normal(3, 0.1, 10)), np.exp(random.normal(3, 0.1, 10)) * factor
        found += judge(runs(*a), runs(*b), ["x"])["verdict"].iloc[0] == "higher"
    assert 296 <= found <= 344


def test_a_run_that_stands_apart_is_named() -> None:
    assert apart([10, 11, 10.5, 9.8, 40]) == [False, False, False, False, True]
    assert apart([10, 11, 40]) == [False] * 3
    assert apart([5, 5, 5, 5, 5]) == [False] * 5
    assert apart([10, 11, None, 10.5, 9.8, 40])[2] is False


def test_noise_within_a_run() -> None:
    """Blocks of 40, 60, 40, 60 … of 100: leaving one out of ten moves the share by 1/9 of 10."""
    parts = [40, 60] * 5
    without = np.log(np.array([(500 - part) / 900 for part in parts]))
    by_hand = np.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
    assert block_noise(parts, [100] * 10) == pytest.approx(by_hand)
    assert block_noise([0] * 10, [100] * 10) is None
    assert block_noise([1, 2], [3, 4]) is None


def test_blocks_grow_until_neighbours_differ() -> None:
    """Ten halves, each 16 pieces long: pieces of one half are alike, so they become blocks."""
    halves = np.repeat([10.0, 90.0] * 5, 16)
    longer = block_noise(halves, np.full(160, 100.0))
    assert longer is not None
    # The same pieces in any order.
    shuffled = np.random.default_rng(1).permutation(halves)
    independent = block_noise(shuffled, np.full(160, 100.0))
    assert independent is not None
    assert longer > 2 * independent


def test_p_above_is_one_sided() -> None:
    """Logarithms 1 2 3 below 3 4 5: half of the two-sided 0.0705."""
    low, high = np.exp([1, 2, 3]).tolist(), np.exp([3, 4, 5]).tolist()
    assert p_above(high, low) == pytest.approx(0.03525, abs=3e-4)
    assert p_above(low, high) == pytest.approx(1 - 0.03525, abs=3e-4)
    assert p_above(high, low, np.exp(2)) == pytest.approx(0.5)
    assert p_above(high[:1], low) is None
    assert (p_above([3, 3], [2, 2]), p_above([2, 2], [2, 2])) == (0, 1)


def met(
    text: str, runs_: Sequence[dict[str, object]], baseline: Sequence[dict[str, object]] = ()
) -> bool | None:
    """What becomes of one condition."""
    (outcome,) = outcomes([parse_condition(text)], runs_, baseline)
    return outcome.met


def summary(p99: float | None) -> dict[str, object]:
    return {"lost": 3, "harm_ns": {"p99": p99, "p50": None}, "policy": "block"}


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("harm_ns.p99 > 1.1 * baseline", Condition("harm_ns.p99", ">", 1.1, True)),
        ("retake_ns.p50>=baseline", Condition("retake_ns.p50", ">=", 1.0, True)),
        ("retake_ns.p50 < baseline * 0.2", Condition("retake_ns.p50", "<", 0.2, True)),
        ("hold_ns.max > 20ms", Condition("hold_ns.max", ">", 20e6, False)),
        ("retake_ns.p50 > 150 us", Condition("retake_ns.p50", ">", 150e3, False)),
        ("lost > 0", Condition("lost", ">", 0.0, False)),
    ],
)
def test_conditions_are_read(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text", ["", "harm_ns.p99", "harm > ", "lost > two", "1 < lost", "a>b; c"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(PretakeError, match="is no condition"):
        parse_condition(text)


def test_a_condition_without_a_baseline_is_a_matter_of_one_run() -> None:
    assert met("lost > 0", [summary(1)]) is True
    assert met("harm_ns.p99 > 105", [summary(100), summary(110)]) is True
    assert met("harm_ns.p99 > 200", [summary(100), summary(110)]) is False
    assert met("harm_ns.p50 > 0", [summary(1)]) is None
    for text in ("harm_ns > 0", "policy > 0", "nothing.p50 > 0"):
        with pytest.raises(PretakeError):
            met(text, [summary(1)])


def test_a_condition_with_a_baseline_is_judged_over_runs() -> None:
    low = [summary(v) for v in (100, 102, 99, 101)]
    high = [summary(v) for v in (120, 123, 119, 122)]
    for text, runs_, base, told in (
        ("harm_ns.p99 > 1.1 * baseline", high, low, True),
        ("harm_ns.p99 > 1.3 * baseline", high, low, False),
        ("harm_ns.p99 > baseline", low, low, False),
        ("harm_ns.p99 < 0.9 * baseline", low, high, True),
        ("harm_ns.p99 < 0.8 * baseline", low, high, False),
        ("harm_ns.p99 > baseline", high[:1], low[:1], None),
    ):
        assert met(text, runs_, base) is told, text
    with pytest.raises(PretakeError, match="baseline"):
        met("lost > baseline", high)


def test_several_conditions_are_one_family() -> None:
    """p 0.03525 by itself is below 0.05; of two such conditions neither is."""
    low, high = ([summary(float(np.exp(v))) for v in logs] for logs in ((1, 2, 3), (3, 4, 5)))
    text = "harm_ns.p99 > baseline"
    (alone,) = outcomes([parse_condition(text)], high, low)
    assert (alone.met, alone.p) == (True, pytest.approx(0.03525, abs=3e-4))
    both = [parse_condition(text), parse_condition("harm_ns.p99 >= baseline")]
    assert [(o.met, o.p) for o in outcomes(both, high, low)] == [
        (False, pytest.approx(0.0705, abs=6e-4))
    ] * 2


@pytest.mark.parametrize(
    ("texts", "at_most"),
    [
        # Binomial(400): 5 % is 20 -/+ 3 x 4.4.
        (("harm_ns.p99 > baseline",), 33),
        (("harm_ns.p99 > baseline", "harm_ns.p99 < baseline", "lost > baseline"), 33),
        # What is no longer than 1.1 times as long is no alarm either.
        (("harm_ns.p99 > 1.1 * baseline",), 20),
    ],
)
def test_identical_runs_hardly_ever_meet_a_condition(texts: tuple[str, ...], at_most: int) -> None:
    """400 times the same program, five runs a side, whose p99 varies by 30 % from run to run."""
    random = np.random.default_rng(4)
    conditions = [parse_condition(text) for text in texts]
    alarms = 0
    for _ in range(400):
        sides = [[summary(float(v)) for v in np.exp(random.normal(10, 0.3, 5))] for _ in "ab"]
        alarms += any(o.met for o in outcomes(conditions, *sides))
    assert alarms <= at_most
