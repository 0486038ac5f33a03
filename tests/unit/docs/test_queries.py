"""The queries of ``docs/queries.md``, run as they stand, against answers computed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis import load
from analysis.formats.export import write_parquet
from tests.unit.analysis.scene import US
from tests.unit.analysis.test_summary import ten_calls

PAGE = Path(__file__).parents[3] / "docs" / "queries.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's programs leave behind, run beside a trace of ten reads."""
    scene = ten_calls()
    scene.wakeup(5, 11)
    scene.switch(8, 0, 11)
    scene.wakeup(20, 11)
    scene.switch(50, 0, 11)
    trace = scene.write(tmp_path, "server.pretake")
    write_parquet([load(trace.path).episodes()], tmp_path / "episodes.parquet")
    monkeypatch.chdir(tmp_path)
    left: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE.name}, program {number}", "exec"), left)
    return left


def test_answers_of_the_page(found: dict[str, Any]) -> None:
    assert len(BLOCKS) == 5
    assert found["blocks"] == [(0, 10, 4)]
    # Retaken at 110, 120 … 180 µs, and run 5 µs later each.
    assert found["moves"] == [("sysmon", 8, 5 * US)]
    assert found["waits"].rows() == [(11, 30 * US)]
    # Latencies are 15, 25 … 85 µs; harm 10 + 20 + 30 + 40.
    assert found["latency"].rows() == [("read", 10, 50 * US, 100 * US)]
    assert found["by_class"].to_dict() == {
        "deliberate": (50 + 60 + 70 + 80) * US,
        "harmful": 100 * US,
        "kept": 400 * US,
    }
