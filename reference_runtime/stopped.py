"""Goroutines that have stopped when they were asked to, at a check or in a signal's handler.

A thread that a signal stopped stands in the handler and can do nothing. So the M that learns of it
first takes its P (``take_stopped``). Its goroutine goes to the global queue, *bound* to the
thread; the M that finds it there gives its P to that thread (``run_special``). The reasons, and
the rejected designs, stand at the head of ``preempt.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime import runq
from reference_runtime.gmp import (
    G_PREEMPTED,
    G_RUNNABLE,
    G_RUNNING,
    NO_G,
    NO_P,
    P_IDLE,
    P_RUNNING,
)
from reference_runtime.processors import handoffp, releasep, work_for_others
from reference_runtime.stops import tell_stop
from reference_runtime.transitions import (
    BY_CHECK,
    BY_LOCKED,
    BY_SIGNAL,
    HANDOFF,
    NO_TID,
    PREEMPTED,
    STARTM,
    transition,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M, P, Sched
    from reference_runtime.host import Stopper

STOP_LOOK_NS: Final = 100_000
"""Time after which the M that waits for a stop asks again (go1.21, stopTheWorldWithSema)."""


def stopped_by_check(sched: Sched, m: M) -> None:
    """M's goroutine found its stack guard poisoned, and is about to stop."""
    sched.record.add(preempted_cooperative=1)
    if m.asked:
        sched.record.preempt_ns.append(sched.host.nanotime() - m.asked_ns)
    m.curg.stackguard = 0
    transition(PREEMPTED, m, m.p, m.curg, BY_CHECK, NO_TID)


def preempted(sched: Sched, g: G) -> None:
    """G stopped at a check of its own and has left its M."""
    sched.lock.acquire()
    if g.suspended:
        g.status = G_PREEMPTED
        sched.lock.release()
        tell_stop(sched)
        return
    g.status = G_RUNNABLE
    runq.globrunqput(sched, g)
    sched.lock.release()


def take_stopped(sched: Sched, m: M) -> None:
    """Take the Ps of threads that a signal stopped, and hand them on."""
    stopper = sched.stopper
    if stopper is None:
        return
    for p in sched.allp:
        loser = p.m
        if loser is not None and loser.slot and stopper.stopped(loser.slot):
            take_from_stopped(sched, m, p, stopper)


def take_from_stopped(sched: Sched, m: M, p: P, stopper: Stopper) -> None:
    """Take P from its M, whose thread stands in the signal's handler."""
    p.lock.acquire()
    loser = p.m
    if (
        sched.stopping
        or loser is None
        or loser.p is not p
        or p.status != P_RUNNING
        or not stopper.stopped(loser.slot)
    ):
        p.lock.release()
        return
    g = loser.curg
    p.status = P_IDLE
    p.m = None
    loser.p = NO_P
    loser.curg = NO_G
    loser.asked = False
    asked_ns = loser.asked_ns
    g.stackguard = 0
    g.bound = loser
    g.special = True
    p.lock.release()
    sched.record.preempt_ns.append(sched.host.nanotime() - asked_ns)
    sched.lock.acquire()
    suspended = g.suspended
    alone = (
        not suspended
        and not sched.gcwaiting
        and p.runqhead == p.runqtail
        and not work_for_others(sched)
    )
    if suspended:
        g.status = G_PREEMPTED
    elif not alone:
        g.status = G_RUNNABLE
        runq.globrunqput(sched, g)
    sched.lock.release()
    if alone:
        # Nobody else wants to run: Go's scheduler would find the same goroutine again.
        give_to_bound(sched, loser, p, g, stopper)
        return
    if suspended:
        tell_stop(sched)
    handoffp(sched, m, p, g, BY_SIGNAL)


def run_special(sched: Sched, m: M, g: G) -> bool:
    """Handle a runnable G that is suspended, or bound to a stopped M; False if it is neither."""
    sched.lock.acquire()
    if g.suspended:
        g.status = G_PREEMPTED
        sched.lock.release()
        tell_stop(sched)
        return True
    sched.lock.release()
    bound = g.bound
    stopper = sched.stopper
    if bound is None or stopper is None:
        return False
    p = m.p
    releasep(m, p)
    if p.lost_enter_ns:
        sched.record.retake_ns.append(sched.host.nanotime() - p.lost_enter_ns)
        p.lost_enter_ns = 0
    sched.record.add(wakeups=1)
    transition(HANDOFF, m, p, g, BY_LOCKED, NO_TID)
    transition(STARTM, m, p, NO_G, BY_LOCKED, bound.tid)
    give_to_bound(sched, bound, p, g, stopper)
    return True


def give_to_bound(sched: Sched, m: M, p: P, g: G, stopper: Stopper) -> None:
    """Let a stopped M go on with its goroutine, on P, which is in the caller's hands."""
    p.lock.acquire()
    if sched.stopping:
        # Its thread may have gone on, and ended, without a P.
        p.lock.release()
        return
    g.bound = None
    g.special = g.suspended
    g.status = G_RUNNING
    p.status = P_RUNNING
    p.m = m
    p.schedtick += 1
    p.changed_hands = False
    m.p = p
    m.curg = g
    stopper.resume(m.slot, p, g)
    p.lock.release()


def release_stopped(sched: Sched) -> None:
    """The run is over: let stopped threads go on, without a P, to their end."""
    stopper = sched.stopper
    if stopper is None:
        return
    for m in sched.allm:
        if m.slot and stopper.stopped(m.slot):
            stopper.resume(m.slot, NO_P, NO_G)


def wait_for_stop(sched: Sched, m: M, seen: i64) -> None:
    """Wait, on M's thread, for a stop later than ``seen``, or until it is time to ask again."""
    if sched.stopper is None:
        sched.stop_note.sleep_for(STOP_LOOK_NS)
    else:
        sched.stopper.wait(seen, STOP_LOOK_NS)
        take_stopped(sched, m)
