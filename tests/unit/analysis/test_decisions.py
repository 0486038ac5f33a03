"""Sites and advice, on numbers whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import load
from analysis.answers.advise import ADVICE, advise
from analysis.answers.sites import SITES, sites
from analysis.ptime.episodes import episodes
from analysis.stats.blocks import block_mean
from tests.unit.analysis.scene import POLL, READ, US, Scene


def test_sites_by_hand(tmp_path: Path) -> None:
    scene = Scene()
    for call, nr in enumerate((READ, READ, READ, POLL)):
        at = call * 1_000
        scene.block(
            at + 100, 11, at + 90, 0, nr=nr, runq=nr, global_runq=0, npidle=0, nmspinning=0
        )
        scene.exit(at + 100 + 10 * (call + 1), 11, at + 90, blocked_ns=7 * US)
    table = sites(episodes(scene.write(tmp_path)))
    assert tuple(table.columns) == SITES.names
    assert table["syscall"].tolist() == ["poll", "read"]
    assert table["episodes"].tolist() == [1, 3]
    assert table["hold_p50_ns"].tolist() == [40 * US, 20 * US]
    assert table["harm_sum_ns"].tolist() == [40 * US, 0]
    assert table["kept"].tolist() == [1, 3]
    assert table["retake_p50_ns"].isna().all()


def site(call: Callable[[Scene, int], None], count: int = 30) -> Scene:
    """``count`` calls, one a millisecond, each made by ``call(scene, its beginning)``."""
    scene = Scene()
    for number in range(count):
        call(scene, number * 1_000)
    return scene


BUSY = {"runq": 1, "global_runq": 0, "npidle": 0, "nmspinning": 0}


def normal(scene: Scene, at: int) -> None:
    """Blocks for 300 µs, P retaken after 100 µs and running 5 µs later."""
    scene.block(at + 100, 11, at + 90, 0, **BUSY)
    scene.runtime(at + 200, "retake", 19, 0)
    scene.runtime(at + 205, "run", 12, 0)
    scene.exit(at + 400, 11, at + 90, blocks=1)


def short_raw(scene: Scene, at: int) -> None:
    """Blocks for 2 µs with P, beside a call from which a move of 5 µs is known."""
    scene.block(at + 100, 11, at + 90, 0, p_use="raw", nr=POLL, **BUSY)
    scene.exit(at + 102, 11, at + 90, blocks=1)
    normal(scene, at + 300)


def test_advice_to_hand_off_a_call_that_is_long_and_retaken_late(tmp_path: Path) -> None:
    told = load(site(normal).write(tmp_path).path).advise()
    assert tuple(told.columns) == ADVICE.names
    row = told.iloc[0]
    assert (row["site"], row["calls"], row["way_now"], row["way_best"]) == (
        "read",
        30,
        "normal",
        "block",
    )
    # Work always waits: raw loses the whole call, normal 100 µs + the move, block the move.
    assert row["waiting_share"] == 1
    assert (row["raw_loss_ns"], row["normal_loss_ns"], row["block_loss_ns"]) == (
        300 * US,
        105 * US,
        5 * US,
    )
    # All calls are equal, so all that is not sure is the move of 5 µs: it may be 2.5 to 10.
    assert [row[f"gain{end}_ns"] for end in ("", "_low", "_high")] == pytest.approx(
        [100 * US, 95 * US, 102.5 * US]
    )
    # One goroutine waits, so what it waits less is the same.
    assert [row[f"wait_gain{end}_ns"] for end in ("", "_low", "_high")] == pytest.approx(
        [100 * US, 95 * US, 102.5 * US]
    )
    # It pays from one move on, and no longer matters where 105 µs are a hundredth.
    assert (row["pays_from_ns"], row["pays_to_ns"]) == (5 * US, 10_500 * US)
    assert pd.isna(row["block_share"])
    assert "did not block were not captured" in row["evidence"]


def test_short_raw_call_is_left_raw(tmp_path: Path) -> None:
    told = advise(episodes(site(short_raw).write(tmp_path)))
    row = told.set_index("site").loc["poll"]
    assert (row["way_now"], row["way_best"], row["gain_ns"]) == ("raw", "raw", 0)
    assert (row["raw_loss_ns"], row["block_loss_ns"]) == (2 * US, 5 * US)
    assert pd.isna(row["normal_loss_ns"])


def test_calls_that_do_not_block_pay_for_the_handoff_too(tmp_path: Path) -> None:
    """One call in four blocks: four moves are paid for each that pays."""
    scene = site(normal)
    for number in range(90):
        scene.exit(number * 100 + 50_000, 11, number * 100 + 49_990, blocks=0)
    row = load(scene.write(tmp_path).path).advise().iloc[0]
    assert row["block_share"] == 0.25
    assert (row["block_loss_ns"], row["pays_from_ns"]) == (20 * US, 20 * US)


def queue_of_three(scene: Scene, at: int) -> None:
    """As ``normal``, with three goroutines that wait, and two in the global queue."""
    queued = {"runq": 3, "global_runq": 2, "npidle": 0, "nmspinning": 0}
    scene.block(at + 100, 11, at + 90, 0, **queued)
    scene.runtime(at + 200, "retake", 19, 0)
    scene.runtime(at + 205, "run", 12, 0)
    scene.exit(at + 400, 11, at + 90, blocks=1)


def test_what_all_who_wait_gain_is_more_than_the_p_does(tmp_path: Path) -> None:
    """Five goroutines wait for a P that is lost for 100 µs less."""
    row = load(site(queue_of_three).write(tmp_path).path).advise().iloc[0]
    assert row["gain_ns"] == 100 * US
    assert row["wait_gain_ns"] == 5 * 100 * US
    assert row["wait_gain_low_ns"] == pytest.approx(5 * 95 * US)


def rarely_long(scene: Scene, at: int) -> None:
    """Two calls in thirty lose 600 µs, and the others 1 µs, which is less than a move of 5 µs."""
    lost = 600 if at in (7_000, 22_000) else 1
    scene.block(at + 100, 11, at + 90, 0, **BUSY)
    scene.runtime(at + 100 + lost, "retake", 19, 0)
    scene.runtime(at + 105 + lost, "run", 12, 0)
    scene.exit(at + 900, 11, at + 90, blocks=1)


def test_a_gain_that_may_be_a_loss_is_no_advice(tmp_path: Path) -> None:
    row = load(site(rarely_long).write(tmp_path).path).advise().iloc[0]
    # (2 x 600 + 28 x 1) / 30 µs a call by two calls alone: another run may have none of them.
    assert row["gain_ns"] == pytest.approx(1_228 / 30 * US)
    assert row["gain_low_ns"] < 0 < row["gain_high_ns"]
    assert pd.isna(row["way_best"])
    assert row["evidence"].endswith("whether block gains anything is not sure")


def test_an_interval_over_blocks_holds_the_mean_of_bursts_too() -> None:
    """Costs that stay alike for 30 calls each: 1,200 calls are 40 values. Of 300 such runs the
    95 % interval misses the true mean in about 15; that of independent calls in two of three."""
    random = np.random.default_rng(7)
    missed = naive = 0
    for _ in range(300):
        values = np.repeat(random.exponential(1.0, 40), 30)
        told = block_mean(values)
        assert told is not None
        missed += not told.value - told.below <= 1.0 <= told.value + told.above
        naive += abs(values.mean() - 1.0) > 1.96 * values.std() / np.sqrt(1_200)
    assert missed <= 30
    assert naive > 150


def test_few_calls_are_no_ground_for_advice(tmp_path: Path) -> None:
    row = load(site(normal, 19).write(tmp_path).path).advise().iloc[0]
    assert pd.isna(row["way_best"])
    assert pd.isna(row["gain_ns"])
    assert "too few for advice" in row["evidence"]


def test_what_the_runtime_sleeps_in_is_no_call_to_make_otherwise(tmp_path: Path) -> None:
    scene = Scene()
    scene.task(11, 11, "server")
    stacks = {40: ("syscall.read", "main.load"), 41: ("runtime.futex", "main.load")}
    for number in range(30):
        for at, stack in ((number * 1_000, 40), (number * 1_000 + 500, 41)):
            scene.block(at + 100, 11, at + 90, 0, p_use="raw", stack_id=stack, **BUSY)
            scene.exit(at + 200, 11, at + 90)
    for stack, names in stacks.items():
        for depth, name in enumerate(names):
            at = {"pid": 11, "pc": 10 * stack + depth}
            scene.rows["stack"].append({**at, "stack_id": stack, "depth": depth})
            scene.rows["address"].append({**at, "function": name})
    told = load(scene.write(tmp_path).path).advise()
    assert told[["site", "calls"]].to_dict("records") == [
        {"site": "read at main.load", "calls": 30}
    ]
