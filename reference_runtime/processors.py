"""Which M has which P: Ms are parked and woken, Ps are given, retaken and handed off.

The concepts, and the rules about locks, stand at the head of ``scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from reference_runtime import runq
from reference_runtime.deadlock import Deadlock, describe
from reference_runtime.errors import ThreadLimit
from reference_runtime.gmp import (
    G_SYSCALL,
    NO_G,
    NO_P,
    P_GCSTOP,
    P_IDLE,
    P_RUNNING,
    P_SYSCALL,
    M,
)
from reference_runtime.stops import stopper_runs, tell_stop
from reference_runtime.transitions import (
    ACQUIREP,
    HANDOFF,
    NO_REASON,
    NO_TID,
    PIDLE,
    RETAKE,
    RUN,
    STARTM,
    STOPM,
    transition,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, P, Sched


def stop_run(sched: Sched, failure: BaseException | None) -> None:
    """End the run: every M leaves when it next comes by. The first failure is kept."""
    sched.lock.acquire()
    if not sched.stopping:
        sched.stopping = True
        sched.failure = failure
    sched.lock.release()
    for m in sched.allm:
        m.note.wakeup()
    sched.monitor_note.wakeup()
    sched.policy.stopping()
    sched.host.netpoll_break()
    sched.finished.wakeup()


def acquirep(sched: Sched, m: M, p: P) -> None:
    """M takes P, which was given to it."""
    m.nextp = NO_P
    p.lock.acquire()
    p.status = P_RUNNING
    p.m = m
    m.p = p
    p.changed_hands = True
    p.lock.release()
    transition(ACQUIREP, m, p, NO_G, NO_REASON, NO_TID)
    if sched.monitor_waits:
        sched.monitor_waits = False
        sched.monitor_note.wakeup()


def releasep(m: M, p: P) -> None:
    """M has P no more."""
    p.lock.acquire()
    p.status = P_IDLE
    p.m = None
    m.p = NO_P
    p.lock.release()


def take_idle_p(sched: Sched, m: M) -> bool:
    """Give M a P from the idle list, if there is one."""
    sched.lock.acquire()
    p = runq.pidleget(sched)
    sched.lock.release()
    if p is NO_P:
        return False
    acquirep(sched, m, p)
    return True


def first_run(sched: Sched, m: M, p: P, g: G) -> None:
    """The first goroutine runs on P since it changed hands."""
    p.changed_hands = False
    transition(RUN, m, p, g, NO_REASON, NO_TID)
    if p.lost_enter_ns:
        now_ns = sched.host.nanotime()
        sched.record.retake_ns.append(now_ns - p.lost_enter_ns)
        if p.was_retaken:
            sched.record.ran(p.id, p.lost_enter_ns, now_ns, m.tid, g.goid)
        p.lost_enter_ns = 0


def stopm(sched: Sched, m: M) -> bool:
    """Park M until it is given a P or woken without one; False when the run is over."""
    sched.lock.acquire()
    if sched.stopping:
        sched.lock.release()
        return False
    m.schedlink = sched.midle
    sched.midle = m
    sched.nmidle += 1
    asleep = sched.nmidle == sched.mcount and sched.poller is None
    sched.lock.release()
    transition(STOPM, m, NO_P, NO_G, NO_REASON, NO_TID)
    if asleep:
        check_dead(sched)
    if m.slot:
        stopper_runs(sched, m, False)
    m.note.sleep()
    if sched.stopping:
        return False
    if m.slot:
        stopper_runs(sched, m, True)
    if m.nextp is not NO_P:
        acquirep(sched, m, m.nextp)
    return True


def check_dead(sched: Sched) -> None:
    """All Ms were parked a moment ago: will any goroutine ever run again?

    A P that is not idle belongs to an M, or to code that will give it to one.
    """
    sched.lock.acquire()
    asleep = sched.nmidle == sched.mcount and sched.npidle == len(sched.allp)
    sched.lock.release()
    if not asleep or sched.timers.count or sched.netpoll_waiters or sched.poller is not None:
        return
    if queues_hold_work(sched):
        stop_run(
            sched, RuntimeError("lost wake-up: a goroutine is runnable and every M is parked")
        )
    else:
        stop_run(sched, Deadlock([describe(g) for g in runq.all_gs(sched)]))


def wakep(sched: Sched, m: M) -> None:
    """There is new work: have one more M look for it, if a P is free and no M looks."""
    if sched.npidle == 0 or sched.nmspinning != 0:
        return
    sched.lock.acquire()
    if sched.nmspinning != 0:
        sched.lock.release()
        return
    sched.nmspinning += 1
    sched.lock.release()
    startm(sched, m, NO_P, True)


def startm(sched: Sched, m: M, p: P, spinning: bool) -> None:
    """Have some M run P, or any idle P; a new M if none is parked (Go: startm).

    A caller that passes ``spinning`` has counted the new M in ``nmspinning`` already.
    """
    sched.lock.acquire()
    if p is NO_P:
        p = runq.pidleget(sched)
        if p is NO_P:
            if spinning:
                sched.nmspinning -= 1
            sched.lock.release()
            return
    parked = sched.midle
    if parked is not None:
        sched.midle = parked.schedlink
        parked.schedlink = None
        sched.nmidle -= 1
    sched.lock.release()
    if parked is None:
        started = new_m(sched)
        started.spinning = spinning
        transition(STARTM, m, p, NO_G, NO_REASON, NO_TID)
        start_m(sched, started, p)
    else:
        parked.spinning = spinning
        parked.nextp = p
        sched.record.add(wakeups=1)
        transition(STARTM, m, p, NO_G, NO_REASON, parked.tid)
        parked.note.wakeup()


def call_m(sched: Sched) -> None:
    """Wake a parked M without a P, or make one; it watches the others (``integrated``)."""
    sched.lock.acquire()
    parked = sched.midle
    if parked is not None:
        sched.midle = parked.schedlink
        parked.schedlink = None
        sched.nmidle -= 1
    sched.lock.release()
    if parked is None:
        start_m(sched, new_m(sched), NO_P)
    else:
        sched.record.add(wakeups=1)
        parked.note.wakeup()


def new_m(sched: Sched) -> M:
    """An M, without its thread."""
    m = M(0, sched, sched.host.new_note(), sched.host.new_note())
    sched.lock.acquire()
    # Its place in the list, by which a policy finds it.
    m.id = sched.mcount
    sched.mcount += 1
    sched.allm.append(m)
    sched.lock.release()
    return m


def start_m(sched: Sched, m: M, p: P) -> None:
    """Give a new M its thread and its first P; if there is none to be had, the run is over."""
    m.nextp = p
    if m.id >= sched.maxmcount:
        # As Go's, which is there to end programs that make threads without an end.
        stop_run(
            sched,
            ThreadLimit(
                f"thread exhaustion: the program exceeds the {sched.maxmcount}-thread limit",
                "block in fewer system calls at once, or wait by the network poller",
            ),
        )
        m.exited.wakeup()
        return
    sched.record.add(threads=1)
    body: Callable[[], None] = partial(sched.m_main, m)
    if not start_thread(sched, body, f"M{m.id}"):
        m.exited.wakeup()


def start_thread(sched: Sched, body: Callable[[], None], name: str) -> bool:
    """Start a thread; if the machine has no room for it the run is over, and False is told."""
    try:
        sched.host.start_thread(body, name)
    except RuntimeError as failure:
        stop_run(
            sched,
            ThreadLimit(
                f"failed to create a new OS thread (have {sched.mcount} already): {failure}",
                "raise the limit (ulimit -u, pids.max), or block in fewer calls at once",
            ),
        )
        return False
    return True


def queues_hold_work(sched: Sched) -> bool:
    """Whether any run queue has a goroutine."""
    if sched.runqsize:
        return True
    for p in sched.allp:
        if sched.parallel:
            # Who puts a goroutine there later sees what the caller did before he looked.
            p.lock.acquire()
            p.lock.release()
        if p.runqhead != p.runqtail:
            return True
    return False


def work_for_others(sched: Sched) -> bool:
    """Whether an M with P would find work, or would wait for timers and the network."""
    if queues_hold_work(sched) and sched.nmspinning == 0:
        return True
    if sched.runqsize:
        return True
    return bool(sched.poller is None and (sched.timers.count or sched.netpoll_waiters))


def retake(sched: Sched, m: M, p: P, reason: i64) -> bool:
    """Take P from an M in a system call and hand it on; False if the M was back first.

    Args:
        m: the caller's M.
        p: any P.
        reason: index in ``RUNTIME_REASONS``: who retakes.
    """
    if not take_from_syscall(sched, m, p, reason):
        return False
    handoffp(sched, m, p, NO_G, reason)
    return True


def in_syscall(sched: Sched, p: P) -> bool:
    """Whether P's M is in a system call in which it may lose P; to be sure, under P's lock.

    P's status tells, or, from go1.26 on, only the goroutine's (rule ``psyscall``).
    """
    if sched.rules.psyscall:
        return p.status == P_SYSCALL
    m = p.m
    return p.status == P_RUNNING and m is not None and m.p is p and m.curg.status == G_SYSCALL


def take_from_syscall(sched: Sched, m: M, p: P, reason: i64) -> bool:
    """The first half of :func:`retake`: P is idle, off its M, and in the caller's hands."""
    p.lock.acquire()
    loser = p.m
    if not in_syscall(sched, p) or loser is None:
        p.lock.release()
        return False
    p.status = P_IDLE
    p.m = None
    p.syscalltick += 1
    loser.p = NO_P
    enter_ns = loser.enter_ns
    g = loser.curg
    p.lost_enter_ns = enter_ns
    p.was_retaken = True
    p.lock.release()
    sched.record.retaken(sched.host.nanotime(), enter_ns, p.id, loser.tid, g.goid, reason, m.tid)
    transition(RETAKE, m, p, g, reason, loser.tid)
    return True


