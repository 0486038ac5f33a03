"""Two sides of several runs, as a command line names them and as a verdict shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pretake.commands import bench, diff
from tests.unit.analysis.scene import Scene
from tests.unit.analysis.test_budget import look, two_ps


def run_of(folder: Path, name: str, blocked_us: int) -> str:
    """P 0 is in a read for so long of 1,000 µs, and a goroutine waits."""
    scene: Scene = two_ps(1_000)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    scene.wakeup(100 + blocked_us, 11)
    scene.switch(100 + blocked_us, 0, 11)
    scene.exit(101 + blocked_us, 11, 90)
    look(scene, 1_000, 3)
    return str(scene.write(folder, name).path)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[list[str], list[str]]:
    a = [run_of(tmp_path, f"a{n}", 100 + n) for n in (0, 2, 4)]
    return a, [run_of(tmp_path, f"b{n}", 200 + n) for n in (0, 4, 8)]


def test_both_forms_name_the_same_runs(runs: tuple[list[str], list[str]]) -> None:
    a, b = runs
    short = ["--a", *a, "--b", *b, "--json"]
    long = [word for side, its in (("--a", a), ("--b", b)) for run in its for word in (side, run)]
    said = [CliRunner().invoke(diff.command, args) for args in (short, ["--json", *long])]
    assert [done.exit_code for done in said] == [0, 0]
    told = [json.loads(done.stdout) for done in said]
    assert told[0] == told[1]
    assert [(run["side"], run["trace"]) for run in told[0]["runs"]] == [
        *(("a", f"a{n}") for n in (0, 2, 4)),
        *(("b", f"b{n}") for n in (0, 4, 8)),
    ]
    figures = {row["figure"]: row for row in told[0]["figures"]}
    lost = figures["lost_p.share"]
    # 102 and 204 µs of 2 x 1,000 µs, but for geometric means.
    assert (lost["a"], lost["b"]) == (
        pytest.approx(0.051, rel=1e-3),
        pytest.approx(0.102, rel=1e-3),
    )
    assert lost["verdict"] == "higher"
    assert figures["ops_per_s"]["verdict"] == "none"
    assert told[0]["note"] == ""


def test_one_run_each_says_what_five_would_show(runs: tuple[list[str], list[str]]) -> None:
    (a, *_), (b, *_) = runs
    told = json.loads(CliRunner().invoke(diff.command, [a, b, "--json"]).stdout)
    assert {row["verdict"] for row in told["figures"]} == {"none"}
    assert told["note"].startswith("one run each: no verdict")


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("hold_ns.p50 > 1.5 * baseline", 1),
        ("hold_ns.p50 > 3 * baseline", 0),
        ("hold_ns.p50 > 150us", 1),
        ("hold_ns.p50 > 1ms", 0),
    ],
)
def test_conditions_decide_the_status(
    condition: str, status: int, runs: tuple[list[str], list[str]]
) -> None:
    a, b = runs
    args = ["--a", *a, "--b", *b, "--fail-if", condition]
    assert CliRunner().invoke(diff.command, args, standalone_mode=False).return_value == status


def test_a_condition_on_one_run_each_is_no_verdict(runs: tuple[list[str], list[str]]) -> None:
    (a, *_), (b, *_) = runs
    args = [a, b, "--fail-if", "hold_ns.p50 > baseline"]
    done = CliRunner().invoke(diff.command, args, standalone_mode=False)
    assert done.return_value == 0
    assert "no verdict on hold_ns.p50 > baseline" in done.stderr


def test_conditions_are_in_the_document(runs: tuple[list[str], list[str]]) -> None:
    a, b = runs
    asked = ["--fail-if", "hold_ns.p50 > baseline", "--fail-if", "hold_ns.p50 > 1ms"]
    told = json.loads(
        CliRunner().invoke(diff.command, ["--a", *a, "--b", *b, "--json", *asked]).stdout
    )
    relative, absolute = told["conditions"]
    assert (relative["condition"], relative["met"]) == ("hold_ns.p50 > baseline", True)
    assert 0 < relative["p_holm"] < 0.05
    assert absolute == {"condition": "hold_ns.p50 > 1ms", "met": False, "p_holm": None}


@pytest.mark.parametrize("args", ["x", "--a x", "x y --a x --b y", "--a"])
def test_sides_that_are_not_two_are_refused(args: str) -> None:
    assert CliRunner().invoke(diff.command, args.split()).exit_code == 2


@pytest.mark.parametrize(
    "args",
    [
        ["--a", "'", "--b", "true"],
        ["--a", "", "--b", "true"],
        ["--a", "true", "--b", "true", "--fail-if", "?"],
    ],
)
def test_what_bench_cannot_do_is_told_before_it_runs(args: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(bench.command, [*args, "-o", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert not (tmp_path / "out").exists()


def test_the_table_names_figures_and_runs(runs: tuple[list[str], list[str]]) -> None:
    a, b = runs
    done = CliRunner().invoke(diff.command, ["--a", *a, "--b", *b])
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("lost_p.share higher 5.1 % 10.2 % 2 ") for line in lines)
    assert sum(line.startswith(("a: a", "b: b")) for line in lines) == 6
