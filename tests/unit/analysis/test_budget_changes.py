"""Ps that come and go, programs that exec, and Ms that are new: by hand, and so is each number."""

from __future__ import annotations

from pathlib import Path

from tests.unit.analysis.scene import FUTEX, US, Scene
from tests.unit.analysis.test_budget import MONITOR, look, process_of, running, states_us


def acquires(scene: Scene, at: float, tid: int, p: int) -> None:
    """A thread comes on a CPU with a P; no row tells when a goroutine runs, as without uprobes."""
    scene.task(tid, 7)
    scene.switch(at, 0, tid)
    scene.runtime(at, "acquirep", tid, p)


def test_a_p_that_is_no_more_does_not_come_back_with_its_thread(tmp_path: Path) -> None:
    """GOMAXPROCS is 1 from 100 on; at 200 the thread that had P 1 is given P 0."""
    scene = Scene(end_ns=500 * US)
    scene.task(MONITOR, 7, "sysmon")
    acquires(scene, 0, 11, 0)
    acquires(scene, 0, 12, 1)
    look(scene, 0, 1)
    look(scene, 100, 1, gomaxprocs=1)
    scene.switch(110, 12, 0)
    scene.block(150, 11, 140, 0)
    scene.switch(150, 11, 0)
    scene.runtime(200, "retake", MONITOR, 0, reason="sysmon", target_tid=11)
    acquires(scene, 200, 12, 0)
    process = process_of(scene, tmp_path)
    assert process["procs"] == 1
    assert process["p_ns"] == (2 * 100 + 400) * US
    assert states_us(process) == {"running": 2 * 100 + 50 + 300, "syscall": 50}


def test_a_new_m_keeps_its_p_while_it_waits_for_a_lock_of_the_runtime(tmp_path: Path) -> None:
    """Its first wait, from 100 to 300: nobody gives it a P as it wakes, so it has had its own."""
    scene = Scene(end_ns=500 * US)
    scene.task(MONITOR, 7, "sysmon")
    acquires(scene, 0, 11, 0)
    acquires(scene, 20, 12, 1)
    look(scene, 0, 1)
    scene.switch(100, 12, 0)
    scene.switch(300, 0, 12)
    scene.exit(300, 12, 99, nr=FUTEX, blocks=1)
    process = process_of(scene, tmp_path)
    assert states_us(process) == {"running": 500 + 80 + 200, "syscall": 200, "unknown": 20}


def test_the_pressure_of_a_program_that_execs_is_of_both_its_lives(tmp_path: Path) -> None:
    """One P is lost from 100 to 400, and from 600 to 700, after the exec at 500."""
    scene = Scene(end_ns=1_000 * US)
    running(scene, 0, 11, 0)
    look(scene, 0, 3, gomaxprocs=1)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    look(scene, 100, 3, gomaxprocs=1)
    scene.switch(400, 0, 11)
    scene.exit(400, 11, 90)
    scene.task(11, 7, at=500, kind="exec")
    scene.runtime(510, "acquirep", 11, 0)
    scene.runtime(510, "run", 11, 0)
    look(scene, 510, 3, gomaxprocs=1)
    scene.block(600, 11, 590, 0)
    scene.switch(600, 11, 0)
    look(scene, 600, 3, gomaxprocs=1)
    scene.switch(700, 0, 11)
    scene.exit(700, 11, 590)
    process = process_of(scene, tmp_path)
    assert process["begin_ns"] == 0
    total = process["pressure"]["total"]
    assert total["seconds"] == 0.001
    assert total["some_most"] == 40
