"""Stall time by cause, in traces made by hand; every expected number was computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from analysis.answers.budget import budget
from analysis.answers.pressure import (
    CAUSES,
    Pressure,
    distinct_windows,
    pressure_of,
    stalls_of,
)
from analysis.formats.prometheus import text
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_budget import look, two_ps

SECOND = 1_000_000
OF_PROCESS = ("pid", "comm", "container", "pod")


def pressure(scene: Scene, folder: Path) -> dict[str, Pressure]:
    (process,) = budget(scene.write(folder))["processes"]
    return process["pressure"]


def some_and_full(told: Pressure, cause: str) -> tuple[float, float]:
    """Both shares, which are known."""
    own = told["causes"][cause]
    for stall in (own["some"], own["full"]):
        assert stall["least"] == stall["most"]
    return own["some"]["least"], own["full"]["least"]


def block(scene: Scene, at: float, tid: int, p: int, **more: object) -> None:
    scene.block(at, tid, None if more else at, p, **more)
    scene.switch(at, tid, 0)


def back(scene: Scene, at: float, tid: int) -> None:
    scene.wakeup(at, tid)
    scene.switch(at, 0, tid)


def one_p(end: float) -> Scene:
    """The only P runs from 0 on, with thread 11."""
    scene = Scene(end_ns=round(end * US))
    scene.task(11, 7)
    scene.switch(0, 0, 11)
    scene.runtime(0, "run", 11, 0)
    return scene


def test_some_is_one_cause_or_more_and_full_is_none_that_runs(tmp_path: Path) -> None:
    """P 0 in read from 100 to 300 of 400 µs, P 1 in a fault from 200 to 250; three wait."""
    scene = two_ps(400)
    block(scene, 100, 11, 0)
    block(scene, 200, 12, 1, why="fault", nr=None, p_use=None)
    back(scene, 250, 12)
    back(scene, 300, 11)
    scene.exit(301, 11, 100)
    look(scene, 400, 3)
    told = pressure(scene, tmp_path)["total"]
    assert told["seconds"] == 0.0004
    assert (told["some"], told["full"]) == (50.0, 12.5)
    assert some_and_full(told, "syscall") == (50.0, 12.5)
    # The same 50 µs are the fault's, too: causes overlap.
    assert some_and_full(told, "fault") == (12.5, 12.5)
    assert set(told["causes"]) == set(CAUSES)
    for cause in ("no_cpu", "stopped", "transit", "stw"):
        assert some_and_full(told, cause) == (0.0, 0.0)


def test_nothing_is_lost_while_nothing_waits(tmp_path: Path) -> None:
    scene = one_p(400)
    look(scene, 0, 0, gomaxprocs=1)
    block(scene, 100, 11, 0)
    look(scene, 400, 0, gomaxprocs=1)
    told = pressure(scene, tmp_path)
    assert (told["total"]["some_most"], told["total"]["full_most"]) == (0.0, 0.0)
    assert not list(stalls_of(told))


def test_each_window_is_a_plain_average_over_the_last_seconds(tmp_path: Path) -> None:
    """The only P is lost for 6 s that end 2 s before the end of 400 s."""
    scene = one_p(400 * SECOND)
    look(scene, 392 * SECOND, 3, gomaxprocs=1)
    block(scene, 392 * SECOND, 11, 0)
    back(scene, 398 * SECOND, 11)
    scene.exit(398 * SECOND + 1, 11, 392 * SECOND)
    look(scene, 400 * SECOND, 3, gomaxprocs=1)
    told = pressure(scene, tmp_path)
    for window, share in (("10s", 60.0), ("60s", 10.0), ("300s", 2.0), ("total", 1.5)):
        assert told[window]["some"] == pytest.approx(share)
        assert told[window]["full"] == pytest.approx(share)
    assert [told[window]["seconds"] for window in told] == [10, 60, 300, 400]
    assert distinct_windows(told) == {
        "10s": "last 10 s",
        "60s": "last 60 s",
        "300s": "last 300 s",
        "total": "all 400 s",
    }


def test_a_window_is_no_longer_than_what_there_was(tmp_path: Path) -> None:
    scene = two_ps(400)
    block(scene, 100, 11, 0)
    look(scene, 400, 3)
    told = pressure(scene, tmp_path)
    assert {own["seconds"] for own in told.values()} == {0.0004}
    assert {own["some"] for own in told.values()} == {75.0}
    assert distinct_windows(told) == {"total": "all 0.0004 s"}


def test_of_a_p_that_nobody_knows_it_is_not_known_whether_it_ran(tmp_path: Path) -> None:
    """Only P 0 is ever seen of two; it is lost to read from 100 to 400."""
    scene = one_p(400)
    look(scene, 0, 3)
    block(scene, 100, 11, 0)
    look(scene, 400, 3)
    told = pressure(scene, tmp_path)["total"]
    assert told["unknown"] == 50.0
    full = told["causes"]["syscall"]["full"]
    assert (full["least"], full["most"]) == (0.0, 75.0)
    assert (told["full"], told["full_most"]) == (0.0, 75.0)


def test_between_two_looks_it_is_an_interval(tmp_path: Path) -> None:
    """The only P is held from 1 to 6 ms; a spinning M was there at 1 ms, and at 4 ms none."""
    scene = one_p(6_000)
    look(scene, 0, 0, gomaxprocs=1, nmspinning=1)
    block(scene, 1_000, 11, 0)
    look(scene, 1_000, 0, gomaxprocs=1, nmspinning=1)
    look(scene, 4_000, 2, gomaxprocs=1)
    look(scene, 6_000, 2, gomaxprocs=1)
    told = pressure(scene, tmp_path)
    some = told["total"]["causes"]["syscall"]["some"]
    assert some["least"] == pytest.approx(100 * 2 / 6)
    assert some["most"] == pytest.approx(100 * 5 / 6)
    rows = {(row.cause, row.kind): row.over["total"] for row in stalls_of(told)}
    assert list(rows) == [
        ("any cause", "some"),
        ("any cause", "full"),
        ("syscall", "some"),
        ("syscall", "full"),
    ]
    assert rows["any cause", "full"] == (some["least"], some["most"])


def test_a_process_without_rows_has_none() -> None:
    import numpy as np

    assert pressure_of({"pid": np.empty(0, np.int64), "ts_ns": np.empty(0, np.int64)}, 7, 0) == {}
    assert distinct_windows({}) == {}


def test_prometheus_gets_the_same_as_seconds_and_ratios(tmp_path: Path) -> None:
    """The first test's run: counters have no sum over causes, and any cause has its own."""
    scene = two_ps(400)
    scene.task(7, 7, 'a"b\n')
    block(scene, 100, 11, 0)
    block(scene, 200, 12, 1, why="fault", nr=None, p_use=None)
    back(scene, 250, 12)
    back(scene, 300, 11)
    scene.exit(301, 11, 100)
    look(scene, 400, 3)
    page = text(budget(scene.write(tmp_path))["processes"])
    page.encode()
    told = {
        (
            sample.name,
            *(sample.labels[n] for n in sorted(sample.labels) if n not in OF_PROCESS),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    for bound in ("least", "most"):
        for (cause, kind), us in {
            ("syscall", "some"): 200,
            ("syscall", "full"): 50,
            ("fault", "some"): 50,
            ("fault", "full"): 50,
            ("no_cpu", "some"): 0,
        }.items():
            seconds = told["pretake_stall_seconds_total", bound, cause, kind]
            assert seconds == pytest.approx(us / 1e6)
            assert told["pretake_stall_ratio", bound, cause, kind, "60s"] == us / 400
        assert told["pretake_stall_any_seconds_total", bound, "some"] == pytest.approx(200e-6)
        assert told["pretake_stall_any_ratio", bound, "full", "300s"] == 50 / 400
    assert told["pretake_p_seconds_total", "fault"] == pytest.approx(50e-6)
    assert told["pretake_gomaxprocs",] == 2
