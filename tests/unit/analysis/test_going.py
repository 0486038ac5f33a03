"""Stall time while a program runs: rows of a run made by hand, fed piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from analysis.answers.budget import budget
from analysis.answers.going import GoingPressure
from analysis.answers.pressure import CAUSES, KINDS, ProcessPressure, kind_of
from analysis.ptime.engine.moves import REACH_NS
from analysis.windowed.columns import TIME_COLUMN, plain_array
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_budget import look
from tests.unit.analysis.test_pressure import SECOND, back, block, one_p
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

END = 20


def held_for_six_seconds() -> Scene:
    """The only P is held in read from 12 to 18 of 20 s, in a fault from 18.5 to 19; three wait."""
    scene = one_p(END * SECOND)
    scene.rows["reach"].append(
        {"exec_ns": 0, "ts_ns": 0, "pid": 7, "generation": 0, "runtime": "go", "comm": "server"}
    )
    scene.task(7, 7, "server")
    look(scene, 12 * SECOND, 3, gomaxprocs=1)
    block(scene, 12 * SECOND, 11, 0)
    back(scene, 18 * SECOND, 11)
    scene.exit(18 * SECOND, 11, 12 * SECOND)
    look(scene, 18.5 * SECOND, 3, gomaxprocs=1)
    block(scene, 18.5 * SECOND, 11, 0, why="fault", nr=None, p_use=None)
    back(scene, 19 * SECOND, 11)
    look(scene, END * SECOND, 3, gomaxprocs=1)
    return scene


def records_of(table: str, rows: pa.Table) -> np.ndarray:
    """Rows of a trace as a ring would have had them."""
    records = np.zeros(rows.num_rows, TABLES[table].dtype)
    for column in TABLES[table].columns:
        values = rows.column(column.name)
        if column.is_text:
            records[column.name] = [(text or "").encode() for text in values.to_pylist()]
            continue
        numbers = plain_array(column, values)
        records[column.name] = np.where(numbers == UNKNOWN, column.unknown, numbers)
    return records


def pieces_of(table: str, rows: pa.Table) -> list[np.ndarray]:
    """The same as the rings of two CPUs, read one after the other, would have had them."""
    records = records_of(table, rows)
    return [records[::2], records[1::2]]


def all_records(trace: Trace) -> dict[str, list[np.ndarray]]:
    return {name: pieces_of(name, trace.arrow(name)) for name in TIME_COLUMN}


def fed(trace: Trace, step_ns: int, late_ns: int = 0) -> list[ProcessPressure]:
    """What is told at the end, of rows that come up to ``late_ns`` late."""
    going = GoingPressure(0, "reference")
    tables = {name: trace.arrow(name) for name in TABLES}
    end_ns = END * SECOND * US + REACH_NS + 1
    at = 0
    while at < end_ns:
        until = min(at + step_ns, end_ns)
        news: dict[str, list[np.ndarray]] = {}
        for name, time in TIME_COLUMN.items():
            times = pc.cast(tables[name].column(time), pa.int64())
            # A row that is late comes with the others of a later piece.
            low, high = (
                (at - late_ns, until - late_ns) if until < end_ns else (at - late_ns, 1 << 60)
            )
            rows = tables[name].filter(
                pc.and_(pc.greater_equal(times, low if at else -(1 << 60)), pc.less(times, high))
            )
            news[name] = pieces_of(name, rows)
        reach = {"reach": tables["reach"]}
        going.feed(news, reach, until - late_ns if until < end_ns else until)
        at = until
    return going.told()


@pytest.mark.parametrize(("step_s", "late_s"), [(0.3, 0.0), (0.7, 0.2), (25.0, 0.0)])
def test_it_tells_what_the_trace_tells(step_s: float, late_s: float, tmp_path: Path) -> None:
    trace = held_for_six_seconds().write(tmp_path)
    (process,) = fed(trace, round(step_s * 1e9), round(late_s * 1e9))
    assert (process["pid"], process["comm"], process["procs"]) == (7, "server", 1)
    told = process["pressure"]
    assert [own["seconds"] for own in told.values()] == [10, 20, 20, 20]
    for window, share in (("10s", 60.0), ("total", 30.0)):
        some = kind_of(told[window]["causes"]["syscall"], "some")
        assert (some["least"], some["most"]) == pytest.approx((share, share))
    assert told["10s"]["causes"]["fault"]["full"]["least"] == pytest.approx(5.0)
    assert told["10s"]["some"] == pytest.approx(65.0)
    (offline,) = budget(trace)["processes"]
    for window, own in told.items():
        for cause in CAUSES:
            for kind in KINDS:
                one, other = (
                    kind_of(p["causes"][cause], kind) for p in (own, offline["pressure"][window])
                )
                assert one == other, (window, cause, kind)
    assert process["states"] == offline["states"]


def test_at_the_end_what_is_no_whole_second_is_told_too(tmp_path: Path) -> None:
    """The scene's 20 s are fed at once, and end 2.5 s later."""
    trace = held_for_six_seconds().write(tmp_path)
    going = GoingPressure(0, "reference")
    going.feed(all_records(trace), {"reach": trace.arrow("reach")}, 22_500_000_000)
    going.finish()
    (process,) = going.told()
    assert process["pressure"]["total"]["seconds"] == 22.5
    assert process["pressure"]["total"]["some"] == pytest.approx(100 * 6.5 / 22.5)


