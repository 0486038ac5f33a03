"""Run queues, by hand."""

from __future__ import annotations

from reference_runtime import runq
from reference_runtime.gmp import NO_P, G, P, Sched
from reference_runtime.policies.sysmon import SysmonPolicy
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record


def make(procs: int, capacity: int = 4) -> Sched:
    return Sched(RealHost(seed=1), SysmonPolicy(), procs, capacity, Record())


def g(goid: int) -> G:
    return G(goid, None, iter(()), "test")


def drain(p: P) -> list[int]:
    goids = []
    while (taken := runq.runqget(p)) is not None:
        goids.append(taken.goid)
    return goids


def drain_global(sched: Sched) -> list[int]:
    """The global queue, through a P so large that it takes one share after another."""
    p = P(9, 1024, sched.host.new_lock())
    goids = []
    while (first := runq.globrunqget(sched, p, 1, 1)) is not None:
        goids.append(first.goid)
    return goids


def test_a_queue_is_first_in_first_out() -> None:
    sched = make(1)
    p = sched.allp[0]
    for goid in (1, 2, 3):
        runq.runqput(sched, p, g(goid))
    assert (p.runqhead, p.runqtail) == (0, 3)
    assert drain(p) == [1, 2, 3]
    assert (p.runqhead, p.runqtail) == (3, 3)


def test_a_full_queue_gives_half_and_the_newcomer_to_the_global_one() -> None:
    sched = make(1)
    p = sched.allp[0]
    for goid in (1, 2, 3, 4, 5):
        runq.runqput(sched, p, g(goid))
    assert sched.runqsize == 3
    assert drain(p) == [3, 4]
    assert drain_global(sched) == [1, 2, 5]
    assert sched.runqsize == 0


def test_a_thief_takes_half_rounded_up_and_runs_the_first() -> None:
    sched = make(2)
    victim, thief = sched.allp
    for goid in (1, 2, 3):
        runq.runqput(sched, victim, g(goid))
    stolen = runq.steal(sched, thief)
    assert stolen is not None
    assert stolen.goid == 1
    assert drain(thief) == [2]
    assert drain(victim) == [3]
    assert runq.steal(sched, thief) is None


def test_a_p_takes_its_share_of_the_global_queue() -> None:
    sched = make(2, capacity=8)
    for goid in range(1, 7):
        runq.globrunqput(sched, g(goid))
    p = sched.allp[0]
    first = runq.globrunqget(sched, p, 2, 0)  # 6 of 2 Ps: 6 // 2 + 1, at most 8 // 2
    assert first is not None
    assert first.goid == 1
    assert drain(p) == [2, 3, 4]
    assert sched.runqsize == 2


def test_idle_ps_are_counted() -> None:
    sched = make(2)
    assert runq.pidleget(sched) is NO_P
    for p in sched.allp:
        runq.pidleput(sched, p)
    assert sched.npidle == 2
    assert [runq.pidleget(sched).id for _ in range(2)] == [1, 0]
    assert sched.npidle == 0
