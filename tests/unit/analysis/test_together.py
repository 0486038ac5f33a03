"""Episodes from the reading that the pass is made of are those from a reading of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from analysis.answers.summary import SummaryBuilder
from analysis.ptime import together
from analysis.ptime.budget import PassRunner, run_pass
from analysis.ptime.episodes import PlainEpisodes, episodes, setting_of
from analysis.ptime.packed import Packed
from analysis.ptime.together import EpisodesAlong
from analysis.schema import EPISODES
from analysis.windowed.columns import ColumnWindow
from tests.unit.analysis.scene import Scene
from tests.unit.analysis.test_bounded import busy, in_parts
from tracer.trace.reader import Trace

COLUMNS = ("tid", "block_ns", *SummaryBuilder.COLUMNS, "harm_most_ns", "awake_ns")
SECOND = 1_000_000


def along(trace: Trace, window_rows: int) -> pd.DataFrame:
    pieces: list[PlainEpisodes] = []
    made = EpisodesAlong(setting_of(trace), COLUMNS, pieces.append)
    run_pass(trace, window_rows=window_rows, on_holds=made.add_holds, on_window=made.window)
    made.end()
    rows = pd.concat([EPISODES.finish(piece, COLUMNS) for piece in pieces], ignore_index=True)
    return rows.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)


@pytest.mark.parametrize("rows", [20, 300, 1 << 16])
@pytest.mark.parametrize("at_once", [1, 64])
def test_one_reading_makes_the_same_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, at_once: int
) -> None:
    """400 calls over four seconds: the pass is a second behind, so most have to wait for it."""
    monkeypatch.setattr(together, "_AT_ONCE", at_once)
    trace = in_parts(busy(400, 10_000).write(tmp_path), tmp_path, 128)
    expected = episodes(trace)[list(COLUMNS)]
    assert len(expected) > 300
    assert expected["harm_ns"].notna().sum() > 100
    pd.testing.assert_frame_equal(along(trace, rows), expected)


def test_a_hold_that_outlives_its_episode_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the first call's end is lost, and the thread blocks again in another entry of
    the same call: the episode ends there, and P's hold only with the second call, at 3 s."""
    monkeypatch.setattr(together, "_AT_ONCE", 1)
    scene = Scene(end_ns=5 * SECOND * 1_000)
    scene.switch(0, 0, 11)
    for at in (100, SECOND):
        scene.block(at, 11, at - 5, 0, runq=1, npidle=0, nmspinning=0)
        scene.switch(at, 11, 0)
    scene.exit(3 * SECOND, 11, SECOND - 5)
    for at in range(1, 50):
        scene.switch(at * SECOND / 10 + 7, 0, 12)
    trace = scene.write(tmp_path)
    expected = episodes(trace)[list(COLUMNS)]
    assert len(expected) == 2
    pd.testing.assert_frame_equal(along(trace, 4), expected)


def test_of_a_call_that_goes_on_only_its_own_hold_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread waits in a read of P 7 for the whole trace, as some thread of most servers does."""
    monkeypatch.setattr(together, "_AT_ONCE", 1)
    scene = busy(400, 10_000)
    scene.task(21, 7)
    scene.block(1, 21, 0, 7, runq=1, npidle=0, nmspinning=0)
    trace = scene.write(tmp_path)
    pieces: list[PlainEpisodes] = []
    made = EpisodesAlong(setting_of(trace), COLUMNS, pieces.append)
    kept: list[int] = []

    def window(read: ColumnWindow, packed: Sequence[Packed], runner: PassRunner) -> None:
        made.window(read, packed, runner)
        kept.append(sum(len(holds["tid"]) for holds in made._holds))

    run_pass(trace, window_rows=40, on_holds=made.add_holds, on_window=window)
    made.end()
    assert sum(len(piece["tid"]) for piece in pieces) > 300
    # Those that a window settled and that are not finished yet; not the 300 before them.
    assert max(kept) < 60


def test_a_summary_needs_no_pandas(tmp_path: Path) -> None:
    busy(20).write(tmp_path, "busy.pretake")
    told = subprocess.run(
        [sys.executable, "-c", _SUMMARY, str(tmp_path / "busy.pretake")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "episodes []\n"


_SUMMARY = """
import sys
from pretake.commands.summary import command
from click.testing import CliRunner
told = CliRunner().invoke(command, [sys.argv[1], "--json"])
assert told.exit_code == 0, told.output
found = {"pandas", "pyarrow.compute"} & set(sys.modules)
print("episodes" if '"episodes": 20' in told.output else told.output, sorted(found))
"""