def test_before_a_process_is_in_reach_nothing_of_it_is_known(tmp_path: Path) -> None:
    scene = held_for_six_seconds()
    scene.rows["reach"][0]["ts_ns"] = 15 * SECOND * US
    (process,) = fed(scene.write(tmp_path), 10**9)
    assert process["states"]["unknown"] == 15 * SECOND * US
    # Of the 6 s only what is after 15 s.
    assert process["pressure"]["total"]["causes"]["syscall"]["some"]["least_ns"] <= 3e9


def test_before_the_first_second_there_is_nothing() -> None:
    going = GoingPressure(0, "go")
    assert going.told() == []
    going.feed({}, {}, 10)
    assert going.told() == []


def test_renewed_it_goes_on_from_where_it_is(tmp_path: Path) -> None:
    """The P is held from 12 to 18 s; the pass begins again at 15 s."""
    trace = held_for_six_seconds().write(tmp_path)
    reach = {"reach": trace.arrow("reach")}
    going = GoingPressure(0, "reference")
    # All that comes by 15 s, and rows that came early wait for their time.
    going.feed(all_records(trace), reach, 15 * SECOND * US)
    first = going.threads
    renewed = going.renewed()
    assert 0 < renewed.threads <= first
    renewed.feed({}, reach, 22_500_000_000)
    renewed.finish()
    (process,) = renewed.told()
    assert (process["pid"], process["comm"]) == (7, "server")
    assert process["pressure"]["total"]["seconds"] == 7.5
    assert sum(process["states"].values()) == 7_500_000_000
    # What the P was doing at 15 s is not known; what came since is.
    assert process["states"]["fault"] == SECOND * US // 2


def life(scene: Scene, pid: int, begin_s: float, end_s: float) -> None:
    """A process of one thread and one P, which runs from its first µs to its last."""
    begin, end = begin_s * SECOND, end_s * SECOND
    scene.task(pid, pid, f"p{pid}", at=begin, kind="fork")
    ns = round(begin * US)
    scene.rows["reach"].append({"exec_ns": ns, "ts_ns": ns, "pid": pid, "runtime": "go"})
    scene.switch(begin + 1, 0, pid)
    scene.runtime(begin + 1, "run", pid, 0)
    look(scene, begin + 1, 0, gomaxprocs=1, pid=pid, tid=pid)
    scene.switch(end, pid, 0, "dead")
    scene.task(pid, pid, f"p{pid}", at=end, kind="exit")


def by_seconds(trace: Trace, going: GoingPressure, begin_s: int, end_s: int) -> None:
    """Feed it second by second, each with the rows of it; programs that ended stay in reach."""
    records = all_records(trace)
    reach = trace.arrow("reach")
    for second in range(begin_s + 1, end_s + 1):
        until_ns = second * 10**9
        news = {}
        for name, time in TIME_COLUMN.items():
            first = until_ns - 10**9 if second > 1 else -1
            news[name] = [
                piece[(piece[time] > first) & (piece[time] <= until_ns)] for piece in records[name]
            ]
        known = reach.filter(pc.less_equal(reach["exec_ns"], until_ns))
        going.feed(news, {"reach": known}, until_ns)


