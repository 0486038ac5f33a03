"""Replays computed by hand, on a machine on which everything but waiting is free."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reference_runtime.policies import POLICIES
from reference_runtime.sim.costs import Costs
from reference_runtime.sim.replay import Call, Cpu, Fire, Replayed, Script, Sleep, Wait, replay
from tracer.errors import PretakeError

US = 1_000
MS = 1_000_000
FREE = Costs(
    syscall_ns=0,
    context_switch_ns=0,
    wakeup_ns=0,
    wake_call_ns=0,
    thread_start_ns=0,
    timer_slack_ns=0,
    lock_ns=0,
    clock_ns=0,
    turn_ns=0,
)
READER_AND_WORKER = [Script([Call("read", 3 * MS)]), Script([Cpu(2 * MS)])]


def one(replayed: Replayed) -> tuple[str, int, int | None, int]:
    """Outcome, hold, retake latency and harm of the one episode."""
    (episode,) = replayed.episodes
    return (
        episode.outcome(),
        int(episode.hold_ns()),
        episode.retake_ns(),
        int(episode.harm_ns),
    )


def test_raw_keeps_p_for_the_whole_call() -> None:
    replayed = replay(READER_AND_WORKER, "raw", procs=1, costs=FREE)
    assert one(replayed) == ("kept", 3 * MS, None, 3 * MS)
    assert replayed.elapsed_ns == 5 * MS
    assert replayed.calls_per_s == 200.0


@pytest.mark.parametrize("policy", ["block", "oracle"])
def test_a_handoff_before_the_call_costs_nobody_anything(policy: str) -> None:
    replayed = replay(READER_AND_WORKER, policy, procs=1, costs=FREE)
    assert one(replayed) == ("handed_off", 0, 0, 0)
    assert replayed.elapsed_ns == 3 * MS
    assert replayed.handoffs == 1
    assert replayed.needless == 0


def test_sysmon_takes_p_at_the_second_sighting() -> None:
    """The monitor sleeps for 20 µs: it sees the call at 20 µs, and again at 40 µs."""
    replayed = replay(READER_AND_WORKER, "sysmon", procs=1, costs=FREE)
    assert one(replayed) == ("retaken", 40 * US, 40 * US, 40 * US)
    assert replayed.elapsed_ns == 3 * MS
    assert replayed.counters["retakes"] == 1


def test_a_hold_with_nothing_waiting_does_no_harm() -> None:
    replayed = replay([Script([Call("read", 3 * MS)])], "raw", procs=1, costs=FREE)
    assert one(replayed) == ("kept", 3 * MS, None, 0)


def test_an_idle_p_takes_the_work_and_the_hold_does_no_harm() -> None:
    replayed = replay(READER_AND_WORKER, "raw", procs=2, costs=FREE)
    assert one(replayed) == ("kept", 3 * MS, None, 0)
    assert replayed.elapsed_ns == 3 * MS


def test_oracle_keeps_p_in_a_short_call() -> None:
    """A handoff costs 1 + 3 + 1.5 µs on the usual machine; this call blocks for less."""
    scripts = [Script([Call("read", 5_400), Call("read", 5_600)]), Script([Cpu(1 * MS)])]
    replayed = replay(scripts, "oracle", procs=1)
    assert [episode.outcome() for episode in replayed.episodes] == ["kept", "handed_off"]
    assert replayed.handoffs == 1


def test_a_call_that_does_not_block_makes_no_episode() -> None:
    scripts = [Script([Call("stat", None, cpu_ns=5 * US)] * 7)]
    replayed = replay(scripts, "sysmon", procs=1, costs=FREE)
    assert replayed.episodes == []
    assert replayed.calls == 7
    assert replayed.elapsed_ns == 35 * US


def test_events_order_goroutines_and_calls() -> None:
    """The reader's call blocks until the writer, woken by a timer, has worked for 1 ms."""
    scripts = [
        Script([Call("read", None, until=1), Fire(2)]),
        Script([Sleep(2 * MS), Cpu(1 * MS), Fire(1)]),
        Script([Wait(2), Cpu(4 * MS)]),
    ]
    replayed = replay(scripts, "block", procs=1, costs=FREE)
    assert replayed.elapsed_ns == 7 * MS
    assert one(replayed)[:2] == ("handed_off", 0)


