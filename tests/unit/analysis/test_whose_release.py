"""Whose release it was: what happens to P around a call's return and the thread's next call.

Every expected number was computed by hand.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.ptime.engine.episodes import Episodes
from analysis.ptime.engine.rows import COLUMNS
from analysis.ptime.episodes import episodes
from analysis.ptime.packed import pack, rows_of
from analysis.windowed.columns import column_windows
from tests.unit.analysis.scene import FUTEX, US, Scene, only
from tests.unit.analysis.test_episodes import BUSY, CALM


def test_retake_between_the_kernels_exit_and_the_runtimes(tmp_path: Path) -> None:
    """The thread had returned but not got its P back: the row names it."""
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.exit(148, 11, 90)
    scene.runtime(150, "retake", 19, 0, target_tid=11)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["hold_ns"]) == ("retaken", 50 * US)


def test_retake_after_the_return_that_names_nobody_is_anothers(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.exit(148, 11, 90)
    scene.runtime(150, "retake", 19, 0)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["hold_ns"]) == ("kept", 48 * US)


@pytest.mark.parametrize(
    ("p", "retakes", "outcome"),
    [
        # Back at 180, in its next call from 190, P taken at 200, on the way to a block at 230.
        (0, (200,), "kept"),
        # It lost P 0 as it came back, and its next call was with another.
        (1, (200,), "retaken"),
        # It lost P 0 as it came back, had it again, and lost it in its next call too.
        (0, (200, 220), "retaken"),
    ],
)
def test_p_taken_in_the_next_call_before_it_blocks_is_that_call_s(
    tmp_path: Path, p: int, retakes: tuple[int, ...], outcome: str
) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.exit(180, 11, 90)
    for at in retakes:
        scene.runtime(at, "retake", 19, 0, reason="sysmon", target_tid=11)
    scene.block(230, 11, 190, p, p_use="handed_off")
    rows = episodes(scene.write(tmp_path)).to_dict("records")
    assert [row["outcome"] for row in rows] == [outcome, "handed_off"]


@pytest.mark.parametrize("reason", ["exitsyscall", "sysmon"])
def test_p_that_came_from_another_s_call_at_this_very_block_can_be_taken_yet(
    tmp_path: Path, reason: str
) -> None:
    """Thread 11 is seen to have taken P 0 from 12 as it blocks with it; then sysmon takes it."""
    scene = Scene()
    scene.runtime(100, "retake", 11, 0, reason=reason, target_tid=12)
    scene.block(100, 11, 90, 0)
    scene.runtime(150, "retake", 19, 0, reason="sysmon", target_tid=11)
    scene.exit(400, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["release_ns"], row["reason"]) == ("retaken", 150 * US, "sysmon")
    assert row["hold_ns"] == 50 * US


def test_p_that_came_from_another_s_call_at_this_very_block_can_be_kept(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(100, "retake", 11, 0, reason="exitsyscall", target_tid=12)
    scene.block(100, 11, 90, 0)
    scene.exit(400, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["hold_ns"]) == ("kept", 300 * US)


def test_a_retake_from_another_s_later_call_is_not_this_call_s(tmp_path: Path) -> None:
    """Nobody told how thread 11 lost P 0 in its call; at 150 it was in a call of thread 12."""
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.runtime(150, "retake", 19, 0, reason="sysmon", target_tid=12)
    scene.exit(400, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert pd.isna([row["outcome"], row["release_ns"], row["hold_ns"]]).all()


def test_handoff_by_the_thread_itself_is_for_its_next_call(tmp_path: Path) -> None:
    """It came back, made another call with a handoff, and found its P gone after that one."""
    scene = Scene()
    scene.block(100, 11, 90, 0, p_use="raw", nr=FUTEX)
    scene.exit(120, 11, 90)
    scene.runtime(130, "handoff", 11, 0, reason="syscall_block")
    scene.runtime(150, "exit_slow", 11)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["hold_ns"], row["exit_slow_ns"]) == ("kept", 20 * US, None)


def test_p_gone_at_the_return_and_nobody_told_when(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0)
    scene.exit(148, 11, 90)
    scene.runtime(149, "exit_slow", 11)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["outcome"], row["hold_ns"], row["class"]) == (None, None, "unknown")


def taken_back(returns: bool) -> Scene:
    """Thread 12 loses P 0 in a call; 11 gets it and blocks with it; 12 is back, and uses it.

    12's call goes on from 10 to 300 (to 900 if it does not return in between); 11's from 90 to
    1,000. At 350 thread 12, or else 13, blocks with P 0, which no row says was retaken.
    """
    scene = Scene(end_ns=2_000 * US)
    for tid in (11, 12, 13):
        scene.task(tid, 7)
    scene.task(19, 7, "sysmon")
    scene.block(20, 12, 10, 0, **BUSY)
    scene.runtime(50, "retake", 19, 0, reason="sysmon", target_tid=12)
    scene.runtime(51, "handoff", 19, 0, reason="sysmon")
    scene.runtime(60, "acquirep", 11, 0)
    scene.block(100, 11, 90, 0, **BUSY)
    scene.exit(300 if returns else 900, 12, 10, blocks=1)
    scene.block(350, 12 if returns else 13, 340, 0, **BUSY)
    scene.exit(380, 12 if returns else 13, 340, blocks=1)
    scene.exit(1_000, 11, 90, blocks=1)
    return scene


@pytest.mark.parametrize("window_rows", [1, 3, 1_000])
def test_p_taken_back_by_a_thread_that_returns(tmp_path: Path, window_rows: int) -> None:
    """Go's exitsyscall tries the old P first, and tells nobody to Go 1.25."""
    found = episodes(taken_back(returns=True).write(tmp_path), window_rows)
    row = found.set_index("tid").loc[11]
    assert (row["outcome"], row["reason"]) == ("retaken", "exitsyscall")
    assert (row["release_ns"], row["acquirep_ns"]) == (300 * US, 300 * US)
    assert (row["taker_tid"], row["runner_tid"]) == (12, 12)
    assert (row["hold_ns"], row["retake_ns"], row["harm_ns"]) == (200 * US, 200 * US, 200 * US)
    # Nobody came for what 12 had the second time.
    assert found[found["tid"] == 12]["outcome"].tolist() == ["retaken", "kept"]


