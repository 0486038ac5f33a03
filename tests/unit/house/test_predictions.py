"""How the benchmark counts predictions, on numbers made by hand."""

from __future__ import annotations

from bench.predictions import Prediction, Way, tally

NOW, BLOCK = Way(), Way("block")
MEASURED = {
    ("one", NOW): {"retake_p50_ns": 100.0, "calls_per_s": 1_000.0, "handoffs": 0.0},
    ("one", BLOCK): {"retake_p50_ns": 10.0, "calls_per_s": 4_000.0, "handoffs": 1.0},
    ("two", NOW): {"retake_p50_ns": 150.0, "calls_per_s": 500.0, "handoffs": 0.0},
    ("two", BLOCK): {"retake_p50_ns": 12.0, "calls_per_s": 2_100.0, "handoffs": 1.0},
}


def said(column: str, value: float | None, workload: str = "one", way: Way = BLOCK) -> Prediction:
    return Prediction(workload, NOW if way == BLOCK else BLOCK, way, column, value)


def counted(*predictions: Prediction) -> tuple[int, int, int, int]:
    found = tally(predictions, MEASURED)
    return found["hits"], found["shown"], found["withheld"], found["baseline_hits"]


def test_within_a_quarter_is_a_hit_and_what_is_withheld_is_no_miss() -> None:
    # By the other workload it would be 12: within 25 % of 10.
    assert counted(said("retake_p50_ns", 12.5)) == (1, 1, 0, 1)
    assert counted(said("retake_p50_ns", 12.6)) == (0, 1, 0, 1)
    assert counted(said("retake_p50_ns", None)) == (0, 0, 1, 0)


def test_what_is_no_latency_has_a_ratio_as_its_baseline() -> None:
    """The other workload made 4.2 times the calls: 4,200 for 1,000."""
    assert counted(said("calls_per_s", 9_000)) == (0, 1, 0, 1)
    # Of the second: 4 times 500, for 2,100.
    assert counted(said("calls_per_s", 2_000, "two")) == (1, 1, 0, 1)


def test_where_nothing_is_and_nothing_was_said_nothing_is_counted() -> None:
    assert counted(said("handoffs", 0, way=NOW), said("handoffs", None, way=NOW)) == (0, 0, 0, 0)
    # The other workload says none, and is right.
    assert counted(said("handoffs", 0.5, way=NOW)) == (0, 1, 0, 1)
    # Nor where no run was made.
    assert counted(said("retake_p99_ns", 5)) == (0, 0, 0, 0)