def test_what_a_process_costs_does_not_grow_with_the_time_before_it(tmp_path: Path) -> None:
    """It is told of bins for its own seconds alone: after weeks there would be a million more."""
    scene = Scene(end_ns=1_010 * 10**9)
    life(scene, 70, 1_000.25, 1_003.25)
    bins: list[tuple[int, int]] = []

    def settled(name: str, rows: Mapping[str, np.ndarray]) -> None:
        if name == "bins":
            bins.extend(zip(rows["ts_ns"].tolist(), rows["p_ns"].tolist(), strict=True))

    going = GoingPressure(0, "reference", on_settled=settled)
    by_seconds(scene.write(tmp_path), going, 0, 1_010)
    quarter = 10**9 // 4
    assert [told for told in bins if told[1]] == [
        (1_001 * 10**9, 3 * quarter),
        (1_002 * 10**9, 7 * quarter),
        (1_003 * 10**9, 11 * quarter),
        (1_003 * 10**9 + quarter, 12 * quarter),
    ]
    assert len(bins) <= 6
    (process,) = going.told()
    assert (process["pid"], process["comm"], process["procs"]) == (70, "p70", 1)
    assert process["pressure"]["total"]["seconds"] == 3.0
    assert sum(process["states"].values()) == 3 * 10**9
    assert process["states"]["running"] == 3 * 10**9 - US


def test_one_that_was_there_before_it_was_found_has_no_time_before(tmp_path: Path) -> None:
    scene = Scene(end_ns=60 * 10**9)
    life(scene, 70, 50, 53)
    scene.rows["task"][0]["kind"] = "present"
    going = GoingPressure(0, "reference")
    by_seconds(scene.write(tmp_path), going, 0, 60)
    (process,) = going.told()
    assert sum(process["states"].values()) == 3 * 10**9
    assert process["states"]["unknown"] == US


def test_of_those_that_ended_nothing_stays(tmp_path: Path) -> None:
    """One after the other for 200 s, each under a number and a program of its own."""
    scene = Scene(end_ns=600 * 10**9)
    for number in range(40):
        life(scene, 100 + number, 5 * number, 5 * number + 3)
    trace = scene.write(tmp_path)
    going = GoingPressure(0, "reference")
    by_seconds(trace, going, 0, 205)
    # For the averages of five minutes all of them are still told.
    assert {process["pid"] for process in going.told()} == set(range(100, 140))
    assert {sum(process["states"].values()) for process in going.told()} == {3 * 10**9}
    assert len(going._runner.processes()) <= 4
    for second in range(206, 601):
        going.feed({}, {}, second * 10**9)
    assert going.told() == []
    assert going._runner.processes() == {}
    assert (going._comms, going._places, going._past) == ({}, {}, {})


@pytest.mark.parametrize("kind", ["fork", "present"])
def test_a_number_that_is_used_again_is_another_process(kind: str, tmp_path: Path) -> None:
    scene = Scene(end_ns=60 * 10**9)
    life(scene, 70, 1, 9)
    life(scene, 70, 40, 42)
    scene.rows["reach"][1]["generation"] = 1
    scene.rows["task"][2]["kind"] = kind
    going = GoingPressure(0, "reference")
    by_seconds(scene.write(tmp_path), going, 0, 60)
    (process,) = going.told()
    assert sum(process["states"].values()) == 2 * 10**9
    assert process["states"]["running"] == 2 * 10**9 - US
    assert process["pressure"]["total"]["seconds"] == 2.0


def test_renewed_it_does_not_hear_again_of_those_that_ended(tmp_path: Path) -> None:
    """A program that ended is in table reach for as long as the window may ask of it."""
    scene = Scene(end_ns=40 * 10**9)
    life(scene, 70, 1, 3)
    life(scene, 80, 2, 30)
    trace = scene.write(tmp_path)
    going = GoingPressure(0, "reference")
    by_seconds(trace, going, 0, 20)
    renewed = going.renewed()
    by_seconds(trace, renewed, 20, 25)
    assert set(renewed._runner.processes()) == {80}