@pytest.mark.parametrize("blocks", [True, False])
def test_who_is_seen_to_have_taken_p_back_runs_on_at_once(tmp_path: Path, blocks: bool) -> None:
    """Thread 12 takes P 0 from 11 after 200, and is seen with it at 240: as it blocks, or not."""
    scene = Scene()
    scene.block(100, 11, 90, 0, **BUSY)
    scene.switch(200, 19, 12)
    since_ns = 200 * US
    scene.runtime(240, "retake", 12, 0, reason="exitsyscall", target_tid=11, since_ns=since_ns)
    if blocks:
        scene.block(240, 12, 235, 0, **BUSY)
    scene.exit(400, 11, 90)
    row = episodes(scene.write(tmp_path)).set_index("tid").loc[11]
    assert (row["outcome"], row["reason"]) == ("retaken", "exitsyscall")
    assert (row["hold_ns"], row["retake_ns"]) == (140 * US, 140 * US)
    assert (row["taker_tid"], row["runner_tid"], row["acquirep_ns"]) == (12, 12, 240 * US)


def test_an_m_whose_acquirep_is_told_runs_on_as_of_then(tmp_path: Path) -> None:
    """A uprobe tells the retake itself, which has no interval; and then what follows."""
    scene = Scene()
    scene.block(100, 11, 90, 0, **BUSY)
    scene.runtime(240, "retake", 12, 0, reason="exitsyscall", target_tid=11)
    scene.runtime(245, "acquirep", 12, 0)
    scene.exit(400, 11, 90)
    row = only(episodes(scene.write(tmp_path)))
    assert (row["hold_ns"], row["retake_ns"]) == (140 * US, 145 * US)


@pytest.mark.parametrize(("lost_by", "outcome"), [(11, "kept"), (12, None)])
def test_p_taken_after_another_s_block_is_of_a_later_call(
    tmp_path: Path, lost_by: int, outcome: str | None
) -> None:
    """Thread 12 blocks with P after the first call returned. If P is then taken from 11, that had
    it in a second call, and its exit_slow is of that one; what 12 loses says nothing of 11."""
    scene = Scene()
    scene.block(100, 11, 90, 0, **BUSY)
    scene.exit(180, 11, 90)
    scene.block(300, 12, 290, 0, **BUSY)
    scene.runtime(400, "retake", 19, 0, reason="sysmon", target_tid=lost_by)
    scene.runtime(500, "exit_slow", 11)
    first = episodes(scene.write(tmp_path)).iloc[0]
    assert first["tid"] == 11
    assert (None if pd.isna(first["outcome"]) else first["outcome"]) == outcome


def test_calls_that_wait_for_a_release_are_forgotten(tmp_path: Path) -> None:
    """Two threads take turns with a P that nobody takes: no call's release can come 1 ms after its
    end."""
    scene = Scene(end_ns=10**9)
    for call in range(2_000):
        at = 100 + 100 * call
        scene.block(at, 11 + call % 2, at - 5, 0, **CALM)
        scene.exit(at + 50, 11 + call % 2, at - 5)
    trace = scene.write(tmp_path)
    engine = Episodes(False, False, 7)
    columns = {name: own for name, own in COLUMNS if name in ("block", "syscall")}
    for window in column_windows(trace, columns, 1 << 16):
        engine.feed(rows_of(pack(window.tables)), window.until_ns)
    assert engine.serial == 2_000
    [p] = [p for process in engine.processes.values() for p in process.ps]
    assert len(p.watching) + len(p.passed) < 200


@pytest.mark.parametrize("window_rows", [1, 3, 1_000])
def test_p_used_by_another_and_nobody_told_when(tmp_path: Path, window_rows: int) -> None:
    found = episodes(taken_back(returns=False).write(tmp_path), window_rows)
    row = found.set_index("tid").loc[11]
    for column in ("outcome", "release_ns", "hold_ns", "harm_ns", "retake_ns"):
        assert pd.isna(row[column]), column
