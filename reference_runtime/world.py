"""Stop-the-world and the suspension of one goroutine, as a collector uses them.

Both ask goroutines to stop and wait, on the caller's own thread and with its P, until they have:
so both take as long as the slowest of those that were asked, and for ever where one of them
cannot be stopped. Their callers take turns by a mutex (``stopping.py``), as Go's do by worldsema.

Stopping the world, the caller keeps its P running; every other P ends up in ``P_GCSTOP``. Idle
ones and those in system calls are taken at once. An M gives up its own when it next looks for
work (``gcstopm``), enters a system call, or is stopped by a signal, and whoever holds one in his
hands does (``handoffp``).
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
    P_SYSCALL,
    STACK_PREEMPT,
    G,
    M,
)
from reference_runtime.preempt import Preemption
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


class World(Preemption):
    """What stops all goroutines, or one; arguments are those of :class:`Preemption`."""

    def stop_the_world(self, m: M, reason: i64) -> None:
        """Return when no goroutine runs but the caller's (Go: stopTheWorldWithSema).

        Waits on M's thread for as long as it takes, or until the run is over.

        Args:
            m: the caller's M.
            reason: index in ``RUNTIME_REASONS``.
        """
        host = self.host
        begin_ns = host.nanotime()
        transition(STW_START, m, m.p, m.curg, reason, NO_TID)
        m.holds_world = True
        # Somebody may have asked it before.
        self.withdraw(m, m.curg)
        self.lock.acquire()
        self.gcwaiting = True
        self.stopwait = len(self.allp) - 1
        p = runq.pidleget(self.sched)
        while p is not NO_P:
            p.status = P_GCSTOP
            self.stopwait -= 1
            p = runq.pidleget(self.sched)
        self.lock.release()
        while True:
            seen = self.stops_seen()
            for p in self.allp:
                if p.status == P_SYSCALL:
                    self.retake(m, p, reason)
            if not self.stopwait or self.stopping:
                break
            self.preemptall(m, reason)
            self.wait_for_stop(m, seen)
        self.record.stop_ns.append(host.nanotime() - begin_ns)
        transition(STW_STOPPED, m, m.p, m.curg, reason, NO_TID)

    def start_the_world(self, m: M, reason: i64) -> None:
        """Let the others run again (Go: startTheWorldWithSema)."""
        transition(STW_END, m, m.p, m.curg, reason, NO_TID)
        self.lock.acquire()
        self.gcwaiting = False
        m.holds_world = False
        busy = []
        for p in self.allp:
            if p.status == P_GCSTOP:
                p.status = P_IDLE
                if p.runqhead != p.runqtail:
                    busy.append(p)
                else:
                    runq.pidleput(self.sched, p)
        self.lock.release()
        for p in busy:
            self.startm(m, p, False)
        # In any case: the caller may have readied somebody on its own P meanwhile.
        self.wakep(m)

    def gcstopm(self, m: M) -> None:
        """M, which has a P and no goroutine, gives it up to whoever stops the world."""
        self.lock.acquire()
        if not self.gcwaiting:
            self.lock.release()
            return
        if m.spinning:
            m.spinning = False
            self.sched.nmspinning -= 1
        p = m.p
        self.releasep(m, p)
        self.gcstop(p)
        self.lock.release()

    def entersyscall_asked(self, m: M) -> None:
        """M, whose goroutine was asked to stop, has entered a system call: no signal is needed.

        If the world waits for its P, it gives it up now (Go: entersyscall_gcwait).
        """
        if self.stopper is not None:
            self.stopper.withdraw(m.slot)
        if self.gcwaiting and m.p is not NO_P:
            self.retake(m, m.p, BY_STW)

    def suspend(self, m: M, g: G) -> bool:
        """Return when G stands still, until :meth:`resume` (Go: suspendG); False if it is dead.

        A goroutine that does not run stays where it is, and is held when it is to run again. One
        that runs is asked to stop, again and again. Waits on M's thread.
        """
        begin_ns = self.host.nanotime()
        still = False
        while not self.stopping:
            seen = self.stops_seen()
            self.lock.acquire()
            g.suspended = True
            g.special = True
            status = g.status
            if status == G_SYSCALL:
                g.stackguard = STACK_PREEMPT
            self.lock.release()
            if status == G_DEAD:
                break
            if status != G_RUNNING:
                still = True
                break
            for p in self.allp:
                holder = p.m
                if holder is not None and holder.curg is g:
                    self.preemptone(m, p, BY_SUSPEND)
            self.wait_for_stop(m, seen)
        self.record.suspend_ns.append(self.host.nanotime() - begin_ns)
        return still

    def resume(self, m: M, g: G) -> None:
        """Let a suspended goroutine run again (Go: resumeG)."""
        self.lock.acquire()
        g.suspended = False
        g.special = g.bound is not None
        held = g.status == G_PREEMPTED
        if held:
            g.status = G_RUNNABLE
            runq.globrunqput(self.sched, g)
        self.lock.release()
        if held:
            self.wakep(m)
