"""What is made of a trace piece by piece is what is made of the whole, and never reads that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from analysis.answers.advise import advise, advise_trace
from analysis.answers.factors import factors
from analysis.ptime.episodes import episodes
from analysis.trust.validate import validate
from tests.unit.analysis.scene import POLL, READ, Scene
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES
from tracer.trace.writer import TraceWriter

LARGE = ("sched_switch", "sched_wakeup", "block", "syscall", "runtime")


def busy(calls: int = 400, apart: int = 400) -> Scene:
    """Four threads that block, are retaken and woken; a fifth is in two calls at once."""
    chance = random.Random(7)
    scene = Scene(end_ns=max(10**9, calls * apart * 1000))
    for tid in (11, 12, 13, 14, 19):
        scene.task(tid, 7)
    for call in range(calls):
        at = call * apart + chance.randrange(60)
        tid, other = chance.sample((11, 12, 13, 14), 2)
        p = chance.randrange(2)
        nr = chance.choice((READ, POLL))
        alone = {"npidle": chance.choice((None, 0, 1)), "nmspinning": 0, "global_runq": 0}
        scene.switch(at - 20, 0, tid, cpu=chance.randrange(2))
        scene.block(at, tid, at - 5, p, nr=nr, runq=chance.randrange(4), m=tid, **alone)
        scene.switch(at, tid, 0)
        scene.wakeup(at + 20, 19)
        scene.switch(at + 20 + chance.randrange(30), 0, 19, cpu=1)
        if chance.random() < 0.8:
            scene.runtime(at + 60, "retake", 19, p, reason="sysmon", target_tid=tid)
            scene.runtime(at + 61, "startm", 19, p, target_tid=other)
            scene.wakeup(at + 62, other, waker_tid=19)
            scene.switch(at + 62 + chance.randrange(9), 0, other, cpu=chance.randrange(2))
            scene.runtime(at + 75 + chance.randrange(200), "run", other, p, goid=other)
        late = at + chance.randrange(40, 300)
        scene.exit(late, tid, at - 5, nr=nr, blocks=1)
        scene.exit(late + 7, tid, late + 5, nr=nr, blocks=0)
        for begin in (10, chance.randrange(20, 90)):
            scene.exit(at + begin + 40, 15, at + begin, nr=1, blocks=chance.randrange(2))
    return scene


def in_parts(trace: Trace, folder: Path, rows: int) -> Trace:
    """The same trace in parts of so many rows."""
    writer = TraceWriter(folder / "parts.pretake", trace.manifest)
    for name in TABLES:
        table = trace.arrow(name)
        for first in range(0, table.num_rows, rows):
            writer.write(name, table.slice(first, rows))
            writer.rotate(now=True)
    writer.close(trace.manifest)
    return Trace(folder / "parts.pretake")


@pytest.fixture
def whole(tmp_path: Path) -> Trace:
    return busy().write(tmp_path)


@pytest.fixture
def parts(whole: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """In parts of 64 rows, of which no large table may be read at once."""
    trace = in_parts(whole, tmp_path, 64)
    read = trace.arrow

    def read_small(table: str, columns: Sequence[str] | None = None) -> pa.Table:
        assert table not in LARGE, f"all of {table} was read at once"
        return read(table, columns)

    monkeypatch.setattr(trace, "arrow", read_small)
    return trace


def test_factors(whole: Trace, parts: Trace) -> None:
    small = factors(parts, window_rows=100)
    assert small["effect"].notna().sum() >= 5
    pd.testing.assert_frame_equal(small, factors(whole, window_rows=10**9))
    pd.testing.assert_frame_equal(small, factors(whole, episodes(whole)))


@pytest.mark.parametrize("rows", [1, 150, 10**9])
def test_rules(whole: Trace, parts: Trace, rows: int) -> None:
    """Each thread by itself, two of them together, and all at once."""
    small = validate(parts, rows)
    # This trace has no look at Ps, no interval, no loss, and no call with its blocked time.
    looks = {"p_is_there", "ps_in_all", "queues_read_in_all"}
    unchecked = set(small.loc[small["checked"] == 0, "rule"])
    assert unchecked == looks | {"interval_in_order", "losses_told", "blocked_in_call"}
    broken = small.set_index("rule")["broken"]
    assert broken["calls_apart"] > 0
    assert broken["switches_alternate"] > 0
    pd.testing.assert_frame_equal(small, validate(whole))


def test_advice(whole: Trace, parts: Trace) -> None:
    small = advise_trace(parts, window_rows=100)
    assert small["way_best"].notna().any()
    assert small["block_share"].tolist() == [0.5, 0.5]  # each call that blocked, one that did not
    calls = whole.frame("syscall", ["nr", "blocks"])
    pd.testing.assert_frame_equal(small, advise(episodes(whole), calls))
