"""The exit status of ``pretake check``: faults of the capture, not of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pretake.commands.check import command
from tests.unit.analysis.scene import Scene
from tests.unit.analysis.test_summary import ten_calls


def check(scene: Scene, folder: Path) -> tuple[int, dict[str, int]]:
    """Exit status, and how many things broke each rule."""
    trace = scene.write(folder)
    done = CliRunner().invoke(command, [str(trace.path), "--json"], standalone_mode=False)
    rules = json.loads(done.output)["rules"]
    return done.return_value, {rule["rule"]: rule["broken"] for rule in rules}


@pytest.mark.parametrize(
    ("rule", "status"), [("switches_alternate", 0), ("call_in_order", 1), ("", 0)]
)
def test_only_a_rule_about_the_runtime_fails(tmp_path: Path, rule: str, status: int) -> None:
    scene = ten_calls()
    if rule == "switches_alternate":
        scene.task(11, 7)
        scene.switch(50, 0, 11, cpu=0)
        scene.switch(60, 0, 11, cpu=1)
    elif rule == "call_in_order":
        scene.exit(12_000, 40, 12_500)
    told, broken = check(scene, tmp_path)
    assert told == status
    assert {name for name, count in broken.items() if count} == ({rule} if rule else set())
