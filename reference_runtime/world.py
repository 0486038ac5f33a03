"""Stop-the-world and the suspension of one goroutine, as a collector uses them.

Both ask goroutines to stop, and wait until they have, on the caller's own thread and with its P.
So both take as long as the slowest goroutine, and for ever if one cannot be stopped. Callers
take turns with a mutex (``stopping.py``), as Go's do with worldsema.

When the world is stopped, the caller keeps its P running, and every other P ends up in
``P_GCSTOP``. Idle Ps and Ps in system calls are taken at once. An M gives up its own P when it
next looks for work (``gcstopm``), enters a system call or is stopped by a signal. A P that is
being handed on is given up in ``handoffp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime import runq
from reference_runtime.gmp import (
    G_DEAD,
    G_PREEMPTED,
    G_RUNNABLE,
    G_RUNNING,
    G_SYSCALL,
    NO_P,
    P_GCSTOP,
    P_IDLE,
    STACK_PREEMPT,
)
from reference_runtime.preempt import preemptall, preemptone, withdraw
from reference_runtime.processors import gcstop, in_syscall, releasep, retake, startm, wakep
from reference_runtime.stopped import wait_for_stop
from reference_runtime.stops import stops_seen
from reference_runtime.transitions import (
    BY_STW,
    BY_SUSPEND,
    NO_TID,
    STW_END,
    STW_START,
    STW_STOPPED,
    transition,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M, P, Sched


def stop_the_world(sched: Sched, m: M, reason: i64) -> None:
    """Return when no goroutine runs but the caller's (Go: stopTheWorldWithSema).

    Waits on M's thread for as long as it takes, or until the run is over.

    Args:
        m: the caller's M.
        reason: index in ``RUNTIME_REASONS``.
    """
    host = sched.host
    begin_ns = host.nanotime()
    transition(STW_START, m, m.p, m.curg, reason, NO_TID)
    own = m.p
    own.lock.acquire()
    # Under the lock under which others look at it, so that none is half way to a request.
    m.holds_world = True
    own.lock.release()
    # Somebody may have asked it before.
    withdraw(sched, m, m.curg)
    sched.lock.acquire()
    sched.gcwaiting = True
    sched.stopwait = len(sched.allp) - 1
    p = runq.pidleget(sched)
    while p is not NO_P:
        p.status = P_GCSTOP
        sched.stopwait -= 1
        p = runq.pidleget(sched)
    sched.lock.release()
    while True:
        seen = stops_seen(sched)
        for p in sched.allp:
            if in_syscall(sched, p):
                retake(sched, m, p, reason)
        if not sched.stopwait or sched.stopping:
            break
        preemptall(sched, m, reason)
        wait_for_stop(sched, m, seen)
    sched.record.stop_ns.append(host.nanotime() - begin_ns)
    transition(STW_STOPPED, m, m.p, m.curg, reason, NO_TID)


def start_the_world(sched: Sched, m: M, reason: i64) -> None:
    """Let the others run again (Go: startTheWorldWithSema)."""
    transition(STW_END, m, m.p, m.curg, reason, NO_TID)
    sched.lock.acquire()
    sched.gcwaiting = False
    m.holds_world = False
    busy: P | None = None
    for p in sched.allp:
        if p.status == P_GCSTOP:
            p.status = P_IDLE
            if p.runqhead != p.runqtail:
                # Linked, since a list would be made under the lock.
                p.link = busy
                busy = p
            else:
                runq.pidleput(sched, p)
    sched.lock.release()
    while busy is not None:
        p = busy
        busy = p.link
        p.link = None
        startm(sched, m, p, False)
    # In any case: the caller may have readied somebody on its own P meanwhile.
    wakep(sched, m)


def gcstopm(sched: Sched, m: M) -> None:
    """M, which has a P and no goroutine, gives it up to whoever stops the world."""
    sched.lock.acquire()
    if not sched.gcwaiting:
        sched.lock.release()
        return
    if m.spinning:
        m.spinning = False
        sched.nmspinning -= 1
    p = m.p
    releasep(m, p)
    gcstop(sched, p)
    sched.lock.release()


def entersyscall_asked(sched: Sched, m: M) -> None:
    """M, whose goroutine was asked to stop, has entered a system call: no signal is needed.

    If the world waits for its P, it gives it up now (Go: entersyscall_gcwait).
    """
    if sched.stopper is not None:
        sched.stopper.withdraw(m.slot)
    if sched.gcwaiting and m.p is not NO_P:
        retake(sched, m, m.p, BY_STW)


def suspend(sched: Sched, m: M, g: G) -> bool:
    """Return when G stands still, until :func:`resume` (Go: suspendG); False if it is dead.

    A goroutine that does not run stays where it is, and is held when it is to run again. One
    that runs is asked to stop, again and again. Waits on M's thread.
    """
    begin_ns = sched.host.nanotime()
    still = False
    while not sched.stopping:
        seen = stops_seen(sched)
        sched.lock.acquire()
        g.suspended = True
        g.special = True
        if sched.parallel:
            # Poisoned before the look: one that comes out of a call now either is seen to run, or
            # sees the poison.
            if g.status == G_SYSCALL:
                g.stackguard = STACK_PREEMPT
            see_all_running(sched)
        status = g.status
        if status == G_SYSCALL:
            g.stackguard = STACK_PREEMPT
        sched.lock.release()
        if status == G_DEAD:
            break
        if status != G_RUNNING:
            still = True
            break
        for p in sched.allp:
            holder = p.m
            if holder is not None and holder.curg is g:
                preemptone(sched, m, p, BY_SUSPEND)
        wait_for_stop(sched, m, seen)
    sched.record.suspend_ns.append(sched.host.nanotime() - begin_ns)
    return still


def see_all_running(sched: Sched) -> None:
    """Meet each P's holder: what he wrote under P's lock before is seen, and he sees what we did.

    For a look at a goroutine that any M may be about to run, where Ms run in parallel. The lock of
    ``sched`` is held.
    """
    for p in sched.allp:
        p.lock.acquire()
        p.lock.release()


def resume(sched: Sched, m: M, g: G) -> None:
    """Let a suspended goroutine run again (Go: resumeG)."""
    sched.lock.acquire()
    g.suspended = False
    g.special = g.bound is not None
    held = g.status == G_PREEMPTED
    if held:
        g.status = G_RUNNABLE
        runq.globrunqput(sched, g)
    sched.lock.release()
    if held:
        wakep(sched, m)
