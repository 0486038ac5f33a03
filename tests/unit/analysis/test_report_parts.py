"""What the report says beyond episodes: preemptions, and the run under other policies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.report import figures, render, tables
from analysis.report.material import gather
from analysis.whatif.predict import WHATIF
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_budget import look
from tests.unit.analysis.test_pressure import one_p
from tests.unit.analysis.test_report import HOSTILE
from tests.unit.analysis.test_summary import ten_calls
from tracer.trace.reader import Trace


def preempted(**manifest: object) -> Scene:
    """Two requests: stopped 40 µs after it was asked (5 + 15 + 20), and refused."""
    scene = ten_calls(**manifest)
    for at, end, how in (
        (12_000, "preempted", "async"),
        (13_000, "preempt_refused", "not_wanted"),
    ):
        scene.runtime(at, "preempt_request", 19, 0, target_tid=11, reason="time_slice", goid=110)
        scene.signal(at + 5, "tgkill", 11, sender_tid=19)
        scene.signal(at + 20, "deliver", 11)
        scene.runtime(at + 40, end, 11, 0, goid=110, reason=how)
    return scene


def predicted(trace: Trace) -> pd.DataFrame:
    """The capture, a policy that helps, and one that never ends."""
    del trace
    return WHATIF.finish(
        {
            "policy": pd.Series(["sysmon", HOSTILE, "raw"], dtype="str"),
            "source": pd.Series([0, 1, 1]).to_numpy(),
            "retake_p50_ns": pd.Series([90 * US, 7 * US, -1]).to_numpy(),
            "calls_per_s": pd.Series([1_000.4, 20_000.0, float("nan")]).to_numpy(),
            "retake_p50_error_percent": pd.Series([float("nan"), 12.4, 12.4]).to_numpy(),
            "harm_why": pd.Series([None, HOSTILE, HOSTILE], dtype="str"),
            "ends": pd.Series([1, 1, 0]).to_numpy(),
        }
    )


def test_a_preemption_is_told_by_its_parts(tmp_path: Path) -> None:
    materials = gather([preempted().write(tmp_path)])
    picture = figures.preemption(materials)
    assert [(bar["name"], bar["x"]) for bar in picture["data"]] == [
        ("asked to sent", [5 * US]),
        ("sent to delivered", [15 * US]),
        ("delivered to stopped", [20 * US]),
    ]
    rows = [[cell.text for cell in row] for row in tables.preemptions(materials[0]).rows]
    stopped = next(row for row in rows if row[1].startswith("stopped"))
    assert stopped[0] == "time_slice"
    assert stopped[2:] == ["1", "1", "0", "5 µs", "15 µs", "40 µs", "40 µs"]
    assert any(row[1].startswith("refused") for row in rows)
    assert "asked to stop" in render(materials)


def test_without_requests_the_page_has_no_such_part(tmp_path: Path) -> None:
    assert "asked to stop" not in render(gather([ten_calls().write(tmp_path)]))


def test_a_prediction_has_its_error_beside_it(tmp_path: Path) -> None:
    materials = gather([ten_calls().write(tmp_path)], predicted)
    rows = [[cell.text for cell in row] for row in tables.whatif(materials[0]).rows]
    assert rows[0][:2] == ["sysmon, as captured", "90 µs"]
    assert rows[0][6] == "1,000"
    assert rows[1][:3] == ["error of a replay", "+12.4 %", "–"]
    assert rows[2][:2] == [HOSTILE, "7 µs"]
    assert rows[3][0] == "raw: would never end"
    assert rows[3][1:3] == ["–", "–"]
    assert tables.withheld_columns(materials[0]) == [f"lost P time is not told: {HOSTILE}"]
    page = render(materials)
    assert "lost P time is not told" in page
    assert "replayed under each policy" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize("predict", [None, lambda _: None])
def test_without_predictions_the_page_says_nothing_of_them(
    tmp_path: Path, predict: object
) -> None:
    materials = gather([ten_calls().write(tmp_path)], predict)  # type: ignore[arg-type]
    assert tables.whatif(materials[0]).rows == []
    assert "replayed under each policy" not in render(materials)


def test_the_pressure_of_the_whole_run_is_in_the_page(tmp_path: Path) -> None:
    """The only P is held in read for 300 of 400 µs, and three goroutines wait."""
    scene = one_p(400)
    look(scene, 0, 3, gomaxprocs=1)
    scene.block(100, 11, 100, 0)
    scene.switch(100, 11, 0)
    look(scene, 400, 3, gomaxprocs=1)
    materials = gather([scene.write(tmp_path)])
    grid = tables.pressure(materials[0])
    assert grid.columns == ("cause", "", "all 0.0004 s")
    assert [[cell.text for cell in row] for row in grid.rows] == [
        ["any cause", "some", "75 %"],
        ["any cause", "full", "75 %"],
        ["syscall", "some", "75 %"],
        ["syscall", "full", "75 %"],
    ]
    page = render(materials)
    assert "How often work waited for a lost P" in page
    assert "What only the runtime could change" not in page
