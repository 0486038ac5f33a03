"""Summary, comparison, validation and the second witness, on traces made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import load
from analysis.answers.compare import COMPARISON, compare
from analysis.answers.summary import summary
from analysis.schema import CLASSES
from analysis.trust.validate import RULES, validate
from tests.unit.analysis.scene import US, Scene
from tracer.errors import PretakeError

BUSY = {"runq": 2, "global_runq": 1, "npidle": 0, "nmspinning": 0}
CALM = {"runq": 0, "global_runq": 0, "npidle": 1, "nmspinning": 0}


def ten_calls(**manifest: object) -> Scene:
    """Ten calls on P 0 and P 1, one a millisecond, retaken after 10, 20 … 80 µs; two kept.

    The first four of the retaken ones are harmful, with three goroutines waiting.
    """
    scene = Scene(end_ns=20_000 * US, **manifest)
    for call in range(10):
        at, p = call * 1_000, call % 2
        state = BUSY if call < 4 else CALM
        scene.block(at + 100, 11, at + 90, p, **state)
        if call < 8:
            # As a capture does, it tells who waits: else nobody knew what came after the block.
            taken = {"reason": "sysmon", "target_tid": 11, **state}
            scene.runtime(at + 110 + 10 * call, "retake", 19, p, **taken)
            scene.runtime(at + 111 + 10 * call, "handoff", 19, p, reason="sysmon")
            scene.runtime(at + 115 + 10 * call, "run", 12, p)
        scene.exit(at + 300, 11, at + 90)
    return scene


def test_summary_by_hand(tmp_path: Path) -> None:
    scene = ten_calls(
        lost={"block": 2, "sched_switch": 3},
        capture={"wall_s": 2.0, "cpu_s": 0.5},
        target={"runtime": "go", "version": "go1.27.3"},
        missing=[{"what": "run", "why": "Go tells none"}],
        workload={"policy": "sysmon"},
    )
    told = summary(scene.write(tmp_path))
    assert (told["episodes"], told["retaken"], told["kept"], told["handed_off"]) == (10, 8, 2, 0)
    assert told["retake_ns"] == {
        "p50": 45 * US,
        "p90": 85 * US,
        "p99": 85 * US,
        "max": 85 * US,
        "unknown": 0,
    }
    holds = [*range(10, 90, 10), 200, 200]
    assert told["hold_ns"]["sum"] == sum(holds) * US
    assert (told["hold_ns"]["p50"], told["hold_ns"]["p90"]) == (50 * US, 200 * US)
    assert (told["harm_ns"]["sum"], told["harm_ns"]["max"]) == (100 * US, 40 * US)
    assert told["harm_ns"]["unknown"] == 0
    assert {word: told["classes"][word]["episodes"] for word in CLASSES} == {
        "harmless": 0,
        "deliberate": 4,
        "harmful": 4,
        "kept": 2,
        "needless": 0,
        "unknown": 0,
    }
    assert told["classes"]["harmful"]["hold_ns"] == 100 * US
    # 100 µs of harm in 2 Ps times 20 ms; three goroutines waited in each.
    assert told["p_time"]["ps"] == 2
    assert told["p_time"]["harm_percent"] == pytest.approx(0.25)
    assert told["p_time"]["goroutine_wait_ns"] == 300 * US
    assert (told["handoffs"], told["retakes"]) == ({"sysmon": 8}, {"sysmon": 8})
    assert (told["events"], told["lost"]) == (10 + 24 + 10, 5)
    assert told["tables"]["block"] == {"stored": 10, "lost": 2}
    assert told["capture"]["cpu_s"] == 0.5
    assert told["capture"]["bytes_per_event"] is not None
    assert told["target"] == {"path": None, "runtime": "go", "version": "go1.27.3"}
    assert (told["policy"], told["missing"]) == ("sysmon", ["run: Go tells none"])
    json.dumps(told)


def test_summary_of_nothing_has_nulls_and_no_zeros(tmp_path: Path) -> None:
    told = summary(Scene().write(tmp_path))
    assert told["episodes"] == 0
    assert told["retake_ns"] == {
        "p50": None,
        "p90": None,
        "p99": None,
        "max": None,
        "unknown": 0,
    }
    assert (told["hold_ns"]["sum"], told["harm_ns"]["sum"]) == (None, None)
    assert told["p_time"]["harm_percent"] is None
    assert told["p_time"]["goroutine_wait_ns"] is None
    assert told["target"]["version"] is None
    json.dumps(told)


def test_no_episodes_is_not_the_same_as_unknown_ones(tmp_path: Path) -> None:
    go = {"runtime": "go", "version": "go1.30"}
    lacks = [{"what": "block, and p, m and goid of runtime", "why": "no row for go1.30"}]
    assert summary(Scene(target=go).write(tmp_path, "idle"))["p_known"]
    assert not summary(Scene(target=go, missing=lacks).write(tmp_path, "no-offsets"))["p_known"]
    assert not summary(Scene().write(tmp_path, "no-runtime"))["p_known"]


def test_sites_of_unknown_harm_stand_by_their_hold(tmp_path: Path) -> None:
    scene = Scene(end_ns=20_000 * US)
    # Three long reads of which nobody knows who waited, and a short poll that did no harm.
    for at in (0, 1_000, 2_000):
        scene.block(at + 100, 11, at + 90, 0, runq=1)
        scene.exit(at + 500, 11, at + 90)
    scene.block(4_100, 11, 4_090, 0, nr=7, **CALM)
    scene.exit(4_110, 11, 4_090, nr=7)
    scene.write(tmp_path, "t")
    rows = load(tmp_path / "t").sites()
    assert rows["syscall"].tolist() == ["read", "poll"]
    assert rows["hold_sum_ns"].tolist() == [3 * 400 * US, 10 * US]
    assert rows["harm_sum_ns"].isna().tolist() == [True, False]


def test_episodes_with_losses_are_counted_and_in_no_distribution(tmp_path: Path) -> None:
    scene = ten_calls()
    scene.loss(0, 4_000, "runtime", 7)
    told = summary(scene.write(tmp_path))
    assert (told["episodes"], told["untrusted"]) == (10, 4)
    assert told["harm_ns"]["sum"] == 0
    assert told["classes"]["unknown"]["episodes"] == 4


def test_comparison_takes_round_trips_from_the_workload(tmp_path: Path) -> None:
    one = ten_calls(
        workload={"name": "echo", "policy": "sysmon", "round_trip_ns": {"p50": 7, "p90": "x"}}
    ).write(tmp_path, "one.pretake")
    two = Scene().write(tmp_path, "two.pretake")
    table = compare([one, two])
    assert tuple(table.columns) == COMPARISON.names
    first, second = table.astype(object).where(table.notna(), None).to_dict("records")
    assert (first["trace"], first["policy"], first["workload"]) == ("one", "sysmon", "echo")
    assert (first["round_trip_p50_ns"], first["round_trip_p90_ns"]) == (7, None)
    assert (first["retake_p50_ns"], first["harm_sum_ns"]) == (45 * US, 100 * US)
    assert (second["trace"], second["policy"], second["harm_sum_ns"]) == ("two", None, None)


def test_sound_trace_breaks_no_rule(tmp_path: Path) -> None:
    table = validate(ten_calls().write(tmp_path))
    assert table["rule"].tolist() == list(RULES)
    assert table["broken"].sum() == 0
    assert table["meaning"].str.len().min() > 10


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        ("in_capture", 30_000),
        ("call_in_order", 12_000),
        ("calls_apart", 150),
        ("block_in_call", 400),
        ("p_at_one_m", 120),
        ("g_in_one_call", 120),
        ("m_is_one_thread", 5_100),
        ("switches_alternate", 60),
    ],
)
def test_broken_rule_is_found_and_dated(tmp_path: Path, rule: str, at: int) -> None:
    scene = ten_calls()
    match rule:
        case "in_capture":
            scene.wakeup(30_000, 11)
        case "call_in_order":
            scene.exit(12_000, 40, 12_500)
        case "calls_apart":
            scene.exit(200, 11, 150)
        case "block_in_call":
            scene.block(400, 11, 90, None, p_use=None)
        case "p_at_one_m":
            scene.block(120, 41, 118, 1)
            scene.block(125, 42, 119, 1, goid=9)
            scene.exit(160, 42, 119)
            scene.exit(170, 41, 118)
            at = 125
        case "g_in_one_call":
            scene.block(120, 41, 118, 5, goid=110)
            scene.exit(170, 41, 118)
        case "m_is_one_thread":
            for row in scene.rows["block"]:
                row["m"] = 4 if row["ts_ns"] > 5_000 * US else 3
        case "switches_alternate":
            scene.task(11, 7)
            scene.switch(50, 0, 11, cpu=0)
            scene.switch(60, 0, 11, cpu=1)
    found = validate(scene.write(tmp_path)).set_index("rule")
    assert found.loc[rule, "broken"] >= 1
    assert found.loc[rule, "first_ns"] == at * US


def records(path: Path, rows: list[tuple[float, int, int]]) -> Path:
    path.write_text(
        "".join(
            json.dumps({"ts_ns": round(at * US), "tid": tid, "p": p, "reason": "sysmon"}) + "\n"
            for at, tid, p in rows
        )
    )
    return path


def test_check_by_hand(tmp_path: Path) -> None:
    """Eight retakes in the trace; the record has six of them, one twice, and two others."""
    trace = load(ten_calls().write(tmp_path).path)
    rows = [(call * 1_000 + 110 + 10 * call - call, 11, call % 2) for call in range(6)]
    rows += [(116, 11, 0), (3_150, 11, 0), (9_150, 11, 1), (50_000, 11, 1)]
    told = trace.check(records(tmp_path / "record.jsonl", rows))
    assert (told["records"], told["outside"], told["episodes"]) == (9, 1, 8)
    assert told["matched"] == 6
    assert told["recall"] == pytest.approx(6 / 9)
    assert told["precision"] == pytest.approx(6 / 8)
    # The pairs differ by 0, 1 … 5 µs.
    assert told["difference_ns"] == {"p50": 2 * US, "p99": 5 * US, "max": 5 * US}
    assert [row["ts_ns"] // US for row in told["missed"]] == [116, 3_150, 9_150]
    assert [row["ts_ns"] // US for row in told["extra"]] == [6_170, 7_180]
    json.dumps(told)


def test_empty_record_has_no_recall_and_precision_zero(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    told = load(ten_calls().write(tmp_path).path).check(tmp_path / "none.jsonl")
    assert (told["recall"], told["precision"]) == (None, 0.0)


@pytest.mark.parametrize(
    "content", ["not json", '{"ts_ns": 1}', '{"ts_ns": "x", "tid": 1, "p": 1}', "[]"]
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content + "\n")
    trace = load(ten_calls().write(tmp_path).path)
    with pytest.raises(PretakeError, match=r"bad\.jsonl"):
        trace.check(path)


def test_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    trace = load(Scene().write(tmp_path).path)
    with pytest.raises(PretakeError, match="cannot read"):
        trace.check(tmp_path / "absent.jsonl")
