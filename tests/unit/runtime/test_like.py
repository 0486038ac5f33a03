"""Rules of Go: each by what it changes, on the simulated host or by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from reference_runtime import (
    Runtime,
    WaitGroup,
    go,
    gosched,
    nanosleep,
    sleep,
    syscall,
    wait_readable,
)
from reference_runtime import runq as queues
from reference_runtime.gmp import (
    G_SYSCALL,
    G_WAITING,
    P_RUNNING,
    P_SYSCALL,
    PREEMPT_OFF,
    G,
    M,
    P,
    Sched,
)
from reference_runtime.goroutines import current_host, getm, spin
from reference_runtime.like import LEAN, LIKE, Rules, rules_like
from reference_runtime.netpoll import inject
from reference_runtime.policies.base import Site
from reference_runtime.policies.sysmon import SysmonPolicy
from reference_runtime.polldesc import PollWaiter
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record
from reference_runtime.scheduler import may_spin
from reference_runtime.sim.costs import Costs
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.transitions import PIDLE
from tests.unit.runtime.scenes import DIFFERENT, GO, orders
from tracer.errors import PretakeError

US, MS = 1_000, 1_000_000
LIKE_GO = [name for name in LIKE if name != "lean"]
Main = Callable[[], Coroutine[Any, Any, Any]]


def g(goid: int) -> G:
    return G(goid, None, iter(()), "test")


def make(like: str, procs: int = 1, capacity: int = 4) -> Sched:
    rules = rules_like(like)
    return Sched(RealHost(1), SysmonPolicy(), procs, capacity, Record(), rules=rules)


def drain(p: P) -> list[tuple[int, bool]]:
    """The Gs of a queue, and whether each goes on in the time slice."""
    got = []
    while (taken := queues.runqget(p)) is not None:
        got.append((int(taken.goid), bool(p.inherits)))
    return got


def run(like: str, main: Main, procs: int = 1, policy: str = "sysmon", **costs: int) -> Runtime:
    host = SimHost(4, Costs(**costs))
    runtime = Runtime(procs, policy, host=host, like=like)
    runtime.run(main)
    return runtime


# What they are.


def test_there_are_these_rules() -> None:
    assert list(LIKE) == ["lean", "go1.13", "go1.21", "go1.27", "gvisor"]
    assert Runtime(1).rules is LEAN
    with pytest.raises(PretakeError, match=r"no rules are called 'go2': choose one of lean"):
        Runtime(1, like="go2")


def test_go_1_13_preempts_at_function_entries_only() -> None:
    assert [Runtime(1, like=name).preempt for name in LIKE] == [
        "async",
        "cooperative",
        "async",
        "async",
        "async",
    ]
    assert Runtime(1, like="go1.13", preempt="async").preempt == "async"


# Order.


@pytest.mark.parametrize("like", LIKE_GO)
def test_goroutines_run_in_gos_order(like: str) -> None:
    told = orders(like)
    assert {name: told[name] for name in GO} == GO
    assert {name: told[name] for name in DIFFERENT} == {
        n: own for n, (_, own) in DIFFERENT.items()
    }


def test_lean_is_first_in_first_out() -> None:
    assert orders("lean")["start_order"] == [f"run {i}" for i in (1, 2, 3, 4, 5)]


def test_what_is_readied_runs_next_and_kicks_the_one_before() -> None:
    sched = make("go1.21")
    p = sched.allp[0]
    queues.runqput(sched, p, g(1))
    queues.runqput_next(sched, p, g(2))
    queues.runqput(sched, p, g(3))
    queues.runqput_next(sched, p, g(4))
    assert p.runqtail - p.runqhead == 4
    assert drain(p) == [(4, True), (1, False), (3, False), (2, False)]


def test_the_next_takes_no_room_of_the_queue() -> None:
    sched = make("go1.21", capacity=2)
    p = sched.allp[0]
    for goid in (1, 2, 3):
        queues.runqput_next(sched, p, g(goid))
    assert (p.runqtail - p.runqhead, sched.runqsize) == (3, 0)
    queues.runqput_next(sched, p, g(4))  # half of the queue and the one that is kicked
    assert [goid for goid, _ in drain(p)] == [4, 2]
    assert sched.runqsize == 2


def test_nobody_runs_next_where_nobody_ends_a_time_slice() -> None:
    rules = rules_like("go1.21")
    sched = Sched(RealHost(), SysmonPolicy(), 1, 4, Record(), PREEMPT_OFF, rules=rules)
    for goid in (1, 2):
        queues.runqput_next(sched, sched.allp[0], g(goid))
    assert drain(sched.allp[0]) == [(1, False), (2, False)]


def test_the_next_runs_in_the_same_time_slice() -> None:
    async def main() -> int:
        begin = getm().p.schedtick
        done = WaitGroup(3)

        async def chain(left: int) -> None:
            if left:
                go(chain(left - 1))
            done.done()

        go(chain(2))
        await done.wait()
        return int(getm().p.schedtick - begin)

    assert Runtime(1, host=SimHost(2), like="go1.21").run(main) == 0
    assert Runtime(1, host=SimHost(2)).run(main) == 4  # each of the chain, and main


# Stealing.


def test_a_thief_of_gos_runs_the_last_and_leaves_the_next() -> None:
    sched = make("go1.21", procs=2)
    victim, thief = sched.allp
    for goid in (1, 2, 3):
        queues.runqput(sched, victim, g(goid))
    queues.runqput_next(sched, victim, g(4))
    stolen = queues.steal(sched, thief)
    assert stolen is not None
    assert stolen.goid == 2  # of 1 and 2
    assert [goid for goid, _ in drain(thief)] == [1]
    assert drain(victim) == [(4, True), (3, False)]


def test_the_last_pass_takes_a_next() -> None:
    for passes, stolen in ((1, 5), (4, 5)):
        sched = Sched(
            RealHost(1), SysmonPolicy(), 2, 4, Record(), rules=Rules("x", steal_passes=passes)
        )
        victim, thief = sched.allp
        queues.runqput_next(sched, victim, g(5))
        taken = queues.steal(sched, thief)
        assert taken is not None
        assert (taken.goid, victim.has_next, victim.runqtail - victim.runqhead) == (
            stolen,
            False,
            0,
        )


@pytest.mark.parametrize(
    ("always", "status", "sleeps"),
    [(False, P_RUNNING, 1), (False, P_SYSCALL, 0), (True, P_RUNNING, 1), (True, P_SYSCALL, 1)],
)
def test_a_thief_sleeps_before_a_next_of_a_p_that_runs(
    always: bool, status: int, sleeps: int
) -> None:
    """To go1.10 it slept in any case; the runtime counts each sleep and what it costs."""
    rules = Rules("x", always_sleeps=always)
    sched = Sched(SimHost(2), SysmonPolicy(), 2, 4, Record(), rules=rules)
    victim, thief = sched.allp
    victim.status = status
    victim.m = M(0, sched, sched.monitor_note, sched.monitor_note)
    told = []

    def steals() -> None:
        queues.runqput_next(sched, victim, g(5))
        told.append(queues.steal(sched, thief))
        sched.finished.wakeup()

    sched.host.start_thread(steals, "thief")
    sched.host.wait_for_end(sched.finished)
    assert told[0] is not None
    record = sched.record
    assert record.thief_sleeps == sleeps
    # 3 µs, and the kernel's timer slack.
    slept_ns = sleeps * (3 * US + Costs().timer_slack_ns)
    assert slept_ns <= record.thief_sleep_ns <= slept_ns + sleeps * 5 * US
    assert record.thief_sleep_cpu_ns <= record.thief_sleep_ns


def test_half_of_the_busy_ps_may_have_a_spinning_m() -> None:
    sched, lean = make("go1.21", procs=4), make("lean", procs=4)
    told = []
    for idle, spinning in ((0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (3, 0)):
        sched.npidle = lean.npidle = idle
        sched.nmspinning = lean.nmspinning = spinning
        assert may_spin(lean)
        told.append(may_spin(sched))
    assert told == [True, True, False, True, False, True]


# Calls.


@pytest.mark.parametrize(("like", "threads"), [("lean", 1), *((name, 2) for name in LIKE_GO)])
def test_gos_last_p_gets_an_m_that_looks_for_work(like: str, threads: int) -> None:
    async def main() -> None:
        await nanosleep(200 * US)

    assert run(like, main, policy="block").record.threads == threads


@pytest.mark.parametrize("like", list(LIKE))
def test_who_returns_takes_its_p_from_anothers_call(like: str) -> None:
    async def main() -> None:
        host = current_host()
        assert isinstance(host, SimHost)
        done = WaitGroup(1)

        async def calls() -> None:
            for _ in range(60):
                await syscall(Site("short"), host.call, (0, 50 * US))
            done.done()

        go(calls())
        await syscall(Site("long"), host.call, (0, 1_000 * US))
        await done.wait()

    reasons = {retake.reason for retake in run(like, main).record.retakes}
    assert ("exitsyscall" in reasons) == (like != "lean")
    assert "sysmon" in reasons


@pytest.mark.parametrize("like", list(LIKE))
def test_from_go_1_26_on_a_p_in_a_call_is_running(like: str) -> None:
    seen: set[int] = set()
    before: list[Sched] = []

    def look(_tid: int, _ns: int, _blocked: bool) -> None:
        for m in before[0].allm:
            if m.curg.status == G_SYSCALL and m.p.m is m:
                seen.add(int(m.p.status))

    async def main() -> None:
        host = current_host()
        assert isinstance(host, SimHost)
        before.append(getm().sched)
        host.machine.on_switch_out.append(look)
        await nanosleep(30 * US)
        host.machine.on_switch_out.remove(look)

    run(like, main)
    assert seen == {P_RUNNING if like == "go1.27" else P_SYSCALL}


# The network poller.


@pytest.mark.parametrize(("like", "late_us"), [("lean", 0), *((name, 500) for name in LIKE_GO)])
def test_gos_poller_waits_in_whole_ms(like: str, late_us: int) -> None:
    async def main() -> int:
        begin_ns = current_host().nanotime()
        await sleep(1_500 * US)
        return int(current_host().nanotime() - begin_ns) - 1_500 * US

    host = SimHost(2, Costs(timer_slack_ns=0))
    late_ns = Runtime(1, host=host, like=like).run(main)
    assert isinstance(late_ns, int)
    # One ms, and one more for what is left; what a wake-up takes is far less.
    assert late_us * US <= late_ns < (late_us + 100) * US


def test_waits_below_one_ms_are_rounded_up_and_others_down() -> None:
    rules = rules_like("go1.21")
    told = [rules.poll_ns(ns) for ns in (-1, 0, 1, MS - 1, MS, 2 * MS - 1, 7 * MS)]
    assert told == [-1, 0, MS, MS, MS, MS, 7 * MS]
    assert LEAN.poll_ns(1) == 1


@pytest.mark.parametrize(("like", "wakes"), [("go1.21", 0), ("go1.27", 1)])
def test_goroutines_that_are_readied_together_are_dealt_out(like: str, wakes: int) -> None:
    """Six at once, of which one is for the M itself, three for idle Ps, two for its queue."""
    sched = make(like, procs=5, capacity=8)
    host = sched.host
    started: list[int] = []

    def m_main(m: M) -> None:
        started.append(int(m.nextp.id))
        m.exited.wakeup()

    sched.m_main = m_main
    own = sched.allp[0]
    m = M(0, sched, host.new_note(), host.new_note())
    m.p = own
    own.m = m
    for p in sched.allp[1:4]:
        queues.pidleput(sched, p)
    waiters = []
    for goid in range(1, 7):
        waiter = PollWaiter(g(goid))
        waiter.g.status = G_WAITING
        waiters.append(waiter)
    inject(sched, m, waiters)
    for started_m in sched.allm:
        started_m.exited.sleep()
    assert [goid for goid, _ in drain(own)] == [1, 5, 6]
    assert sched.runqsize == 3
    assert sorted(started) == [1, 2, 3]
    assert sched.npidle == 0
    # With no P left there is nothing to wake one more for.
    queues.pidleput(sched, sched.allp[4])
    last = PollWaiter(g(7))
    last.g.status = G_WAITING
    inject(sched, m, [last])
    for started_m in sched.allm[3:]:
        started_m.exited.sleep()
    assert len(sched.allm) == 3 + wakes


@pytest.mark.parametrize("like", ["go1.21", "gvisor"])
def test_gvisor_does_not_ask_the_network_before_it_gives_up_its_p(like: str) -> None:
    kinds: list[int] = []

    async def main() -> None:
        host = current_host()
        read_fd, write_fd = host.pipe()
        done = WaitGroup(1)

        async def waits() -> None:
            await wait_readable(read_fd)
            done.done()

        go(waits())
        await gosched()
        host.write(write_fd, b"x")
        sched = getm().sched
        sched.toll, sched.tolled = kinds.append, 1
        await done.wait()
        sched.tolled = 0

    run(like, main)
    assert kinds.count(int(PIDLE)) == (1 if like == "gvisor" else 0)


@pytest.mark.parametrize("like", LIKE_GO)
@pytest.mark.parametrize("procs", [1, 2])
def test_a_program_of_everything_ends_by_any_rules(like: str, procs: int) -> None:
    async def main() -> int:
        one, other = current_host().tcp_pair()
        done = WaitGroup(3)

        async def reads() -> None:
            await wait_readable(one)
            done.done()

        async def computes() -> None:
            await spin(100 * US)
            done.done()

        go(reads())
        go(computes())
        await nanosleep(100 * US)
        current_host().write(other, b"x")
        await sleep(10 * US)
        done.done()
        await done.wait()
        return 5

    assert Runtime(procs, host=RealHost(), like=like).run(main) == 5
