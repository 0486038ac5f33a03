"""Events a second of two traces made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.stats.diff import DIFFERENCE
from analysis.stats.rates import rates
from tests.unit.analysis.scene import POLL, READ, US, Scene

SECOND = 1_000_000


def run(reads: int, polls: int = 0, retakes: int = 0, signals: int = 0) -> Scene:
    """A capture of two seconds, its events evenly apart."""
    scene = Scene(end_ns=2 * SECOND * US)
    for nr, count in ((READ, reads), (POLL, polls)):
        for i in range(count):
            at = i * 2 * SECOND / count
            scene.exit(at + 1, 11, at, nr=nr)
    for i in range(retakes):
        scene.runtime(i * 2 * SECOND / retakes, "retake", 19, 0, reason="sysmon")
    for i in range(signals):
        scene.signal(i * 2 * SECOND / signals, "deliver", 11)
    return scene


def test_what_one_run_has_and_the_other_has_not(tmp_path: Path) -> None:
    a = run(reads=400, polls=1000, retakes=200).write(tmp_path, "a")
    b = run(reads=400, retakes=600, signals=300).write(tmp_path, "b")
    table = rates(a, b)
    assert tuple(table.columns) == DIFFERENCE.names
    # The largest difference first: 500 fewer, 200 more, 150 more, the same.
    assert table["figure"].tolist() == [
        "syscall.poll",
        "runtime.retake.sysmon",
        "signal.SIGURG.deliver",
        "syscall.read",
    ]
    assert table["a"].tolist() == [500, 100, 0, 200]
    assert table["b"].tolist() == [0, 300, 150, 200]
    assert table["verdict"].tolist() == ["lower", "higher", "higher", "same"]
    ratios = table["ratio"].tolist()
    assert ratios[:2] == [0, pytest.approx(3)]
    assert table["ratio"].isna().tolist() == [False, False, True, False]


def test_noise_is_not_called_a_difference(tmp_path: Path) -> None:
    # 20 events in one burst against 30 in three: either could be the other.
    a, b = Scene(end_ns=2 * SECOND * US), Scene(end_ns=2 * SECOND * US)
    for i in range(20):
        a.runtime(SECOND + i, "retake", 19, 0, reason="sysmon")
    for i in range(30):
        b.runtime(i % 3 * SECOND / 2 + i, "retake", 19, 0, reason="sysmon")
    (row,) = rates(a.write(tmp_path, "a"), b.write(tmp_path, "b")).to_dict("records")
    assert (row["a"], row["b"]) == (10, 15)
    assert row["a_low"] == 0
    assert row["verdict"] == "same"


def test_the_same_seed_gives_the_same_intervals(tmp_path: Path) -> None:
    a = run(reads=37).write(tmp_path, "a")
    b = run(reads=41).write(tmp_path, "b")
    assert rates(a, b, seed=3).equals(rates(a, b, seed=3))


def test_two_empty_traces(tmp_path: Path) -> None:
    empty = Scene(end_ns=US).write(tmp_path)
    assert len(rates(empty, empty)) == 0
