"""Scripts of a run made by hand, and what is said of their replays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import load
from analysis.ptime.episodes import episodes
from analysis.whatif.errors import COLUMNS, error_name, why_name
from analysis.whatif.predict import WHATIF, Machine, Replay, machine_text, used_policy, whatif
from analysis.whatif.quota import Quota
from analysis.whatif.scripts import Goroutine, Scripts, Step, scripts
from pretake.commands.whatif import command, play
from tests.unit.analysis.scene import FUTEX, US, Scene
from tracer.errors import PretakeError

ALONE = {"npidle": 0, "nmspinning": 0}
CALM = {"npidle": 1, "nmspinning": 0}


def us(step: Step) -> tuple[object, ...]:
    """A step in µs: kind and length; of a call its event, CPU time before and after it too."""
    if step.kind == "fire":
        return ("fire", step.event)
    if step.kind == "call":
        cpu_us = (step.cpu_ns // US, step.after_ns // US)
        return ("call", step.site, step.ns // US, step.event, *cpu_us)
    return (step.kind, step.ns // US)


def made(scene: Scene, folder: Path) -> Scripts:
    trace = scene.write(folder)
    return scripts(trace, episodes(trace))


def told(found: Scripts) -> dict[int, tuple[int, list[tuple[object, ...]]]]:
    return {g.goid: (g.start_ns // US, [us(step) for step in g.steps]) for g in found.goroutines}


def ping(wait_idle: bool = False) -> Scene:
    """Goroutine 110 reads; 120 runs on its P meanwhile, wakes it, and reads in turn.

    100: 110 blocks (its thread 11 had a CPU from 90 on, and has one again from 205).
    150: P 0 is retaken; 165: 120 runs on thread 12; 200: it wakes thread 11.
    210: 110's call returns without a P; 215: it waits for one (exit_slow).
    250 to 260: 120 enters a read and blocks; woken by an interrupt at 400, back at 410.
    300: 110 runs on thread 11; 340: it enters another read, and is back at 500.
    """
    scene = Scene(end_ns=1_000 * US)
    for tid in (11, 12):
        scene.task(tid, 7)
    scene.switch(90, 0, 11, cpu=0)
    scene.switch(100, 11, 0, cpu=0)
    scene.block(100, 11, 90, 0, runq=1, **ALONE)
    scene.runtime(150, "retake", 19, 0, reason="sysmon", target_tid=11, **ALONE)
    scene.runtime(151, "handoff", 19, 0, reason="sysmon", **ALONE)
    scene.switch(155, 0, 12, cpu=1)
    scene.runtime(165, "run", 12, 0, goid=120, **(CALM if wait_idle else ALONE))
    scene.wakeup(200, 11, waker_tid=12)
    scene.switch(205, 0, 11, cpu=0)
    scene.exit(210, 11, 90, blocks=1)
    if not wait_idle:
        scene.runtime(215, "exit_slow", 11, goid=110, **ALONE)
    scene.switch(220, 11, 0, cpu=0)
    scene.block(260, 12, 250, 0, runq=0, **ALONE)
    scene.switch(260, 12, 0, cpu=1)
    scene.runtime(280, "retake", 19, 0, reason="sysmon", target_tid=12, **ALONE)
    scene.switch(290, 0, 11, cpu=0)
    scene.runtime(300, "run", 11, 0, goid=110, **ALONE)
    scene.block(345, 11, 340, 0, runq=0, **ALONE)
    scene.switch(345, 11, 0, cpu=0)
    scene.wakeup(400, 12, waker_tid=0)
    scene.switch(402, 0, 12, cpu=1)
    scene.exit(410, 12, 250, blocks=1)
    scene.switch(420, 12, 0, cpu=1)
    scene.wakeup(480, 11, waker_tid=0)
    scene.switch(490, 0, 11, cpu=0)
    scene.exit(500, 11, 340, blocks=1)
    return scene


def test_scripts_by_hand(tmp_path: Path) -> None:
    found = made(ping(), tmp_path)
    assert (found.calls, found.tied, found.left_out) == (3, 1, 0)
    assert (found.begin_ns, found.end_ns) == (90 * US, 500 * US)
    scripts_of = told(found)
    # In its first call thread 11 had a CPU from 90 to 100 and from 205 to 210, and was on its way
    # to where the runtime finds that P is gone until 215.
    assert scripts_of[110] == (
        0,
        [
            ("call", "read", 100, 0, 10, 10),
            ("cpu", 40),
            ("call", "read", 135, -1, 5, 10),
        ],
    )
    # 165 to 200, the wake-up, 200 to 250; in the call 250 to 260 and 402 to 410; then to 420.
    assert scripts_of[120] == (
        75,
        [("cpu", 35), ("fire", 0), ("cpu", 50), ("call", "read", 140, -1, 10, 8), ("cpu", 10)],
    )


def test_a_probe_at_run_is_no_time_of_the_goroutine(tmp_path: Path) -> None:
    trace = ping().write(tmp_path)
    scripts_of = told(scripts(trace, episodes(trace), probe_ns=3 * US))
    assert scripts_of[110][1][1] == ("cpu", 37)
    assert scripts_of[120][1][0] == ("cpu", 32)


def test_calls_that_did_not_block_are_counted_where_they_were_captured(tmp_path: Path) -> None:
    """120 writes at 178 and 228; thread 12's futex at 190 is the runtime's."""
    assert made(ping(), tmp_path).unblocked is None
    scene = ping()
    for at, nr in ((180, 1), (192, FUTEX), (230, 1)):
        scene.exit(at, 12, at - 2, nr=nr, blocks=0)
    trace = scene.write(tmp_path, "full.pretake")
    found = scripts(trace, episodes(trace))
    steps = {g.goid: g.steps for g in found.goroutines}[120]
    assert [(step.ns // US, step.calls) for step in steps if step.kind == "cpu"] == [
        (35, 1),
        (50, 1),
        (10, 0),
    ]
    assert found.unblocked == 2


def test_dearer_system_calls_reach_those_that_do_not_block() -> None:
    """Ten calls of 300 ns each, at two and a half times the price."""
    script = [Goroutine(1, 0, [Step("cpu", 100 * US, calls=10)])]
    usual, dear = (play(script, "raw", Machine(1, 2, cost), 0) for cost in (1.0, 2.5))
    assert usual is not None
    assert dear is not None
    assert dear.elapsed_ns - usual.elapsed_ns == 10 * 450


def test_goroutines_that_change_places_between_run_and_a_call(tmp_path: Path) -> None:
    """130 runs on P from 600 on, the call at 700 is 110's: nothing tells when they changed.

    110 used 40 µs before its call at 340, so that much of the stretch is held for its own.
    """
    scene = ping()
    scene.switch(505, 11, 0)
    scene.switch(595, 0, 12, cpu=1)
    scene.runtime(600, "run", 12, 0, goid=130, **ALONE)
    scene.block(710, 12, 700, 0, goid=110, **ALONE)
    scene.switch(710, 12, 0, cpu=1)
    scene.wakeup(800, 12, waker_tid=0)
    scene.switch(802, 0, 12, cpu=1)
    scene.exit(805, 12, 700, blocks=1)
    scripts_of = told(made(scene, tmp_path))
    assert scripts_of[130] == (510, [("cpu", 60), ("yield", 0)])
    assert scripts_of[110][1][-2:] == [("cpu", 40), ("call", "read", 90, -1, 10, 3)]


def test_a_wait_with_an_idle_p_is_a_sleep(tmp_path: Path) -> None:
    """Without exit_slow 110 was not queued at 220; a P was idle, so it waited for something."""
    scene = ping(wait_idle=True)
    scene.runtime(215, "stopm", 11, goid=110, **CALM)
    steps = told(made(scene, tmp_path))[110][1]
    assert steps[:2] == [("call", "read", 100, 0, 10, 5), ("cpu", 5)]
    # exit_slow and stopm both end a stretch in a queue or a park: the run follows without a gap.
    assert ("cpu", 40) in steps


def test_work_on_a_p_that_tells_no_goroutine_has_no_name(tmp_path: Path) -> None:
    """Go tells no run. 110 blocks; thread 12 gets P at 160, and 110 calls again there at 300.

    Its first call returned at 210: until then thread 12 ran somebody else, from then on 110.
    """
    scene = Scene(end_ns=1_000 * US)
    for tid in (11, 12):
        scene.task(tid, 7)
    scene.block(100, 11, 90, 0, runq=1, goid=110, **ALONE)
    scene.runtime(150, "handoff", 19, 0, reason="sysmon", target_tid=11, **ALONE)
    scene.runtime(160, "acquirep", 12, 0, **ALONE)
    scene.wakeup(200, 11, waker_tid=0)
    scene.exit(210, 11, 90, blocks=1)
    scene.runtime(212, "exit_slow", 11, **ALONE)
    scene.block(310, 12, 300, 0, goid=110, **ALONE)
    scene.wakeup(390, 12, waker_tid=0)
    scene.exit(400, 12, 300, blocks=1)
    scripts_of = told(made(scene, tmp_path))
    assert scripts_of[-2] == (70, [("cpu", 50)])
    kinds = [step[:2] for step in scripts_of[110][1]]
    assert kinds == [("call", "read"), ("cpu", 90), ("call", "read")]


def test_a_raw_wait_for_pythons_lock_is_no_call(tmp_path: Path) -> None:
    scene = Scene()
    scene.block(100, 11, 90, 0, p_use="raw", nr=FUTEX)
    scene.exit(150, 11, 90)
    assert made(scene, tmp_path).calls == 0


def many(
    folder: Path,
    policy: str | None = "sysmon",
    slow: range = range(0),
    throttled: Sequence[tuple[int, int, int]] = (),
) -> Path:
    """Two goroutines take turns on one P: each reads, and the other has computed meanwhile.

    110 blocks for 3 ms; 120, some 800 µs after 110 is back, for 700 µs. The other one waits for P
    then, which is retaken after 120 µs; 140 µs after the block it runs. No two rounds are equally
    long, or a monitor that sleeps equally long would keep step with them. In the ``slow`` rounds
    the other one gets a CPU 400 µs later. ``throttled``: begin, end and what was taken, in µs.
    """
    scene = Scene(end_ns=520_000 * US, workload={"policy": policy, "procs": 1})
    for tid in (11, 12):
        scene.task(tid, 7)
    scene.switch(10, 0, 11)
    at = 0
    for round_ in range(100):
        second = at + 3_900 + 7 * (round_ % 13)
        for tid, goid, block, other, woken in (
            (11, 110, at + 100, 12, at + 3_100),
            (12, 120, second, 11, second + 700),
        ):
            scene.block(block, tid, block - 10, 0, runq=1, **ALONE)
            scene.switch(block, tid, 0, cpu=tid - 11)
            scene.runtime(block + 120, "retake", 19, 0, reason="sysmon", target_tid=tid, **ALONE)
            scene.runtime(block + 121, "handoff", 19, 0, reason="sysmon", **ALONE)
            scene.wakeup(block + 123, other)
            late = 400 if round_ in slow else 0
            scene.switch(block + 130 + late, 0, other, cpu=other - 11)
            scene.runtime(block + 140 + late, "run", other, 0, goid=230 - goid, **ALONE)
            scene.wakeup(woken, tid, waker_tid=0)
            scene.switch(woken + 5, 0, tid, cpu=tid - 11)
            scene.exit(woken + 10, tid, block - 10, blocks=1)
            scene.runtime(woken + 12, "exit_slow", tid, goid=goid, **ALONE)
            scene.switch(woken + 13, tid, 0, cpu=tid - 11)
        at += 5_000 + 13 * (round_ % 11)
    for begin, end, ns in throttled:
        span = {"begin_ns": begin * US, "end_ns": end * US, "throttled_ns": ns * US}
        scene.rows["throttle"].append({**span, "cgroup": "/x", "pid": 7})
    return scene.write(folder).path


def constant(ns: int) -> Replay:
    values = np.full(10, ns, np.int64)
    return Replay(values, values, values, values, values, 10 * ns, 50, 1_000_000_000, 3)


def test_a_column_that_is_too_far_off_under_the_used_policy_is_told_for_none(
    tmp_path: Path,
) -> None:
    """Captured: 140 µs. A simulator that says 210 µs of sysmon is 50 % too high."""
    asked: list[tuple[str, int, int, float]] = []

    def simulator(
        goroutines: Sequence[Goroutine], policy: str, machine: Machine, max_ns: int
    ) -> Replay | None:
        assert len(goroutines) == 2
        assert max_ns > 100_000 * US
        asked.append((policy, machine.procs, machine.cpus, machine.syscall_cost))
        return {"sysmon": constant(210 * US), "raw": None}.get(policy, constant(6 * US))

    trace = load(many(tmp_path)).trace
    table = whatif(trace, ["block", "raw"], simulator, procs=8, syscall_cost=2.5)
    assert tuple(table.columns) == WHATIF.names
    assert table["policy"].tolist() == ["sysmon", "block", "raw"]
    assert table["source"].tolist() == ["captured", "replayed", "replayed"]
    assert table["retake_p50_ns"].fillna(-1).tolist() == [140 * US, -1, -1]
    assert table["retake_p50_error_percent"].fillna(-1).tolist() == [-1, 50, 50]
    why = "the replay of sysmon, which was used, is +50 % off"
    assert table["retake_p50_why"].fillna("").tolist() == ["", why, why]
    # It has 3 handoffs, and the capture none: nobody knows what that says of 100.
    assert table["handoffs"].fillna(-1).tolist() == [0, -1, -1]
    none = "the capture has none of it, and the replay of sysmon does"
    assert table["handoffs_why"].fillna("").tolist() == ["", none, none]
    assert table["ends"].tolist() == [True, True, False]
    # Prices are set, and the error is found, on the machine of the capture.
    assert {row[1:] for row in asked if row[0] == "sysmon"} == {(1, 2, 1.0)}
    assert asked[-2:] == [("block", 8, 2, 2.5), ("raw", 8, 2, 2.5)]


def nothing_is_told(table: pd.DataFrame, why: str) -> bool:
    """No column of any replay, and each for this reason."""
    replayed = table[table["source"] == "replayed"]
    return len(replayed) > 0 and all(
        replayed[column].isna().all()
        and replayed[error_name(column)].isna().all()
        and (replayed[why_name(column)] == why).all()
        for column in COLUMNS
    )


ROUND_60 = sum(5_000 + 13 * (round_ % 11) for round_ in range(60))
"""When round 60 begins, in µs: the second half of the run is from round 50 to 99."""


def test_a_throttled_run_is_replayed_without_its_quota(tmp_path: Path) -> None:
    """From round 60 on a quota keeps the next goroutine off its CPU for 400 µs more.

    The error is that of rounds 50 to 59, of which it took nothing: 210 for 140 µs.
    """
    path = many(
        tmp_path,
        slow=range(60, 100),
        throttled=[(0, 100_000, 0), (ROUND_60, 520_000, 1_600)],
    )
    table = whatif(load(path).trace, ["sysmon"], lambda *_: constant(210 * US), one_more=True)
    captured, *replayed = table.astype(object).to_dict("records")
    assert captured["retake_p50_ns"] == 540 * US
    assert captured["throttled_ns"] == 1_600 * US
    assert [row["throttled_ns"] for row in replayed] == [0, 0, 0]
    assert {row["retake_p50_error_percent"] for row in replayed} == {50.0}
    assert [machine_text(row, captured) for row in replayed] == [
        ", no quota",
        ", 2 Ps, no quota",
        ", 3 CPUs, no quota",
    ]


def test_a_run_that_was_throttled_throughout_has_no_error_to_tell(tmp_path: Path) -> None:
    path = many(tmp_path, throttled=[(0, 520_000, 5_000)])
    table = whatif(load(path).trace, ["sysmon"], lambda *_: constant(210 * US))
    assert table["throttled_ns"].tolist() == [5_000 * US, 0]
    assert nothing_is_told(
        table, "CPU quotas throttled nearly all of the run, and a replay has none"
    )


@pytest.mark.parametrize(("throttled", "asked"), [((), False), ([(0, 520_000, 0)], True)])
def test_no_quota_and_nobody_asked_are_two_things(
    throttled: Sequence[tuple[int, int, int]], asked: bool, tmp_path: Path
) -> None:
    path = many(tmp_path, throttled=throttled)
    said = CliRunner().invoke(command, [str(path), "--retake", "block"], standalone_mode=False)
    assert said.exception is None
    assert "no quota" not in said.output
    assert ("since no cgroup was asked" in said.output) != asked


def test_which_episodes_a_quota_left_alone() -> None:
    """Spans 100 to 200 and 300 to 400; an episode ends with its return, or with P's next run."""
    quota = Quota(True, np.array([100, 300]), np.array([200, 400]), np.array([7, 9]))
    rows = pd.DataFrame(
        {
            "block_ns": [0, 0, 150, 200, 250, 250, 400, 500],
            "exit_ns": [99, 100, 160, 299, 260, 260, 410, -1],
            "run_ns": [90, 90, -1, 250, 300, 290, 420, -1],
        }
    )
    assert quota.untouched(rows).index.tolist() == [0, 3, 5, 6, 7]
    assert (quota.taken_ns(0, 1_000), quota.taken_ns(0, 250), quota.taken_ns(0, 100)) == (16, 7, 0)
    assert (quota.touched_ns(0, 1_000), quota.touched_ns(150, 350)) == (200, 100)


