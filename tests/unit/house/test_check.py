"""``make check`` finds the tests that reach a file."""

from __future__ import annotations

import pytest

from tools.check import module_of, reaching_tests


@pytest.mark.parametrize(
    ("file", "test"),
    [
        ("analysis/formats/ordered.py", "tests/unit/analysis/test_ordered.py"),
        ("tracer/targets/buildinfo.py", "tests/unit/targets/test_find.py"),
        # By the command line, which imports commands by name.
        ("pretake/commands/summary.py", "tests/unit/command/test_every_command.py"),
        ("tests/unit/analysis/scene.py", "tests/unit/analysis/test_episodes.py"),
        ("tests/unit/analysis/test_asof.py", "tests/unit/analysis/test_asof.py"),
    ],
)
def test_a_file_is_reached(file: str, test: str) -> None:
    assert test in reaching_tests({module_of(file)})


def test_what_nothing_imports_is_reached_by_nothing() -> None:
    assert "tests/unit/sim/test_replay.py" not in reaching_tests(
        {module_of("analysis/formats/ordered.py")}
    )
    with pytest.raises(SystemExit, match="no Python file"):
        module_of("Makefile")
