"""Harm: hand-made states of a scheduler, and the nanoseconds in which nobody could help."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.ptime.episodes import episodes
from tests.unit.analysis.scene import US, Scene, only


def harm(
    tmp_path: Path,
    runq: int | None,
    *states: tuple[int, int | None, int | None, int | None],
) -> int | None:
    """Harm in µs of a hold from 100 to 200, with (time, global_runq, npidle, nmspinning)."""
    scene = Scene()
    first, *later = states
    names = ("global_runq", "npidle", "nmspinning")
    scene.block(100, 11, 90, 0, runq=runq, **dict(zip(names, first[1:], strict=True)))
    for at, *values in later:
        scene.runtime(at, "stopm", 15, **dict(zip(names, values, strict=True)))
    scene.runtime(200, "retake", 19, 0)
    scene.exit(400, 11, 90)
    found = only(episodes(scene.write(tmp_path)))["harm_ns"]
    return None if found is None else found // US


@pytest.mark.parametrize(
    ("runq", "states", "expected"),
    [
        pytest.param(1, [(100, 0, 0, 0)], 100, id="work waits and nobody is free"),
        pytest.param(0, [(100, 0, 0, 0)], 0, id="nothing waits"),
        pytest.param(0, [(100, 3, 0, 0)], 100, id="work waits in the global queue"),
        pytest.param(1, [(100, 0, 1, 0)], 0, id="an idle P could take it"),
        pytest.param(1, [(100, 0, 0, 1)], 0, id="a spinning M could take it"),
        pytest.param(1, [(100, 0, 1, 0), (130, 0, 0, 0)], 70, id="the idle P goes at 130"),
        pytest.param(1, [(100, 0, 0, 0), (130, 0, 1, 0)], 30, id="an idle P comes at 130"),
        pytest.param(
            1, [(100, 0, 0, 0), (110, 0, 2, 0), (150, 0, 0, 0)], 60, id="one comes and goes"
        ),
        pytest.param(0, [(100, 0, 0, 0), (180, 1, 0, 0)], 20, id="global work comes at 180"),
        pytest.param(0, [(100, 2, 0, 0), (180, 0, 0, 0)], 80, id="global work is taken at 180"),
        pytest.param(1, [(100, 0, None, None)], None, id="not known who is free"),
        pytest.param(1, [(100, 0, 1, None)], 0, id="one idle P is enough to know"),
        pytest.param(1, [(100, 0, 0, None)], None, id="no idle P, spinning Ms not known"),
        pytest.param(None, [(100, 0, 0, 0)], None, id="own queue not known"),
        pytest.param(None, [(100, 1, 0, 0)], 100, id="own queue not known, global has work"),
        pytest.param(0, [(100, None, 0, 0)], None, id="global queue not known"),
        pytest.param(1, [(100, None, 0, 0)], 100, id="own queue alone is enough to know"),
        pytest.param(
            1, [(100, 0, 0, 0), (150, None, 1, None)], 50, id="what is not told stays as it was"
        ),
        pytest.param(1, [(100, 0, 0, 0), (300, 0, 1, 0)], 100, id="what comes later is no matter"),
    ],
)
def test_harm(
    tmp_path: Path,
    runq: int | None,
    states: list[tuple[int, int | None, int | None, int | None]],
    expected: int | None,
) -> None:
    assert harm(tmp_path, runq, *states) == expected


def test_state_of_another_process_is_no_matter(tmp_path: Path) -> None:
    scene = Scene()
    scene.task(11, 7)
    scene.task(19, 7)
    scene.task(25, 8)
    scene.block(100, 11, 90, 0, runq=1, global_runq=0, npidle=0, nmspinning=0)
    scene.runtime(130, "pidle", 25, 0, npidle=4)
    scene.runtime(200, "retake", 19, 0)
    scene.exit(400, 11, 90)
    assert only(episodes(scene.write(tmp_path)))["harm_ns"] == 100 * US
