"""Episodes of hand-made traces; every expected number was computed by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.ptime.episodes import episodes
from analysis.schema import EPISODES, PARTS
from analysis.trust.validate import validate
from tests.unit.analysis.scene import FUTEX, POLL, READ, US, Scene, only

BUSY = {"runq": 2, "global_runq": 0, "npidle": 0, "nmspinning": 0}
CALM = {"runq": 0, "global_runq": 0, "npidle": 1, "nmspinning": 0}


def retaken(scene: Scene, **state: int) -> None:
    """Thread 11 reads from 90 to 400 and blocks at 100 with P 0; sysmon (19) retakes it."""
    scene.task(11, 7)
    scene.task(12, 7)
    scene.task(19, 7, "sysmon")
    scene.block(100, 11, 90, 0, m=3, arg0=5, cpu=1, **(state or BUSY))
    scene.switch(101, 11, 0)
    scene.switch(130, 0, 19)
    scene.runtime(150, "retake", 19, 0, reason="sysmon", target_tid=11)
    scene.runtime(152, "handoff", 19, 0, reason="sysmon")
    scene.runtime(155, "startm", 19, 0)
    scene.wakeup(157, 12)
    scene.switch(160, 0, 12)
    scene.runtime(162, "acquirep", 12, 0)
    scene.runtime(165, "run", 12, 0, goid=77)
    scene.wakeup(390, 11)
    scene.exit(400, 11, 90, ret=1, blocks=1, blocked_ns=290 * US)
    scene.runtime(401, "exit_slow", 11)


def test_retaken_episode_has_every_moment_and_part(tmp_path: Path) -> None:
    scene = Scene()
    retaken(scene)
    row = only(episodes(scene.write(tmp_path)))
    moments = {
        "enter_ns": 90,
        "block_ns": 100,
        "notice_ns": 130,
        "release_ns": 150,
        "taken_ns": 150,
        "handoff_ns": 152,
        "startm_ns": 155,
        "m_wake_ns": 157,
        "m_oncpu_ns": 160,
        "acquirep_ns": 162,
        "run_ns": 165,
        "wake_ns": 390,
        "exit_ns": 400,
        "exit_slow_ns": 401,
        "pidle_ns": None,
    }
    assert {name: row[name] for name in moments} == {
        name: None if at is None else at * US for name, at in moments.items()
    }
    parts = [row[part] for _, part, _ in PARTS]
    assert parts == [us * US for us in (30, 20, 2, 3, 2, 3, 2, 3)]
    assert (row["hold_ns"], row["retake_ns"], row["harm_ns"]) == (50 * US, 65 * US, 50 * US)
    assert sum(parts) == row["retake_ns"]
    assert (row["outcome"], row["reason"], row["class"]) == ("retaken", "sysmon", "harmful")
    assert (row["taker_tid"], row["runner_tid"]) == (19, 12)
    names = ("tid", "pid", "comm", "goid", "p", "m", "nr", "syscall", "arg0", "cpu", "ret")
    assert [row[n] for n in names] == [11, 7, "worker", 110, 0, 3, READ, "read", 5, 1, 1]
    assert not row["censored"]
    assert not row["lost_overlap"]


def test_finished_table_has_the_declared_columns_and_types(tmp_path: Path) -> None:
    scene = Scene()
    retaken(scene)
    for trace in (scene.write(tmp_path), Scene().write(tmp_path, "empty.pretake")):
        frame = episodes(trace)
        assert tuple(frame.columns) == EPISODES.names
        for field in EPISODES.fields:
            kind = frame[field.name].dtype
            if field.words:
                assert list(kind.categories) == list(field.words)
            else:
                assert str(kind) == {"int": "Int64", "bool": "bool", "str": "str"}[field.type]


def test_call_that_returns_with_its_p_is_kept_and_censored(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0, **CALM)
    scene.exit(180, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["class"], row["censored"]) == ("kept", "kept", True)
    assert (row["hold_ns"], row["harm_ns"], row["retake_ns"]) == (80 * US, 0, None)


def test_kept_p_with_work_waiting_is_harmful(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0, **BUSY)
    scene.exit(180, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["class"], row["harm_ns"]) == ("kept", "harmful", 80 * US)


def test_call_open_at_the_end_is_held_until_then(tmp_path: Path) -> None:
    scene = Scene(end_ns=1_000 * US)
    scene.block(100, 11, 90, 0, **BUSY)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["exit_ns"], row["censored"]) == ("kept", None, True)
    assert (row["hold_ns"], row["harm_ns"]) == (900 * US, 900 * US)


def test_thread_that_dies_in_its_call_ends_the_hold(tmp_path: Path) -> None:
    scene = Scene(end_ns=1_000 * US)
    scene.task(11, 7)
    scene.block(100, 11, 90, 0, **BUSY)
    scene.task(11, 7, at=300, kind="exit")
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["exit_ns"], row["hold_ns"]) == ("kept", None, 200 * US)


def test_p_handed_off_before_the_call(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(80, "handoff", 11, 4, reason="syscall_block")
    scene.runtime(82, "startm", 11, 4)
    scene.runtime(95, "run", 12, 4)
    scene.block(100, 11, 90, None, p_use="handed_off", nr=POLL, **BUSY)
    scene.exit(500, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["p"], row["syscall"]) == ("handed_off", 4, "poll")
    assert (row["hold_ns"], row["harm_ns"], row["retake_ns"]) == (0, 0, 0)
    assert (row["release_ns"], row["run_ns"]) == (80 * US, 95 * US)
    assert (row["reason"], row["class"]) == ("syscall_block", "harmless")
    assert all(row[part] is None for _, part, _ in PARTS)


def test_p_handed_off_and_running_only_after_the_block(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(80, "handoff", 11, 4, reason="syscall_block")
    scene.runtime(130, "run", 12, 4)
    scene.block(100, 11, 90, None, p_use="handed_off")
    scene.exit(500, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["retake_ns"], row["hold_ns"]) == (30 * US, 0)


@pytest.mark.parametrize(("kind", "at"), [("pidle", 95), ("run", 300)])
def test_handoff_is_needless_if_the_call_returned_before_p_ran(
    tmp_path: Path, kind: str, at: int
) -> None:
    scene = Scene()
    scene.runtime(80, "handoff", 11, 4, reason="syscall_block")
    scene.runtime(at, kind, 12, 4)
    scene.block(100, 11, 90, None, p_use="handed_off")
    scene.exit(200, 11, 90)
    assert only(episodes(scene.write(tmp_path)))["class"] == "needless"


def test_handed_off_without_a_word_of_where_p_went_is_unknown(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(80, "handoff", 11, 4, reason="syscall_block")
    scene.block(100, 11, 90, None, p_use="handed_off")
    scene.exit(200, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["class"], row["retake_ns"]) == ("unknown", None)


def test_waits_on_the_way_back_are_no_episodes_of_their_own(tmp_path: Path) -> None:
    """CPython's GIL: futexes of a thread whose P is gone, after a retake and a handoff."""
    scene = Scene()
    scene.runtime(80, "handoff", 11, 4, reason="syscall_block")
    scene.runtime(85, "run", 12, 4)
    scene.block(100, 11, 90, None, p_use="handed_off")
    scene.exit(200, 11, 90)
    scene.block(202, 11, 201, None, p_use="handed_off", nr=FUTEX)
    scene.exit(210, 11, 201)
    scene.block(302, 15, 301, None, p_use="handed_off", nr=FUTEX)
    assert only(episodes(scene.write(tmp_path)))["enter_ns"] == 90 * US