def test_a_call_whose_event_has_happened_does_not_block() -> None:
    scripts = [Script([Fire(1), Call("read", None, until=1)])]
    assert replay(scripts, "sysmon", procs=1, costs=FREE).episodes == []


def test_a_script_starts_when_it_did() -> None:
    replayed = replay([Script([Cpu(1 * MS)], start_ns=4 * MS)], "block", procs=1, costs=FREE)
    assert replayed.elapsed_ns == 5 * MS


def test_dearer_system_calls_take_longer() -> None:
    """1000 calls of 300 ns, and of 750 ns: the difference is what the calls cost."""
    scripts = [Script([Call("getpid", None)] * 1000)]
    cheap = replay(scripts, "raw", procs=1)
    dear = replay(scripts, "raw", procs=1, costs=Costs().scaled(2.5))
    assert dear.elapsed_ns - cheap.elapsed_ns == 1000 * 450


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_observer_and_runtime_agree(policy: str) -> None:
    """What is seen from outside is what the runtime's own record counts."""
    scripts = [
        Script(
            [
                Call("io", (who + n // 2) % 5 * 40 * US) if n % 2 else Cpu(20 * US)
                for n in range(40)
            ]
        )
        for who in range(6)
    ]
    replayed = replay(scripts, policy, procs=2, cpus=4)
    outcomes = [episode.outcome() for episode in replayed.episodes]
    lost = outcomes.count("retaken") + outcomes.count("handed_off") + replayed.unblocked
    assert lost == replayed.counters["retakes"] + replayed.counters["handoffs"]
    assert len(replayed.episodes) == 6 * 20


def test_same_seed_same_replay() -> None:
    scripts = [Script([Call("io", who * 30 * US), Cpu(20 * US)] * 20) for who in range(6)]
    first, second = (replay(scripts, "sysmon", procs=3, seed=4) for _ in range(2))
    assert first.retake_ns == second.retake_ns
    assert first.elapsed_ns == second.elapsed_ns


def test_unknown_event_is_the_users_mistake() -> None:
    with pytest.raises(PretakeError, match="event 9"):
        replay([Script([Wait(9)])], "block", procs=1)


def test_unknown_policy_and_no_cpu() -> None:
    with pytest.raises(PretakeError, match="no retake policy"):
        replay([], "guess", procs=1)
    with pytest.raises(PretakeError, match="0 is no number of CPUs"):
        replay([], "block", procs=1, cpus=0)


def test_a_probe_takes_its_time_at_each_transition() -> None:
    """sysmon takes P at 40 µs; its way is retake, handoff, startm, acquirep, and then run.

    Each tells its moment before its probe takes 7 µs, so four of them lie on the way.
    """
    watched = replay(READER_AND_WORKER, "sysmon", procs=1, costs=replace(FREE, probe_ns=7 * US))
    assert one(watched)[1:3] == (40 * US, 68 * US)


def test_an_m_pays_for_finding_a_goroutine_on_a_p_that_it_was_given() -> None:
    found = replay(READER_AND_WORKER, "sysmon", procs=1, costs=replace(FREE, find_ns=4 * US))
    assert one(found)[1:3] == (40 * US, 44 * US)


def test_the_monitor_pays_for_its_rounds() -> None:
    """It sleeps 20 and looks for 5: it sees the call at 25, and again at 50."""
    round_ = replay(READER_AND_WORKER, "sysmon", procs=1, costs=replace(FREE, round_ns=5 * US))
    assert one(round_)[1] == 50 * US


def test_who_waits_for_switches_is_woken_at_each() -> None:
    """A block at 0: the watcher looks for 5 µs and takes P; the M that gets it pays a record.

    Its switch-in wakes the watcher, which costs it 3 µs besides the record's 2.
    """
    costs = replace(FREE, round_ns=5 * US, switch_record_ns=2 * US, wake_call_ns=3 * US)
    told = replay(READER_AND_WORKER, "sched_out", procs=1, costs=costs)
    outcome, hold, latency, _ = one(told)
    assert (outcome, hold) == ("retaken", 5 * US)
    assert latency is not None
