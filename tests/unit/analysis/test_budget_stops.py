"""Whom a stop-the-world waits for, in traces made by hand; every number was computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.analysis.scene import FUTEX, US
from tests.unit.analysis.test_budget import process_of, two_ps


def test_a_stop_waits_for_a_call_that_the_runtime_was_not_told_of(tmp_path: Path) -> None:
    """Thread 12 is in a raw read from 50 to 350; 11 asks at 100, and sleeps until all Ps stand."""
    scene = two_ps(500)
    scene.block(50, 12, 40, 1, p_use="raw", stack_id=5)
    scene.switch(50, 12, 0)
    scene.runtime(100, "stw_start", 11, reason="stw")
    scene.block(110, 11, 105, 0, p_use="raw", nr=FUTEX)
    scene.switch(110, 11, 0)
    scene.switch(350, 0, 12)
    scene.exit(350, 12, 40)
    scene.runtime(360, "retake", 12, 1, reason="stw", target_tid=12)
    scene.switch(365, 0, 11)
    scene.runtime(450, "stw_end", 11, reason="stw")
    stops = process_of(scene, tmp_path)["stops"]
    assert (stops["count"], stops["stopping_ns"]["max"]) == (1, 260 * US)
    assert stops["waited_for"] == [
        {"function": None, "syscall": "read", "state": "syscall", "ns": 250 * US},
        {"function": None, "syscall": None, "state": "running", "ns": 10 * US},
    ]


def test_no_stop_waits_for_a_call_that_the_runtime_was_told_of(tmp_path: Path) -> None:
    """Thread 12 is in a read; 11 takes its P, and goes on at once."""
    scene = two_ps(500)
    scene.block(50, 12, 40, 1)
    scene.switch(50, 12, 0)
    scene.runtime(100, "stw_start", 11, reason="stw")
    scene.runtime(130, "retake", 11, 1, reason="stw", target_tid=12)
    scene.runtime(131, "stw_stopped", 11, reason="stw")
    scene.runtime(250, "stw_end", 11, reason="stw")
    assert process_of(scene, tmp_path)["stops"]["waited_for"] == []


def test_the_place_that_a_signal_finds_is_where_the_thread_was_since_it_was_sent(
    tmp_path: Path,
) -> None:
    """Sent at 110 and met at 180, between them without a CPU for 40: all of that in one place."""
    scene = two_ps(500)
    scene.runtime(100, "stw_start", 11, reason="stw")
    scene.signal(110, "generate", 12)
    scene.switch(130, 12, 0, "preempted")
    scene.switch(170, 0, 12)
    scene.signal(180, "deliver", 12, pc=0x1234)
    scene.runtime(200, "retake", 12, 1, reason="stw", target_tid=12)
    scene.runtime(201, "stw_stopped", 11, reason="stw")
    scene.runtime(250, "stw_end", 11, reason="stw")
    scene.rows["address"].append({"pid": 7, "pc": 0x1234, "function": "main.copies"})
    waited_for = process_of(scene, tmp_path)["stops"]["waited_for"]
    assert {(row["function"], row["state"]): row["ns"] for row in waited_for} == {
        (None, "running"): 10 * US,
        ("main.copies", "running"): 50 * US,
        ("main.copies", "no_cpu"): 40 * US,
    }


@pytest.mark.parametrize(("ended", "known"), [(305, 1), (330, 0)])
def test_a_stop_that_nobody_saw_stand_did_so_between_its_last_signal_and_its_end(
    ended: int, known: int, tmp_path: Path
) -> None:
    """Asked for at 100, the last signal at 290: 15 of 205 before the one end, 40 of 230 before the
    other."""
    scene = two_ps(500)
    scene.runtime(100, "stw_start", 11, reason="stw")
    scene.signal(110, "generate", 12)
    scene.signal(120, "deliver", 12, pc=0x1234)
    scene.signal(290, "generate", 12)
    scene.signal(295, "deliver", 12, pc=0x1234)
    scene.runtime(ended, "stw_end", 11, reason="stw")
    stops = process_of(scene, tmp_path)["stops"]
    assert (stops["count"], stops["unknown"]) == (1, 1 - known)
    assert stops["stopping_ns"]["max"] == ((ended - 100) * US if known else None)