def handoffp(sched: Sched, m: M, p: P, g: G, reason: i64) -> None:
    """Give P, which the caller has, to an M if there is work for it, else to the idle list.

    Args:
        m: the caller's M.
        p: idle, on no list.
        g: the goroutine for whose call it is, or ``NO_G``.
        reason: index in ``RUNTIME_REASONS``.
    """
    transition(HANDOFF, m, p, g, reason, NO_TID)
    if sched.rules.go_handoff and starts_m_as_go(sched, m, p):
        return
    sched.lock.acquire()
    if sched.gcwaiting:
        p.lost_enter_ns = 0
        gcstop(sched, p)
        sched.lock.release()
        return
    found = False
    if sched.rules.go_handoff:
        # "The last running P, and nobody polls the network": Go does not ask for whom.
        last = sched.npidle == len(sched.allp) - 1
        found = sched.runqsize > 0 or (last and sched.poller is None)
    else:
        found = p.runqhead != p.runqtail or work_for_others(sched)
    if not found:
        runq.pidleput(sched, p)
        p.lost_enter_ns = 0
    sched.lock.release()
    if found:
        startm(sched, m, p, False)
    else:
        transition(PIDLE, m, p, NO_G, reason, NO_TID)


def starts_m_as_go(sched: Sched, m: M, p: P) -> bool:
    """Whether Go starts an M for P, which is handed off, before it looks under its lock.

    For work that it sees; or where no M spins and no P is idle, so that somebody looks for work
    that it does not see (go1.21, runtime.handoffp).
    """
    if p.runqhead != p.runqtail or sched.runqsize:
        startm(sched, m, p, False)
        return True
    sched.lock.acquire()
    alone = sched.nmspinning + sched.npidle == 0 and not sched.gcwaiting
    if alone:
        sched.nmspinning += 1
    sched.lock.release()
    if alone:
        startm(sched, m, p, True)
    return alone


def gcstop(sched: Sched, p: P) -> None:
    """Give P, which the caller has, to the stop-the-world. The lock is held."""
    p.status = P_GCSTOP
    sched.stopwait -= 1
    if sched.stopwait == 0:
        tell_stop(sched)
