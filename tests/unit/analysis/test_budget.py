"""The budget of hand-made traces; every expected number was computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.answers.budget import Process, budget
from analysis.ptime.budget import run_pass
from analysis.ptime.engine import noted, rows, sums, words
from analysis.ptime.tasks import P_KEY_SPAN
from tests.unit.analysis.scene import US, Scene
from tracer.trace.schema import TABLES
from tracer.trace.words import P_STATUSES, P_USES, RUNTIME_KINDS, RUNTIME_REASONS

MONITOR = 19


def process_of(scene: Scene, folder: Path) -> Process:
    (process,) = budget(scene.write(folder))["processes"]
    assert sum(process["states"].values()) == process["p_ns"]
    return process


def states_us(process: Process) -> dict[str, float]:
    return {state: ns / US for state, ns in process["states"].items() if ns}


def look(scene: Scene, at: float, runq: int, **more: Any) -> None:  # noqa: ANN401 - a row
    """A look at all queues at once."""
    row = {"npidle": 0, "nmspinning": 0, "gomaxprocs": 2, "global_runq": 0, "timers_due": 0}
    row |= {"oldest_ns": round(at * US), "unseen": 0, "gcwaiting": 0, "tid": MONITOR, "pid": 7}
    scene._add("waiting", at, runq=runq, runq_least=runq, **(row | more))


def running(scene: Scene, at: float, tid: int, p: int) -> None:
    """From here on a goroutine runs on P, on this thread."""
    scene.task(tid, 7)
    scene.switch(at, 0, tid)
    scene.runtime(at, "acquirep", tid, p)
    scene.runtime(at, "run", tid, p)


def test_numbers_of_words_are_those_of_the_schema() -> None:
    kinds = ("RETAKE", "HANDOFF", "STARTM", "ACQUIREP", "RUN", "PIDLE", "EXIT_SLOW", "STOPM",
             "PREEMPT_REQUEST", "PREEMPTED", "STW_START", "STW_STOPPED", "STW_END")  # fmt: skip
    for name in kinds:
        assert getattr(words, name) == RUNTIME_KINDS.index(name.lower())
    for word in ("syscall_block", "stw", "exitsyscall"):
        assert getattr(words, f"BY_{word.upper()}") == RUNTIME_REASONS.index(word)
    for name, word in (("SYSCALL", "syscall"), ("RAW", "raw"), ("HANDED_OFF", "handed_off")):
        assert getattr(words, f"USE_{name}") == P_USES.index(word)
    for word in P_STATUSES:
        assert getattr(words, f"SEEN_{word.upper()}") == P_STATUSES.index(word)
    for word in ("preempted", "blocked", "dead", "stopped"):
        code = TABLES["sched_switch"].column("prev_state").code(word)
        assert getattr(words, f"PREV_{word.upper()}") == code
    assert TABLES["block"].column("why").code("fault") == words.WHY_FAULT
    assert TABLES["signal"].column("kind").code("deliver") == words.SIGNAL_DELIVER
    for word in ("fork", "exec", "exit"):
        assert getattr(words, f"TASK_{word.upper()}") == TABLES["task"].column("kind").code(word)
    for name, columns in rows.COLUMNS:
        if name != "edge":
            assert {*columns} <= {*TABLES[name].arrow_schema.names}
    assert noted.P_KEY_SPAN == P_KEY_SPAN


def two_ps(end: float) -> Scene:
    """Ps 0 and 1 run from 0 on, with threads 11 and 12; 3 goroutines wait from 0 on."""
    scene = Scene(end_ns=round(end * US))
    scene.task(MONITOR, 7, "sysmon")
    running(scene, 0, 11, 0)
    running(scene, 0, 12, 1)
    look(scene, 0, 3)
    return scene


def test_one_lost_p_while_one_of_two_blocks_and_two_while_both_do(tmp_path: Path) -> None:
    """docs/design.md: P 0 in read from 100 to 300, P 1 in a fault from 200 to 250; W is 3."""
    scene = two_ps(400)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    scene.block(200, 12, None, 1, why="fault", nr=None, p_use=None)
    scene.switch(200, 12, 0)
    scene.wakeup(250, 12)
    scene.switch(250, 0, 12)
    scene.wakeup(300, 11)
    scene.switch(300, 0, 11)
    scene.exit(301, 11, 90)
    look(scene, 400, 3)
    process = process_of(scene, tmp_path)
    assert process["p_ns"] == 800 * US
    assert states_us(process) == {"running": 550, "syscall": 200, "fault": 50}
    # One P is lost to read for 200, and from 200 to 250 the other one to the fault.
    for state, us in (("syscall", 200), ("fault", 50), ("no_cpu", 0)):
        assert process["lost_ns"][state] == {"least": us * US, "most": us * US}
    assert process["wait_ns"] == {"least": 1_200 * US, "most": 1_200 * US, "unknown": 0}


def test_one_waiting_goroutine_is_shared_out_over_two_lost_ps(tmp_path: Path) -> None:
    scene = Scene(end_ns=400 * US)
    running(scene, 0, 11, 0)
    running(scene, 0, 12, 1)
    look(scene, 0, 1)
    for tid, p in ((11, 0), (12, 1)):
        scene.block(100, tid, 90, p)
        scene.switch(100, tid, 0)
    look(scene, 400, 1)
    process = process_of(scene, tmp_path)
    # One goroutine waits for 300: 300 of the 600 that the Ps were held are lost.
    assert states_us(process) == {"running": 200, "syscall": 600}
    assert process["lost_ns"]["syscall"] == {"least": 300 * US, "most": 300 * US}


@pytest.mark.parametrize(("idle", "spinning"), [(0, 1), (1, 0)])
def test_who_can_take_work_leaves_nothing_lost(tmp_path: Path, idle: int, spinning: int) -> None:
    scene = Scene(end_ns=200 * US)
    running(scene, 0, 11, 0)
    scene.runtime(0, "pidle" if idle else "run", 12, 1)
    scene.switch(0, 0, 12, cpu=1)
    look(scene, 0, 1, npidle=idle, nmspinning=spinning)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    look(scene, 200, 1, npidle=idle, nmspinning=spinning)
    process = process_of(scene, tmp_path)
    assert process["lost_ns"]["syscall"] == {"least": 0, "most": 0}
    assert process["of_which"]["idle_beside_work"] == (200 * US if idle else 0)


def test_between_two_looks_it_is_an_interval(tmp_path: Path) -> None:
    """A spinning M was seen at the block, and none, with 2 goroutines, 3 ms later."""
    scene = Scene(end_ns=6_000 * US)
    running(scene, 0, 11, 0)
    look(scene, 0, 0, gomaxprocs=1, nmspinning=1)
    scene.block(1_000, 11, 990, 0)
    scene.switch(1_000, 11, 0)
    look(scene, 1_000, 0, gomaxprocs=1, nmspinning=1)
    look(scene, 4_000, 2, gomaxprocs=1)
    look(scene, 6_000, 2, gomaxprocs=1)
    process = process_of(scene, tmp_path)
    assert process["lost_ns"]["syscall"] == {"least": 2_000 * US, "most": 5_000 * US}
    assert process["wait_ns"] == {"least": 4_000 * US, "most": 10_000 * US, "unknown": 0}


def test_a_timer_that_is_due_waits_since_it_was(tmp_path: Path) -> None:
    scene = Scene(end_ns=500 * US)
    running(scene, 0, 11, 0)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    look(scene, 100, 0, gomaxprocs=1)
    look(scene, 500, 0, gomaxprocs=1, timers_due=1, timer_ns=200 * US)
    process = process_of(scene, tmp_path)
    # Not before it: until then nothing waited, and from then on nobody could run it.
    assert process["lost_ns"]["syscall"] == {"least": 300 * US, "most": 300 * US}


def test_a_hold_is_split_by_what_its_thread_did(tmp_path: Path) -> None:
    """Blocked from 100 to 140, awake without a CPU until 400; sysmon wanted one from 120 on."""
    scene = two_ps(500)
    scene.runtime(5, "retake", MONITOR, 1, reason="sysmon", target_tid=12)
    scene.runtime(6, "run", 12, 1)
    scene.switch(20, MONITOR, 0)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    scene.wakeup(120, MONITOR)
    scene.wakeup(140, 11)
    scene.switch(400, 0, 11)
    scene.exit(401, 11, 90)
    look(scene, 500, 3)
    process = process_of(scene, tmp_path)
    holds = process["holds"]
    assert (holds["count"], holds["blocked_ns"], holds["awake_ns"]) == (1, 40 * US, 260 * US)
    assert holds["monitor_no_cpu_ns"] == 20 * US
    # The call is charged what its thread was blocked for; the rest is the CPU's.
    assert process["lost_ns"]["syscall"]["least"] == 40 * US
    assert process["lost_ns"]["no_cpu"]["least"] == 260 * US
    (site,) = process["lost_at"]
    assert (site["syscall"], site["least"], site["blocked_ns"]) == ("read", 40 * US, 40 * US)


def test_where_a_p_was_taken_from(tmp_path: Path) -> None:
    """From a blocked thread, from one on a CPU, from one that was preempted in its call."""
    scene = two_ps(500)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    scene.runtime(150, "retake", MONITOR, 0, reason="sysmon", target_tid=11)
    scene.runtime(160, "run", 13, 0)
    scene.runtime(200, "retake", MONITOR, 1, reason="sysmon", target_tid=12)
    scene.runtime(210, "run", 14, 1)
    scene.switch(290, 14, 0, "preempted")
    scene.runtime(300, "retake", MONITOR, 1, reason="sysmon", target_tid=14)
    assert process_of(scene, tmp_path)["taken"] == {
        "blocked": 1,
        "on_cpu": 1,
        "preempted": 1,
        "unknown": 0,
    }


def test_p_without_a_goroutine_from_release_or_block(tmp_path: Path) -> None:
    """P 0: blocked at 100, taken at 150, runs at 180. P 1: given away at 100, runs at 125."""
    scene = two_ps(500)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    scene.runtime(100, "handoff", 12, 1, reason="syscall_block")
    scene.runtime(125, "run", 14, 1)
    scene.runtime(150, "retake", MONITOR, 0, reason="sysmon", target_tid=11)
    scene.runtime(180, "run", 13, 0)
    latency = process_of(scene, tmp_path)["without_goroutine_ns"]
    assert (latency["p50"], latency["max"], latency["count"]) == (25 * US, 80 * US, 2)


def test_a_stop_is_as_long_as_who_it_waits_for(tmp_path: Path) -> None:
    """Asked at 100; P 1 runs until 180, then stands; the world goes on at 250."""
    scene = two_ps(500)
    scene.runtime(100, "stw_start", 11, reason="stw")
    scene.signal(150, "deliver", 12, pc=0x1234)
    scene.runtime(180, "retake", 12, 1, reason="stw", target_tid=12)
    scene.runtime(181, "stw_stopped", 11, reason="stw")
    scene.runtime(250, "stw_end", 11, reason="stw")
    scene.rows["address"].append({"pid": 7, "pc": 0x1234, "function": "main.clear"})
    process = process_of(scene, tmp_path)
    stops = process["stops"]
    assert (stops["count"], stops["stopping_ns"]["max"]) == (1, 81 * US)
    # Of thread 12, that had P 1 until it was taken; where it was before a signal met it, at 150,
    # nobody knows.
    assert stops["waited_for"] == [
        {"function": None, "syscall": None, "state": "running", "ns": 50 * US},
        {"function": "main.clear", "syscall": None, "state": "running", "ns": 30 * US},
    ]
    assert process["states"]["stw"] == 70 * US
    assert process["states"]["idle"] == 250 * US
    assert stops["every"]


def test_a_stop_waits_for_each_place_that_its_signals_find(tmp_path: Path) -> None:
    """Asked at 100; thread 12 was met at 50, and then in clear at 110 and 160, in loop at 190."""
    scene = two_ps(500)
    scene.signal(50, "deliver", 12, pc=0x9999)
    scene.runtime(100, "stw_start", 11, reason="stw")
    for at, pc in ((110, 0x1234), (160, 0x1234), (190, 0x5678)):
        scene.signal(at, "deliver", 12, pc=pc)
    scene.runtime(200, "retake", 12, 1, reason="stw", target_tid=12)
    scene.runtime(201, "stw_stopped", 11, reason="stw")
    scene.runtime(250, "stw_end", 11, reason="stw")
    for pc, function in ((0x1234, "main.clear"), (0x5678, "main.loop"), (0x9999, "main.old")):
        scene.rows["address"].append({"pid": 7, "pc": pc, "function": function})
    waited_for = process_of(scene, tmp_path)["stops"]["waited_for"]
    assert {row["function"]: row["ns"] for row in waited_for} == {
        "main.clear": 80 * US,
        "main.loop": 10 * US,
        None: 10 * US,
    }


def test_before_a_process_is_in_reach_its_time_is_unknown(tmp_path: Path) -> None:
    scene = two_ps(500)
    scene.rows["reach"].append({"pid": 7, "ts_ns": 200 * US, "exec_ns": None, "generation": 0})
    process = process_of(scene, tmp_path)
    assert states_us(process) == {"unknown": 400, "running": 600}


def test_more_ps_from_a_look_on(tmp_path: Path) -> None:
    scene = two_ps(500)
    look(scene, 300, 0, gomaxprocs=5)
    process = process_of(scene, tmp_path)
    assert process["p_ns"] == (2 * 500 + 3 * 200) * US
    assert states_us(process) == {"running": 1_000, "unknown": 600}


def test_quota_is_part_of_no_cpu(tmp_path: Path) -> None:
    scene = two_ps(500)
    scene.switch(100, 11, 0, "preempted")
    scene.switch(300, 0, 11)
    for begin, end, ns in ((50, 200, 30), (200, 400, 500)):
        span = {"begin_ns": begin * US, "end_ns": end * US, "throttled_ns": ns * US}
        scene.rows["throttle"].append({**span, "cgroup": "/x", "pid": 7})
    process = process_of(scene, tmp_path)
    assert states_us(process) == {"running": 800, "no_cpu": 200}
    # It wanted a CPU for 100 in each span. Of 500 the second has 100, and the first 70 that were
    # left of it. Where no cgroup was asked nobody knows.
    assert process["of_which"]["throttled"] == (30 + 70 + 100) * US
    (unasked,) = budget(two_ps(500).write(tmp_path, "unasked"))["processes"]
    assert unasked["of_which"]["throttled"] is None


@pytest.mark.parametrize(("took", "throttled"), [((0, 0, 250), 200), ((0, 0, 120), 120)])
def test_a_throttling_that_is_told_late_is_of_the_span_before_and_no_other(
    tmp_path: Path, took: tuple[int, ...], throttled: int
) -> None:
    """Thread 11 wants a CPU for 100 in each of three spans; the kernel counts as it gets one."""
    scene = two_ps(500)
    scene.switch(100, 11, 0, "preempted")
    scene.switch(400, 0, 11)
    for number, ns in enumerate(took):
        begin = 100 * (number + 1)
        span = {"begin_ns": begin * US, "end_ns": (begin + 100) * US, "throttled_ns": ns * US}
        scene.rows["throttle"].append({**span, "cgroup": "/x", "pid": 7})
    process = process_of(scene, tmp_path)
    assert states_us(process) == {"running": 700, "no_cpu": 300}
    assert process["of_which"]["throttled"] == throttled * US


def test_misread_counts_reach_what_an_i64_holds_and_no_further(tmp_path: Path) -> None:
    """Three counts of 2³¹-1 over three seconds are 1.9e19 ns of waiting, more than 2⁶³-1."""
    at_most = (1 << 31) - 1
    scene = two_ps(3_000_000)
    for at in range(0, 3_000_000, 10_000):
        look(scene, at, at_most, global_runq=at_most, timers_due=at_most)
    wait = process_of(scene, tmp_path)["wait_ns"]
    assert (wait["least"], wait["most"]) == ((1 << 63) - 1, (1 << 63) - 1)


def test_an_hour_of_many_lost_ps_is_no_more_than_that(tmp_path: Path) -> None:
    """600 Ps, lost for an hour: 2.16e15 ns; in parts of a ns that is more than 2⁶³."""
    hour = 3_600_000_000
    scene = Scene(end_ns=hour * US)
    scene.task(MONITOR, 7, "sysmon")
    look(scene, 0, 600, gomaxprocs=600)
    for p in range(600):
        running(scene, 0, 100 + p, p)
        scene.block(0, 100 + p, 0, p)
        scene.switch(0, 100 + p, 0)
    process = process_of(scene, tmp_path)
    assert process["states"]["syscall"] == 600 * hour * US
    assert process["lost_ns"]["syscall"]["most"] == 600 * hour * US


def test_a_hold_of_a_month_is_as_long_as_that(tmp_path: Path) -> None:
    """One P of two, lost for 30 days: 2.6e15 ns; in parts of a ns that is more than 2⁶³."""
    month = 30 * 86_400 * 1_000_000
    scene = two_ps(month)
    scene.block(0, 11, 0, 0)
    scene.switch(0, 11, 0)
    look(scene, month, 3)
    (row,) = process_of(scene, tmp_path)["lost_at"]
    # The share of a hold is told up to what 2⁶³ parts of a ns are.
    assert row["most"] >= row["least"] >= 0
    assert row["most"] == ((1 << 63) - 1) // sums.SCALE


def test_rows_behind_the_end_of_a_process_are_no_time_of_its(tmp_path: Path) -> None:
    """It ends with the capture, at 100; that its threads die at 200 is not told twice."""
    scene = two_ps(100)
    scene.runtime(50, "retake", MONITOR, 0, reason="sysmon", target_tid=11)
    scene.loss(200, 300, "sched_switch")
    for tid in (7, 11, 12, MONITOR):
        scene.task(tid, 7, at=200, kind="exit")
    found = run_pass(scene.write(tmp_path), spans=True)
    (process,) = found.processes
    length = found.spans["end_ns"] - found.spans["begin_ns"]
    assert int(length.sum()) == process.p_ns == 2 * 100 * US


def test_a_timer_that_was_to_be_due_is_so_while_nobody_runs(tmp_path: Path) -> None:
    """The look at the block tells of it beforehand; who runs it hides it from the next."""
    scene = Scene(end_ns=500 * US)
    running(scene, 0, 11, 0)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    look(scene, 100, 0, gomaxprocs=1, timer_ns=200 * US)
    scene.switch(400, 0, 11)
    scene.exit(400, 11, 90)
    look(scene, 450, 0, gomaxprocs=1)
    process = process_of(scene, tmp_path)
    assert process["lost_ns"]["syscall"] == {"least": 200 * US, "most": 200 * US}


def test_what_waits_does_so_until_a_p_runs(tmp_path: Path) -> None:
    """Three were ready at the block, and none at the next look, when a P had run for 50 µs."""
    scene = Scene(end_ns=500 * US)
    running(scene, 0, 11, 0)
    scene.block(100, 11, 90, 0)
    scene.switch(100, 11, 0)
    look(scene, 100, 3, gomaxprocs=1)
    scene.switch(400, 0, 11)
    scene.exit(400, 11, 90)
    look(scene, 450, 0, gomaxprocs=1)
    process = process_of(scene, tmp_path)
    assert process["lost_ns"]["syscall"] == {"least": 300 * US, "most": 300 * US}
    assert process["wait_ns"]["least"] == 3 * 300 * US
    assert process["wait_ns"]["most"] == 3 * 350 * US
