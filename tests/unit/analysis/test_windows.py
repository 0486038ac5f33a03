"""A trace cut into windows gives the episodes of the whole, wherever the cuts lie."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.ptime.episodes import EpisodeStream, Setting, episodes
from analysis.windowed import plain
from tests.unit.analysis.scene import Scene
from tracer.trace.reader import Trace
from tracer.trace.writer import TraceWriter

KINDS = ("retake", "handoff", "startm", "acquirep", "run", "pidle", "exit_slow")


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any order of rows that a few threads and Ps can produce, sense or no sense."""
    scene = Scene()
    now = 1
    entered: dict[int, int] = {}
    for _ in range(draw(st.integers(5, 40))):
        now += draw(st.integers(1, 900))
        tid = draw(st.integers(11, 14))
        p = draw(st.integers(0, 1))
        match draw(st.sampled_from(("block", "exit", "runtime", "wakeup", "switch"))):
            case "block":
                entered.setdefault(tid, now - 1)
                use = draw(st.sampled_from(("syscall", "raw", "handed_off")))
                state = {
                    name: draw(st.sampled_from((None, 0, 1)))
                    for name in ("runq", "global_runq", "npidle", "nmspinning")
                }
                held = None if use == "handed_off" else p
                scene.block(now, tid, entered[tid], held, p_use=use, **state)
            case "exit" if tid in entered:
                scene.exit(now, tid, entered.pop(tid))
            case "runtime":
                reason = draw(st.sampled_from(("syscall_block", "sysmon")))
                state = {"npidle": draw(st.sampled_from((None, 0, 1))), "nmspinning": 0}
                scene.runtime(now, draw(st.sampled_from(KINDS)), tid, p, reason=reason, **state)
            case "wakeup":
                scene.wakeup(now, tid)
            case _:
                scene.switch(now, 0, tid)
    return scene


END_NS = 40_000_000


def by_cuts(tables: dict[str, pd.DataFrame], cuts: list[int]) -> pd.DataFrame:
    setting = Setting.of(tables["task"], tables["loss"], [tables["runtime"]], end_ns=END_NS)
    stream = EpisodeStream(setting)
    pieces = []
    since = -1
    for until in [*sorted(cuts), END_NS]:
        window = {
            name: rows[rows[plain.TIME_COLUMN[name]].between(since + 1, until)]
            for name, rows in tables.items()
        }
        pieces.append(stream.feed(window, until))
        since = until
    pieces.append(stream.close())
    whole = pd.concat(pieces, ignore_index=True)
    return whole.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)


@settings(deadline=None, max_examples=20)
@given(scenes(), st.lists(st.integers(0, END_NS), max_size=6))
def test_any_cuts_give_the_same_episodes(scene: Scene, cuts: list[int]) -> None:
    tables = {name: plain.from_frame(name, scene.frame(name)) for name in plain.TIME_COLUMN}
    pd.testing.assert_frame_equal(by_cuts(tables, cuts), by_cuts(tables, []))


def test_windows_of_a_trace_on_disk_give_the_same_episodes(tmp_path: Path) -> None:
    """1,000 calls in 40 parts a table, which do not lie in the order of time."""
    writer = TraceWriter(tmp_path / "many.pretake")
    whole = Scene()
    for chunk in [*range(1, 40, 2), *range(0, 40, 2)]:
        scene = Scene()
        for call in range(25):
            at = (chunk * 25 + call) * 100
            for target in (scene, whole):
                target.block(at + 10, 11, at, 0, runq=call % 2, npidle=0, nmspinning=0)
                target.runtime(at + 30 + call, "retake", 19, 0, reason="sysmon")
                target.runtime(at + 60, "run", 12, 0)
                target.exit(at + 90, 11, at)
        piece = scene.write(tmp_path, f"{chunk}.pretake")
        for name in ("block", "runtime", "syscall"):
            writer.write(name, piece.arrow(name))
            writer.rotate(now=True)
    writer.close(piece.manifest)
    trace = Trace(tmp_path / "many.pretake")
    small = episodes(trace, window_rows=300)
    assert len(small) == 1_000
    assert small["retake_ns"].eq(50_000).all()
    assert small["hold_ns"].sum() == 40 * sum((20 + call) * 1_000 for call in range(25))
    pd.testing.assert_frame_equal(small, episodes(whole.write(tmp_path)))
