"""Many traces: the same to the bit here and on a cluster of two workers, and from a store."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from analysis.answers.cluster import compare_all, map_traces
from analysis.answers.summary import summary
from analysis.ptime.episodes import episodes
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_summary import ten_calls
from tracer.errors import PretakeError


@pytest.fixture
def traces(tmp_path: Path) -> list[str]:
    scenes = [ten_calls(workload={"policy": str(number)}) for number in range(5)]
    for number, scene in enumerate(scenes):
        # Each a little different, so that results in another order would show.
        scene.block(11_000, 11, 10_990, 0)
        scene.exit(11_100 + number, 11, 10_990)
    scenes.append(Scene(workload={"policy": "none"}))
    return [str(s.write(tmp_path, f"host{n}.pretake").path) for n, s in enumerate(scenes)]


def test_a_cluster_gives_the_same_to_the_bit(traces: list[str], scheduler: str) -> None:
    # JSON writes a float so that it reads back as the very same one.
    here, there = map_traces(summary, traces), map_traces(summary, traces, scheduler)
    assert json.dumps(there) == json.dumps(here)
    for one, other in zip(
        map_traces(episodes, traces), map_traces(episodes, traces, scheduler), strict=True
    ):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    pd.testing.assert_frame_equal(
        compare_all(traces), compare_all(traces, scheduler), check_exact=True
    )


def test_figures_stand_in_the_order_of_the_traces(traces: list[str]) -> None:
    table = compare_all(traces)
    assert table["trace"].tolist() == [f"host{n}" for n in range(6)]
    # Two holds of 200 µs and one of 100 µs and a bit; each has its own bit.
    assert table["harm_sum_ns"].fillna(-1).tolist()[:5] == [100 * US] * 5
    assert table["episodes"].tolist() == [11] * 5 + [0]


def test_a_trace_on_a_store_is_read_by_a_copy(traces: list[str]) -> None:
    store = fsspec.filesystem("memory")
    store.put(traces[0], "/bucket/host0.pretake", recursive=True)
    pd.testing.assert_frame_equal(
        compare_all(["memory://bucket/host0.pretake"]), compare_all(traces[:1]), check_exact=True
    )


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("memory://bucket/nothing.pretake", "cannot fetch"),
        ("nosuchprotocol://x/y", "cannot fetch"),
        ("absent.pretake", "does not exist"),
    ],
)
def test_what_cannot_be_fetched_is_told(place: str, problem: str) -> None:
    with pytest.raises(PretakeError, match=problem):
        compare_all([place])


def test_a_scheduler_that_is_not_there_is_told(traces: list[str]) -> None:
    with pytest.raises(PretakeError, match="no Dask scheduler answers"):
        compare_all(traces, "nonsense://127.0.0.1:1")
