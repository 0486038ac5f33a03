"""A part is no longer than its whole: each pair, at the bound and one beyond it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.schema import PARTS
from analysis.trust.validate import RULES, validate
from analysis.trust.wholes import EPISODE_PARTS, ROW_PARTS, more_blocks_than_told, not_apart
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_summary import ten_calls
from tracer.trace.made_trace import write_trace
from tracer.trace.schema import TABLES, UNKNOWN

LATENCY = {name: 10 for _, name, _ in PARTS}
# Rule, rows that keep it, and rows that break it by one, or by what they are.
ROWS = [
    (
        "blocked_in_call",
        {"enter_ns": [100, UNKNOWN, 100], "exit_ns": [150, 150, 150]}
        | {"blocked_ns": [50, 99, UNKNOWN], "blocks": [1, 1, 1]},
        {"enter_ns": [100, 100], "exit_ns": [150, 150], "blocked_ns": [51, 1], "blocks": [1, 0]},
    ),
    (
        "interval_in_order",
        {"since_ns": [7, UNKNOWN], "ts_ns": [7, 1]},
        {"since_ns": [8], "ts_ns": [7]},
    ),
    ("interval_in_order", {"oldest_ns": [7], "ts_ns": [7]}, {"oldest_ns": [8], "ts_ns": [7]}),
    ("interval_in_order", {"begin_ns": [7], "end_ns": [7]}, {"begin_ns": [8], "end_ns": [7]}),
    ("interval_in_order", {"exec_ns": [7], "ts_ns": [7]}, {"exec_ns": [8], "ts_ns": [7]}),
    (
        "ps_in_all",
        {"ts_ns": [0], "npidle": [4], "unseen": [4], "timers_due": [4], "gomaxprocs": [4]},
        {
            "ts_ns": [0, 1, 2],
            "npidle": [5, 0, 0],
            "unseen": [0, 5, 0],
            "timers_due": [0, UNKNOWN, 5],
            "gomaxprocs": [4, 4, 4],
        },
    ),
    (
        "queues_read_in_all",
        {"ts_ns": [0, 0], "runq_least": [3, 9], "runq": [3, UNKNOWN]},
        {"ts_ns": [0], "runq_least": [4], "runq": [3]},
    ),
    (
        "hold_in_call",
        # A taker may tell of it up to 1 ms after the return.
        {
            "hold_ns": [1_000_050, 50, UNKNOWN],
            "block_ns": [100] * 3,
            "exit_ns": [150, UNKNOWN, 110],
        },
        {"hold_ns": [1_000_051], "block_ns": [100], "exit_ns": [150]},
    ),
    (
        "harm_in_hold",
        {"harm_ns": [50, UNKNOWN], "hold_ns": [50, 10]},
        {"harm_ns": [51], "hold_ns": [50]},
    ),
    (
        "parts_in_latency",
        {"retake_ns": [10 * len(PARTS), UNKNOWN]} | {n: [10, 10] for n in LATENCY},
        {"retake_ns": [10 * len(PARTS) - 1]} | {n: [10] for n in LATENCY},
    ),
]


@pytest.mark.parametrize(("rule", "kept", "broken"), ROWS)
def test_a_pair_at_its_bound_and_beyond(
    rule: str, kept: dict[str, list[int]], broken: dict[str, list[int]]
) -> None:
    asked = {**ROW_PARTS, **EPISODE_PARTS}[rule].broken
    checked, found = asked(pd.DataFrame(kept))
    assert checked >= 1
    assert not found.any()
    checked, found = asked(pd.DataFrame(broken))
    assert checked == len(found)
    assert found.all()


def test_every_pair_is_tried() -> None:
    assert {rule for rule, _, _ in ROWS} == {*ROW_PARTS, *EPISODE_PARTS}


def test_columns_are_those_of_the_tables() -> None:
    for rule in ROW_PARTS.values():
        for table, columns in rule.columns.items():
            assert set(columns) <= set(TABLES[table].arrow_schema.names)


def calls(*rows: tuple[int, int, int, int, int]) -> pd.DataFrame:
    """tid, entry, return, blocks, number of each."""
    return pd.DataFrame(rows, columns=["tid", "enter_ns", "exit_ns", "blocks", "nr"])


def test_only_a_handler_s_calls_lie_inside_another() -> None:
    outer, write, sigreturn = (1, 10, 100, 1, 0), (1, 20, 30, 0, 1), (1, 40, 50, 0, 15)
    other = (2, 20, 30, 0, 1)
    assert not_apart(calls(outer, other))[1].tolist() == [False, False]
    assert not_apart(calls(write, outer))[1].tolist() == [True, False]
    # The handler returned inside; or, where that is not told, the call blocked once more.
    assert not_apart(calls(outer, write, sigreturn))[1].tolist() == [False] * 3
    assert not_apart(calls((1, 10, 100, 2, 0), write))[1].tolist() == [False, False]
    # Across its end is never right.
    across = (1, 90, 110, 0, 1)
    assert not_apart(calls(outer, write, sigreturn, across))[1].tolist() == [False] * 3 + [True]


def test_a_call_has_no_more_blocks_than_it_tells() -> None:
    blocks = pd.DataFrame({"tid": [1, 1, 2], "enter_ns": [10, 10, 10]})
    told = calls((1, 10, 100, 2, 0), (1, 200, 300, 0, 0), (2, 10, 20, 0, 0), (3, UNKNOWN, 9, 1, 0))
    checked, broken = more_blocks_than_told(blocks, told)
    assert (checked, broken.tolist()) == (3, [False, False, True, False])


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        ("blocked_in_call", 300),
        ("blocks_of_call", 300),
        ("interval_in_order", 115),
        ("ps_in_all", 70),
        ("queues_read_in_all", 70),
        ("losses_told", 500),
        ("p_is_there", 1_100),
    ],
)
def test_a_trace_that_breaks_one(tmp_path: Path, rule: str, at: int) -> None:
    scene = ten_calls()
    look = {"tid": 19, "pid": 7, "oldest_ns": 60 * US, "gomaxprocs": 2, "npidle": 0}
    scene.task(11, 7)
    match rule:
        case "blocked_in_call":
            scene.rows["syscall"][0] |= {"blocked_ns": 210 * US + 1, "blocks": 1}
        case "blocks_of_call":
            scene.rows["syscall"][0]["blocks"] = 1
            scene.block(105, 11, 90, 0)
        case "interval_in_order":
            scene.rows["runtime"][2]["since_ns"] = 116 * US
        case "ps_in_all":
            scene._add("waiting", 70, **look | {"npidle": 3})
        case "queues_read_in_all":
            scene._add("waiting", 70, **look, runq_least=2, runq=1)
        case "losses_told":
            scene.loss(500, 600, "runtime", 7)
            scene.manifest["lost"] = {"runtime": 6}
        case "p_is_there":
            scene._add("waiting", 70, **look | {"gomaxprocs": 1})
    found = validate(scene.write(tmp_path)).set_index("rule")
    assert found.loc[rule, "broken"] >= 1
    assert found.loc[rule, "first_ns"] == at * US
    assert found.drop(index=rule)["broken"].sum() == 0


def test_tables_without_a_moment_of_their_own_are_asked(tmp_path: Path) -> None:
    rows = {"throttle": {"begin_ns": [8], "end_ns": [7], "throttled_ns": [0], "cgroup": ["a"]}}
    found = validate(write_trace(tmp_path / "t", rows)).set_index("rule")
    assert found.loc["interval_in_order", "broken"] == 1
    assert len(found) == len(RULES)


def test_losses_that_are_told_in_full_break_nothing(tmp_path: Path) -> None:
    scene = Scene(lost={"runtime": 7})
    scene.loss(500, 600, "runtime", 4)
    scene.loss(700, 800, "runtime", 3)
    found = validate(scene.write(tmp_path)).set_index("rule")
    assert (found.loc["losses_told", "checked"], found["broken"].sum()) == (1, 0)
