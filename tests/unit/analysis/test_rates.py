"""Events a second of two traces made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.stats.rates import rates
from analysis.stats.verdict import DIFFERENCE
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


def test_what_one_side_has_and_the_other_has_not(tmp_path: Path) -> None:
    """Three runs a side, a little apart: the largest difference first."""
    a = [
        run(reads=400 + n, polls=1000 + n, retakes=200 + n).write(tmp_path, f"a{n}")
        for n in (0, 2, 4)
    ]
    b = [
        run(reads=400 + n, retakes=600 + n, signals=300 + n).write(tmp_path, f"b{n}")
        for n in (0, 2, 4)
    ]
    table = rates(a, b)
    assert tuple(table.columns) == DIFFERENCE.names
    # 501 fewer, 200 more, 151 more, the same; a read and a poll are one call each.
    assert table["figure"].tolist() == [
        "syscall.poll",
        "runtime.retake.sysmon",
        "signal.SIGURG.deliver",
        "syscall.read",
    ]
    assert table["a"].tolist() == pytest.approx([501, 101, 0, 201], rel=1e-3)
    assert table["b"].tolist() == pytest.approx([0, 301, 151, 201], rel=1e-3)
    assert table["verdict"].tolist() == ["lower", "higher", "higher", "same"]
    assert table["ratio"].isna().tolist() == [True, False, True, False]


def test_one_run_each_is_no_verdict(tmp_path: Path) -> None:
    table = rates([run(reads=1).write(tmp_path, "a")], [run(reads=900).write(tmp_path, "b")])
    assert table["verdict"].tolist() == ["none"]


def test_two_empty_traces(tmp_path: Path) -> None:
    empty = Scene(end_ns=US).write(tmp_path)
    assert len(rates([empty], [empty])) == 0
