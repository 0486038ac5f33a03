"""What a latency consists of and what it goes with, where the answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from analysis import load
from analysis.answers.factors import FACTORS, SHOWN, correlate, factors
from analysis.answers.latency import LATENCY, decompose
from analysis.ptime.episodes import episodes
from analysis.schema import PARTS
from analysis.stats.shift import shift_test
from tests.unit.analysis.scene import POLL, READ, US, Scene

FACTOR_NAMES = (
    *("runq", "global_runq", "npidle", "nmspinning", "ps_held"),
    *("monitor_slept_ns", "monitor_asleep_ns", "cpu_wait_ns", "moved"),
)


def bursty(random: np.random.Generator, count: int, memory: float) -> npt.NDArray[np.float64]:
    """A series whose neighbours resemble each other."""
    noise = random.standard_normal(count)
    made = np.empty(count)
    last = random.standard_normal() / np.sqrt(1 - memory**2)
    for at in range(count):
        last = made[at] = memory * last + noise[at]
    return made


@pytest.mark.parametrize(("memory", "at_most"), [(0.0, 20), (0.5, 20), (0.9, 20)])
def test_without_an_effect_one_interval_in_twenty_excludes_nothing(
    memory: float, at_most: int
) -> None:
    """400 pairs of series that have nothing to do with each other."""
    random = np.random.default_rng(2026)
    excluded = 0
    for _ in range(400):
        told = shift_test(bursty(random, 300, memory).round(1), bursty(random, 300, memory))
        assert told is not None
        excluded += told.low > 0 or told.high < 0
    assert excluded <= at_most


def test_by_the_formula_for_independent_values_it_would_be_one_in_three() -> None:
    """What the shift is for: the same series, and the interval of independent values."""
    random = np.random.default_rng(2026)
    excluded = 0
    for _ in range(400):
        told = shift_test(bursty(random, 300, 0.9), bursty(random, 300, 0.9))
        assert told is not None
        excluded += abs(np.arctanh(told.effect)) > 1.96 / np.sqrt(297)
    assert excluded > 400 / 3


def made(random: np.random.Generator, count: int) -> pd.DataFrame:
    """Calls of two sites, each factor and the latency with bursts of its own."""
    columns = {
        name: np.round(20 + 5 * bursty(random, count, 0.8)).astype(np.int64).clip(0)
        for name in (*FACTOR_NAMES, "retake_ns")
    }
    site = np.where(random.random(count) < 0.5, "read", "poll")
    return pd.DataFrame({**columns, "site": site, "reason": "sysmon"})


def test_of_traces_without_an_effect_one_in_twenty_shows_one() -> None:
    """24 traces with 18 tests each: of the intervals 5 % exclude 0, and of the traces 5 % have
    any that is left after the correction. The tests of one trace are not independent, so the
    first share may be 6.5 % by chance."""
    random = np.random.default_rng(1)
    excluded = tests = wrong = 0
    for _ in range(24):
        table = correlate(made(random, 400))
        assert len(table) == 18
        tests += len(table)
        excluded += int(((table["effect_low"] > 0) | (table["effect_high"] < 0)).sum())
        wrong += bool((table["p_holm"] < SHOWN).any())
    assert excluded <= 0.065 * tests
    assert wrong <= 2


def test_an_effect_that_was_put_in_is_found_and_alone() -> None:
    """At one of the two sites the latency has the queue in it."""
    random = np.random.default_rng(5)
    observed = made(random, 300)
    there = observed["site"] == "poll"
    observed.loc[there, "retake_ns"] += 2 * observed.loc[there, "runq"]
    shown = correlate(observed).loc[lambda table: table["p_holm"] < SHOWN]
    assert shown[["site", "reason", "factor"]].to_numpy().tolist() == [["poll", "sysmon", "runq"]]
    assert shown["effect_low"].iloc[0] > 0.5
    assert shown["low_p50_ns"].iloc[0] < shown["high_p50_ns"].iloc[0]


def test_effect_is_spearmans() -> None:
    """Ranks 1 to 40 against 2 1 4 3 and so on: rho = 1 - 6 x 40 / (40 x 1599)."""
    order = np.arange(40)
    told = shift_test(order, order ^ 1)
    assert told is not None
    assert told.effect == pytest.approx(1 - 6 * 40 / (40 * 1599))
    # No shift by another number of calls correlates as much: at most 1 of 40.
    assert told.p <= 1 / 40


def test_too_little_to_tell() -> None:
    assert shift_test(np.arange(39), np.arange(39)) is None
    assert shift_test(np.zeros(50), np.arange(50)) is None
    observed = made(np.random.default_rng(3), 300).assign(site="read", npidle=0)
    observed.loc[[7, 90], "npidle"] = 1  # in fewer than 1 % of the calls
    row = correlate(observed).set_index("factor").loc["npidle"]
    assert row["episodes"] == 300
    assert pd.isna(row["effect"])


def monitored(count: int = 60) -> tuple[Scene, list[int]]:
    """Before each block sysmon's thread slept for a time, and the latency is as long.

    Call n begins at n ms. The monitor is asleep up to 400 µs, and again from 410 on; the thread
    blocks at 500, on CPU 0 or 1 by turns, and P runs a goroutine after ``slept`` µs.
    """
    random = np.random.default_rng(8)
    slept = random.integers(20, 300, count).tolist()
    scene = Scene(end_ns=(count + 1) * 1_000 * US)
    for tid in (11, 12, 19):
        scene.task(tid, 7)
    for call, us in enumerate(slept):
        at = call * 1_000
        scene.switch(at + 400 - us, 19, 0)
        scene.switch(at + 400, 0, 19)
        scene.switch(at + 410, 19, 0)
        alone = {"npidle": 0, "nmspinning": 0, "global_runq": 0, "runq": 1}
        scene.block(at + 500, 11, at + 490, 0, cpu=call % 2, **alone)
        scene.switch(at + 500 + us - 10, 0, 19)
        scene.runtime(at + 500 + us - 5, "retake", 19, 0, reason="sysmon", target_tid=11)
        scene.runtime(at + 500 + us, "run", 12, 0, goid=120)
        scene.exit(at + 900, 11, at + 490, blocks=1)
    return scene, slept


def test_what_sysmon_slept_before_the_block_is_a_factor(tmp_path: Path) -> None:
    scene, slept = monitored()
    trace = scene.write(tmp_path)
    table = factors(trace)
    assert tuple(table.columns) == FACTORS.names
    assert set(table["factor"]) == set(FACTOR_NAMES)
    # A part of the latency is no factor of it.
    assert not {name for _, name, _ in PARTS} & set(table["factor"])
    first = table.iloc[0]
    assert (first["site"], first["reason"], first["factor"]) == (
        "read",
        "sysmon",
        "monitor_slept_ns",
    )
    assert first["effect"] == pytest.approx(1.0)
    thirds = sorted(us * US for us in slept)
    assert (first["low_p50_ns"], first["high_p50_ns"]) == (thirds[9], thirds[49])
    # It had been asleep for 90 µs before each block: always the same.
    rest = table.set_index("factor")
    assert pd.isna(rest.loc["monitor_asleep_ns", "effect"])
    assert rest.loc["moved", "episodes"] == 59
    assert rest.loc["monitor_asleep_ns", "episodes"] == 60


def test_the_parts_of_the_mean_add_up(tmp_path: Path) -> None:
    """Two reads taken by sysmon (100 and 140 µs), a poll of unknown reason (7 µs and 1 ns)."""
    scene = Scene(end_ns=10_000 * US)
    for tid in (11, 12, 19):
        scene.task(tid, 7)
    for at, late in ((0, 0), (1_000, 40)):
        scene.block(at + 100, 11, at + 90, 0)
        scene.switch(at + 150, 0, 19)
        scene.runtime(at + 160, "retake", 19, 0, reason="sysmon", target_tid=11)
        scene.runtime(at + 200 + late, "run", 12, 0, goid=120)
        scene.exit(at + 400, 11, at + 90, blocks=1)
    scene.block(3_100, 11, 3_090, 0, nr=POLL)
    scene.runtime(3_104, "retake", 19, 0, target_tid=11)
    scene.runtime(3_107.001, "run", 12, 0, goid=120)
    scene.exit(3_400, 11, 3_090, nr=POLL, blocks=1)
    trace = scene.write(tmp_path)
    found = episodes(trace)
    assert READ != POLL
    table = decompose(found)
    assert tuple(table.columns) == LATENCY.names
    pd.testing.assert_frame_equal(table, load(trace.path).latency())
    of_all = table[table["site"].isna()]
    assert of_all["sum_ns"].sum() == found["retake_ns"].sum() == 247 * US + 1
    assert of_all["share"].sum() == pytest.approx(1)
    told = [
        (row["site"], row["part"], row["episodes"], row["sum_ns"], row["mean_ns"])
        for row in table[table["site"].notna() & table["sum_ns"].gt(0)].to_dict("records")
    ]
    assert told == [
        ("read", "part_notice_ns", 2, 100 * US, 50 * US),
        ("read", "part_take_ns", 2, 20 * US, 10 * US),
        ("read", "part_run_ns", 2, 120 * US, 60 * US),
        ("poll", "part_take_ns", 1, 4 * US, 4 * US),
        ("poll", "part_run_ns", 1, 3 * US + 1, 3 * US + 1),
    ]
    reasons = table.loc[table["site"].notna(), ["site", "reason"]].drop_duplicates()
    assert reasons["reason"].fillna("").tolist() == ["sysmon", ""]


def test_without_a_latency_there_are_no_parts(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0)
    trace = scene.write(tmp_path)
    assert load(trace.path).latency().empty
    assert factors(trace)["effect"].isna().all()