def test_without_a_known_policy_there_is_no_error(tmp_path: Path) -> None:
    trace = load(many(tmp_path, None)).trace
    assert used_policy(trace) is None
    table = whatif(trace, ["block"], lambda *_: constant(6 * US))
    why = "the policy that was used is not known, so no replay can be compared"
    assert nothing_is_told(table, why)


def test_replay_of_the_used_policy_agrees_with_the_capture(tmp_path: Path) -> None:
    """The simulated sysmon looks after 20 µs and its timer's delay, as the one by hand does."""
    table = load(many(tmp_path)).whatif(["sysmon", "block", "oracle"], play).set_index("policy")
    replayed = table[table["source"] == "replayed"]
    assert abs(replayed.loc["sysmon", "retake_p50_error_percent"]) < 10
    assert replayed.loc["block", "retake_p50_ns"] < 20 * US
    assert replayed.loc["block", "handoffs"] == 100
    # The scene has no looks at the queues: each of 100 holds of 120 µs may have been harm.
    captured = table[table["source"] == "captured"].iloc[0]
    assert captured["harm_why"] == "the capture tells only that it is 0 ns to 12 ms"
    assert pd.isna(captured["harm_ns"])
    assert table.loc["oracle", "harm_why"].startswith("the capture does not tell it")


