"""``make check`` finds the tests that reach a file."""

from __future__ import annotations

import pytest

from tools.check import MINUTES, module_of, nearest_tests, reaching_tests


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


def test_the_nearest_are_those_that_import_it_themselves() -> None:
    modules = {"analysis.formats.ordered", "analysis.stats.quantiles"}
    assert nearest_tests(modules) == [
        "tests/unit/analysis/test_ordered.py",
        "tests/unit/analysis/test_quantiles.py",
    ]
    # The test of every command imports this one itself, and takes minutes.
    assert reaching_tests({"analysis.units"})[MINUTES] == 1
    assert nearest_tests({"analysis.units"}) == ["tests/unit/analysis/test_report.py"]


def test_the_nearest_of_what_no_test_imports_itself() -> None:
    """tests/unit/sim/test_replay.py is a test: it is the nearest to itself."""
    assert nearest_tests({"tests.unit.sim.test_replay"}) == ["tests/unit/sim/test_replay.py"]
    nearest = nearest_tests({"tracer.capture.record"})
    assert {reaching_tests({"tracer.capture.record"})[test] for test in nearest} == {2}