def test_only_the_first_block_of_a_call_counts(tmp_path: Path) -> None:
    scene = Scene()
    retaken(scene)
    scene.block(200, 11, 90, None, p_use="handed_off")
    scene.block(300, 11, 90, None, p_use="handed_off")
    row = only(episodes(scene.write(tmp_path)))
    assert (row["block_ns"], row["hold_ns"]) == (100 * US, 50 * US)


def test_second_block_with_p_still_held_is_the_same_hold(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.block(200, 11, 90, 0)
    scene.runtime(250, "retake", 19, 0)
    scene.exit(400, 11, 90)
    assert only(episodes(scene.write(tmp_path)))["hold_ns"] == 150 * US


def test_first_block_without_p_makes_the_call_no_episode(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, None, p_use=None)
    scene.block(150, 11, 90, 0)
    scene.exit(200, 11, 90)
    assert len(episodes(scene.write(tmp_path))) == 0


def test_calls_entered_before_the_capture_are_told_apart_by_their_exits(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, None, 0)
    scene.block(120, 11, None, 0)
    scene.exit(150, 11, None)
    scene.block(200, 11, None, 0)
    scene.exit(260, 11, None)
    frame = episodes(scene.write(tmp_path))
    assert frame["hold_ns"].tolist() == [50 * US, 60 * US]
    assert frame["enter_ns"].isna().all()


def test_p_retaken_and_blocked_again_by_another_thread(tmp_path: Path) -> None:
    """P 0: held by 11 from 100, retaken at 150; held by 12 from 180, retaken at 300."""
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.runtime(150, "retake", 19, 0)
    scene.runtime(160, "run", 12, 0)
    scene.block(180, 12, 170, 0)
    scene.runtime(300, "retake", 19, 0)
    scene.runtime(320, "run", 13, 0)
    scene.exit(400, 12, 170)
    scene.exit(500, 11, 90)
    frame = episodes(scene.write(tmp_path))
    assert frame["tid"].tolist() == [11, 12]
    assert frame["hold_ns"].tolist() == [50 * US, 120 * US]
    assert frame["retake_ns"].tolist() == [60 * US, 140 * US]
    assert frame["runner_tid"].tolist() == [12, 13]


def test_way_of_p_ends_where_it_blocks_again(tmp_path: Path) -> None:
    """The first hold's run is not told; the second's must not be taken for it."""
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.runtime(150, "retake", 19, 0)
    scene.block(180, 12, 170, 0)
    scene.runtime(300, "retake", 19, 0)
    scene.runtime(320, "run", 13, 0)
    scene.exit(400, 12, 170)
    scene.exit(500, 11, 90)
    frame = episodes(scene.write(tmp_path))
    assert frame["hold_ns"].tolist() == [50 * US, 120 * US]
    assert frame["retake_ns"].isna().tolist() == [True, False]


def test_p_that_goes_idle_has_a_hold_and_no_latency(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0, **CALM)
    scene.runtime(150, "retake", 19, 0)
    scene.runtime(155, "pidle", 19, 0)
    scene.runtime(900, "acquirep", 12, 0)
    scene.runtime(910, "run", 12, 0)
    scene.exit(400, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["hold_ns"], row["retake_ns"], row["pidle_ns"]) == (50 * US, None, 155 * US)
    assert (row["acquirep_ns"], row["run_ns"], row["runner_tid"]) == (None, None, None)
    assert row["class"] == "deliberate"


def test_runtime_without_run_is_measured_to_acquirep(tmp_path: Path) -> None:
    """Go: handoffp by retake, then the new M has P; nobody tells of the goroutine."""
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.runtime(150, "handoff", 19, 0, reason="sysmon")
    scene.runtime(170, "acquirep", 12, 0)
    scene.exit(400, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["release_ns"], row["taken_ns"]) == (150 * US, None)
    assert (row["retake_ns"], row["run_ns"], row["reason"]) == (70 * US, None, "sysmon")


def test_same_p_number_in_two_processes(tmp_path: Path) -> None:
    scene = Scene()
    scene.task(11, 7)
    scene.task(19, 7)
    scene.task(21, 8)
    scene.task(29, 8)
    scene.block(100, 11, 90, 0)
    scene.block(100, 21, 91, 0)
    scene.runtime(120, "retake", 29, 0)
    scene.runtime(150, "retake", 19, 0)
    scene.exit(400, 11, 90)
    scene.exit(400, 21, 91)
    frame = episodes(scene.write(tmp_path))
    assert frame[["pid", "hold_ns"]].values.tolist() == [[7, 50 * US], [8, 20 * US]]


def test_lost_exit_leaves_the_hold_unknown(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.loss(120, 160, "syscall")
    scene.block(200, 11, 180, 0)
    scene.exit(250, 11, 180)
    frame = episodes(scene.write(tmp_path))
    assert frame["outcome"].astype(object).where(frame["outcome"].notna(), None).tolist() == [
        None,
        "kept",
    ]
    assert frame["hold_ns"].tolist() == [pd.NA, 50 * US]
    assert frame["lost_overlap"].tolist() == [True, False]
    assert frame["class"].tolist() == ["unknown", "unknown"]  # the second: its harm is not known


@pytest.mark.parametrize(
    ("begin", "end", "table", "overlaps"),
    [
        (10, 90, "runtime", True),
        (10, 89, "runtime", False),
        (400, 500, "block", True),
        (401, 500, "block", False),
        (120, 130, "sched_switch", False),
        (20, 30, "syscall", False),
    ],
)
def test_episode_in_a_lost_span_is_marked_and_not_trusted(
    tmp_path: Path, begin: int, end: int, table: str, overlaps: bool
) -> None:
    scene = Scene()
    retaken(scene)
    scene.loss(begin, end, table)
    row = only(episodes(scene.write(tmp_path)))
    assert row["lost_overlap"] == overlaps
    # Without switches nobody knows what the thread did, and so not what the hold cost.
    trusted = not overlaps and table != "sched_switch"
    assert row["class"] == ("harmful" if trusted else "unknown")


def test_raw_call_is_held_to_its_end(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0, p_use="raw", **BUSY)
    scene.exit(180, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["p_use"], row["outcome"], row["harm_ns"]) == ("raw", "kept", 80 * US)


def test_a_fault_does_not_return_from_the_call_after_it(tmp_path: Path) -> None:
    scene = Scene()
    scene.task(11, 7)
    # A fault from 100 to 150 in no call, and then a read from 170 to 300.
    scene.block(100, 11, None, 0, why="fault", nr=None, p_use="raw", address=4096)
    scene.switch(101, 11, 0)
    scene.switch(150, 0, 11)
    scene.block(180, 11, 170, 0)
    scene.switch(181, 11, 0)
    scene.switch(290, 0, 11)
    scene.exit(300, 11, 170, ret=1, blocks=1)
    trace = scene.write(tmp_path)
    fault, read = episodes(trace).to_dict("records")
    assert pd.isna(fault["exit_ns"])
    # P was in use again by 170 at the latest.
    assert fault["hold_ns"] == 70 * US
    assert read["exit_ns"] == 300 * US
    rules = validate(trace).set_index("rule")
    assert rules.loc["g_in_one_call", "broken"] == 0