def test_goroutines_that_wait_for_each_other_on_one_p_never_end() -> None:
    """Raw calls keep the only P: each reads what the other would write."""
    one = Goroutine(1, 0, [Step("call", site="read", event=1), Step("fire", event=2)])
    two = Goroutine(2, 0, [Step("fire", event=1), Step("call", site="read", event=2)])
    assert play([one, two], "raw", Machine(1, 2), 10_000_000) is None
    ended = play([one, two], "block", Machine(1, 2), 10_000_000)
    assert ended is not None
    assert ended.calls == 2


def test_command_tells_the_error_beside_each_prediction(tmp_path: Path) -> None:
    arguments = [str(many(tmp_path)), "--retake", "block, oracle", "--json"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None
    captured, *predicted = [json.loads(line) for line in done.output.splitlines()]
    assert (captured["policy"], captured["retake_p50_error_percent"]) == ("sysmon", None)
    assert [row["policy"] for row in predicted] == ["block", "oracle"]
    assert all(abs(row["retake_p50_error_percent"]) < 10 for row in predicted)


def test_too_few_calls_are_refused(tmp_path: Path) -> None:
    trace = ping().write(tmp_path)
    with pytest.raises(PretakeError, match="a replay needs 40"):
        whatif(trace, ["block"], lambda *_: None)
