"""Prices read off a trace made by hand, in which each step takes the same time in every round."""

from __future__ import annotations

from pathlib import Path

from analysis.whatif.prices import busy_cpus, prices
from tests.unit.analysis.scene import FUTEX, US, Scene
from tracer.trace.reader import Trace

SLEEP = 230
ROUNDS = 40
MONITOR, GIVEN, LOSER = 19, 12, 11


def retakes(folder: Path, preempted: int) -> Trace:
    """Forty retakes by thread 19, of which 12 gets each P, and wakes 11 later.

    Of those, ``preempted`` times 11 takes 12's CPU at once; the other times it waits.
    """
    scene = Scene(end_ns=ROUNDS * 1_000 * US)
    scene.switch(1, 0, MONITOR, cpu=0)
    for number in range(ROUNDS):
        at = 1_000 * number
        # Back from a sleep at 100, a round of 8 µs, a probe of 7 between handoff and startm.
        scene.exit(at + 100, MONITOR, at + 50, nr=SLEEP, blocks=1, blocked_ns=40 * US)
        scene.runtime(at + 108, "retake", MONITOR, 0, reason="sysmon", target_tid=LOSER)
        scene.runtime(at + 115, "handoff", MONITOR, 0, reason="sysmon")
        scene.runtime(at + 122, "startm", MONITOR, 0, target_tid=GIVEN)
        # 10 µs to the wake-up, of which 7 are the probe's; 4 more to the next call.
        scene.wakeup(at + 132, GIVEN, waker_tid=MONITOR)
        # 5 µs until 12 has the idle CPU, 2 to acquirep, 7 and 6 to run.
        scene.switch(at + 137, 0, GIVEN, cpu=1)
        scene.runtime(at + 139, "acquirep", GIVEN, 0)
        scene.runtime(at + 152, "run", GIVEN, 0, goid=1)
        # The first sleep after a retake: 65 µs for 20.
        scene.exit(at + 205, MONITOR, at + 136, nr=SLEEP, blocks=1, blocked_ns=65 * US)
        # 12 wakes 11, which waited for the interpreter's lock, and enters a call 3 µs later.
        scene.wakeup(at + 300, LOSER, waker_tid=GIVEN)
        scene.exit(at + 340, LOSER, at + 250, nr=FUTEX, blocks=1)
        scene.runtime(at + 340, "stopm", LOSER)
        if number < preempted:
            scene.switch(at + 301, GIVEN, LOSER, "preempted", cpu=1)
            scene.switch(at + 341, LOSER, GIVEN, cpu=1)
            scene.switch(at + 360, GIVEN, 0, cpu=1)
        else:
            scene.exit(at + 390, GIVEN, at + 303, blocks=1)
            scene.switch(at + 330, GIVEN, LOSER, cpu=1)
            scene.switch(at + 341, LOSER, 0, cpu=1)
    return scene.write(folder)


def test_prices_by_hand(tmp_path: Path) -> None:
    found = prices(retakes(tmp_path, 10), 0, ROUNDS * 1_000 * US)
    spreads = {name: set(value) for name, value in found.items() if isinstance(value, tuple)}
    assert spreads == {"wakeup_spread_ns": {5 * US}, "timer_spread_ns": {45 * US}}
    assert {name: value for name, value in found.items() if name not in spreads} == {
        "probe_ns": 7 * US,
        "wake_call_ns": 3 * US,
        "wake_rest_ns": 4 * US,
        "gil_signal_ns": 6 * US,
        "unpark_ns": 2 * US,
        "find_ns": 6 * US,
        "round_ns": 8 * US,
        # The monitor was never woken on a busy CPU, and never woke another there.
        **dict.fromkeys(
            ("preempt_percent", "preempt_light_percent", "preempt_by_light_percent"), 25
        ),
        "context_switch_ns": 0,
    }


def test_only_the_span_counts(tmp_path: Path) -> None:
    """Of the first ten of forty rounds there are too few steps of any kind."""
    assert prices(retakes(tmp_path, 10), 0, 10_000 * US) == {"probe_ns": 0}


def test_a_cpu_that_others_keep_busy_does_not_count(tmp_path: Path) -> None:
    scene = Scene()
    for number in range(100):
        scene.switch(number, 11, 0, cpu=0 if number else 1)
    assert busy_cpus(scene.write(tmp_path), 0, 100 * US) == 1
