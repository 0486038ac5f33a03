"""Stall time while a program runs: rows of a run made by hand, fed piece by piece."""

from __future__ import annotations

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


def all_records(trace: Trace) -> dict[str, np.ndarray]:
    return {name: records_of(name, trace.arrow(name)) for name in TIME_COLUMN}


def fed(trace: Trace, step_ns: int, late_ns: int = 0) -> list[ProcessPressure]:
    """What is told at the end, of rows that come up to ``late_ns`` late."""
    going = GoingPressure(0, "reference")
    tables = {name: trace.arrow(name) for name in TABLES}
    end_ns = END * SECOND * US + REACH_NS + 1
    at = 0
    while at < end_ns:
        until = min(at + step_ns, end_ns)
        news: dict[str, np.ndarray] = {}
        for name, time in TIME_COLUMN.items():
            times = pc.cast(tables[name].column(time), pa.int64())
            # A row that is late comes with the others of a later piece.
            low, high = (
                (at - late_ns, until - late_ns) if until < end_ns else (at - late_ns, 1 << 60)
            )
            rows = tables[name].filter(
                pc.and_(pc.greater_equal(times, low if at else -(1 << 60)), pc.less(times, high))
            )
            news[name] = records_of(name, rows)
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
