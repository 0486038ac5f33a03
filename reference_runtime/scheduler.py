"""The scheduler: who runs what, on which thread, and how a P finds its next owner.

Concepts
--------
- A **G** is a goroutine, a coroutine that any thread may resume. An **M** is a thread of the
  host. A **P** is the right to run goroutines; there are ``procs`` of them. An M needs a P to
  run a G, but not to wait in a system call.
- A runnable G is on exactly one queue: the local one of a P, or the global one. The states of
  G and P, with who owns the object in each and who may change it, stand in ``gmp.py``.
- An M without work is parked on its note, in the list ``midle``, unless it is one of two: it
  *spins* (it holds a P and looks through the queues of others, one sweep, then it parks), or it
  is the *poller* (no P; it waits for the first timer or descriptor).
- Somebody who makes work wakes an M only if a P is idle and no M spins (``wakep``). An M that
  stops spinning looks through all queues once more after it has said so. These two together
  lose no wake-up, as in Go.
- A P in a system call is its M's until somebody retakes it: the fast way back needs no queue
  and no other thread. Who retakes is the policy's matter (``policies/``).

Locks, and how free of races this is
------------------------------------
Every field that several Ms change is changed under a lock, and no host call that may switch
threads is made under one. Interpreted, these are real locks. Compiled on a Python with a GIL
they do nothing, since a compiled function keeps the GIL from one blocking call to the next:
critical sections here contain no such call. Nor do they make an object or drop the last
reference to one that is not ours: a collection or a finaliser might run there, and release the
GIL. (To set an attribute drops what it held *before* the new value stands there, in mypyc: what
several threads set must never be the last reference to something that closes a file.) What does
*not* hold: anything read before a call of the host is stale after it. On a Python without a GIL
the real locks are used, compiled or not.

A G that parks is not locked against its waker: the waker may come while the G is still leaving
its M, and then leaves a token that the M finds (``after_switch``).

Rejected
--------
- *A runnext slot.* Go has one so that a pair that talks over a channel stays together. Here
  the tracer reads a queue's length as two numbers from BPF, and work in a third place would look
  like no work. A pair in a short queue switches as fast.
- *Spinning for a while.* Go's spinning Ms sweep four times and may sleep in between. A compiled
  spin holds the GIL, so it would keep from running just those who could make work. For the same
  reason Go's limit on the number of spinning Ms is not here: one that gave up without a sweep,
  because another spins, could find the same queue full again and again, and never let go.
- *An M to look for work at each handoff* when no other M spins or is idle (Go's handoffp). Go
  cannot see all queues at once, here it costs a glance, so an M is woken only where there is
  something to find.
- *Readying a parked G under the lock of what it waits for* (Go's park with unlock function): the
  lock would be held over the switch, through frames of user code.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from reference_runtime import runq
from reference_runtime.current import set_current
from reference_runtime.gmp import (
    G_DEAD,
    G_RUNNABLE,
    G_RUNNING,
    G_SYSCALL,
    G_WAITING,
    NO_G,
    NO_P,
    PARK,
    PREEMPTED,
    YIELD,
    G,
    M,
    P,
)
from reference_runtime.host import FOR_EVER
from reference_runtime.monitor import monitor_main
from reference_runtime.preempt import PREEMPT_OFF
from reference_runtime.record import Run
from reference_runtime.transitions import (
    BY_PANIC,
    EXIT_SLOW,
    NO_REASON,
    NO_TID,
    PIDLE,
    RUN,
    mstart,
    transition,
)
from reference_runtime.world import World

if TYPE_CHECKING:
    from mypy_extensions import i64

Goroutine = Coroutine[object, object, object] | Generator[object, object, object]

GLOBAL_TURN: Final = 61
"""Every so many turns a P looks at the global queue first (Go: schedtick % 61)."""
MONITOR_ID: Final = -2
"""The monitor's M is in no list and never has a P."""
BREATH: Final = 256
"""Every so many turns an M lets the process's other threads at what they share."""
RELEASE_NS: Final = 10_000_000
"""It looks again so often whether a signal has stopped one."""
EXIT_WAIT_NS: Final = 1_000_000_000
"""How long the end of a run waits for an M that is in the middle of a goroutine."""


class Scheduler(World):
    """One run of one program; its arguments are those of :class:`Preemption`."""

    # Life of a run.

    def start(self, main: Goroutine, name: str) -> None:
        """Make the first goroutine and the first M. Its end is told by the note ``finished``."""
        self.begin_preemption()
        for p in self.allp[1:]:
            runq.pidleput(self.sched, p)
        self.main = self.new_g(main, name)
        first = self.allp[0]
        runq.runqput(self, first, self.main)
        self.start_m(self.new_m(), first)
        if self.policy.has_monitor:
            self.monitor = M(MONITOR_ID, self, self.sched, self.monitor_note, self.host.new_note())
            self.host.start_thread(partial(monitor_main, self, self.monitor), "monitor")

    def join(self) -> None:
        """Wait for the Ms to leave, then close what is left of the goroutines.

        An M whose goroutine is in a system call is left to itself: it may never return. When it
        does, it sees that the run is over.
        """
        self.preempt = PREEMPT_OFF
        self.host.end_loops(True)
        self.tell_stop()
        for m in self.allm:
            left_ns: i64 = EXIT_WAIT_NS
            while left_ns > 0 and m.curg.status != G_SYSCALL:
                # A request that was under way may still stop one.
                self.release_stopped()
                if m.exited.sleep_for(RELEASE_NS):
                    break
                left_ns -= RELEASE_NS
        if self.monitor is not None:
            self.monitor.exited.sleep()
        self.end_preemption()
        g = self.sched.allg
        while g is not None:
            if g.status != G_SYSCALL and g.status != G_RUNNING:
                close_quietly(g)
            g = g.all_next

    # Goroutines.

    def new_g(self, coro: Goroutine, name: str) -> G:
        """A G for ``coro``, on no queue yet."""
        begin: Callable[[], object] | None = getattr(coro, "__await__", None)
        steps = cast("Iterator[object]", coro if begin is None else begin())
        sched = self.sched
        self.lock.acquire()
        sched.goidgen += 1
        goid = sched.goidgen
        self.lock.release()
        g = G(goid, coro, steps, name)
        self.lock.acquire()
        g.all_next = sched.allg
        if sched.allg is not None:
            sched.allg.all_prev = g
        sched.allg = g
        sched.ngoroutines += 1
        self.lock.release()
        return g

    def go(self, m: M, coro: Goroutine, name: str) -> G:
        """Make a goroutine runnable on M's P (Go: newproc)."""
        g = self.new_g(coro, name)
        runq.runqput(self, m.p, g)
        self.wakep(m)
        return g

    def ready(self, m: M, g: G) -> None:
        """A parked G, or one that is about to park, may run again (Go: goready).

        ``m`` is the caller's; without a P its wake-ups go to the global queue.
        """
        self.lock.acquire()
        if g.status != G_WAITING:
            g.token = True
            self.lock.release()
            return
        g.status = G_RUNNABLE
        self.lock.release()
        if m.p is NO_P:
            self.globrunqput(g)
        else:
            runq.runqput(self, m.p, g)
        self.wakep(m)

    def globrunqput(self, g: G) -> None:
        """Append to the global queue."""
        self.lock.acquire()
        runq.globrunqput(self.sched, g)
        self.lock.release()

    def goexit(self, g: G) -> None:
        """G has returned. What it holds is let go of here, while no lock is held.

        A queue may keep the G itself a little longer, and drops it in a critical section.
        """
        sched = self.sched
        g.coro = None
        g.steps = NO_G.steps
        self.lock.acquire()
        g.status = G_DEAD
        if g.all_prev is None:
            sched.allg = g.all_next
        else:
            g.all_prev.all_next = g.all_next
        if g.all_next is not None:
            g.all_next.all_prev = g.all_prev
        g.all_next = None
        g.all_prev = None
        sched.ngoroutines -= 1
        self.lock.release()
        if g is self.main:
            self.stop(None)

    # The loop of an M.

    def m_main(self, m: M) -> None:
        """The body of an M's thread."""
        set_current(m)
        m.tid = self.host.thread_id()
        mstart(m, m.tid)
        try:
            self.m_begins(m)
            self.policy.m_started(m)
            if m.nextp is not NO_P:
                self.acquirep(m, m.nextp)
            while True:
                g = self.findrunnable(m)
                if g is None:
                    break
                self.execute(m, g)
        except BaseException as failure:
            # A fault of the scheduler or of a policy: no goroutine's exception gets here.
            self.stop(failure)
        self.policy.m_stopped(m)
        self.m_ends(m)
        set_current(None)
        m.exited.wakeup()

    def execute(self, m: M, g: G) -> None:
        """Run G on M until it yields, and do what it wants then."""
        p = m.p
        g.status = G_RUNNING
        # After that, since whoever suspends G says so before he looks at its status.
        if g.special and self.run_special(m, g):
            return
        m.curg = g
        m.wants = YIELD
        p.schedtick += 1
        if p.changed_hands:
            self.first_run(m, p, g)
        try:
            for _ in g.steps:
                break
            else:
                m.curg = NO_G
                if m.asked:
                    self.withdraw(m, g)
                self.goexit(g)
                return
        except BaseException as failure:
            m.curg = NO_G
            if m.asked:
                self.withdraw(m, g)
            failure.add_note(f"goroutine {g.goid} [{g.name}]")
            # Before goexit, which ends the run without a failure if this is the main goroutine.
            self.stop(failure)
            self.preemptall(m, BY_PANIC)
            self.goexit(g)
            return
        if m.asked:
            self.withdraw(m, g)
        self.after_switch(m, g)

    def after_switch(self, m: M, g: G) -> None:
        """G has left M, for the reason in ``m.wants``."""
        m.curg = NO_G
        if m.wants == YIELD:
            # To the global queue, as Go does: in a local one, two goroutines that yield to each
            # other would keep those that come out of a system call waiting for 61 turns.
            g.status = G_RUNNABLE
            self.globrunqput(g)
        elif m.wants == PARK:
            self.lock.acquire()
            if not g.token:
                g.status = G_WAITING
                self.lock.release()
                return
            g.token = False
            g.status = G_RUNNABLE
            self.lock.release()
            runq.runqput(self, m.p, g)
        elif m.wants == PREEMPTED:
            self.preempted(g)
        else:
            self.exitsyscall0(m, g)

    def first_run(self, m: M, p: P, g: G) -> None:
        """The first goroutine runs on P since it changed hands."""
        p.changed_hands = False
        transition(RUN, m, p, g, NO_REASON, NO_TID)
        if p.lost_enter_ns:
            now_ns = self.host.nanotime()
            self.record.retake_ns.append(now_ns - p.lost_enter_ns)
            if p.was_retaken:
                self.record.runs.append(Run(p.id, p.lost_enter_ns, now_ns, m.tid, g.goid))
            p.lost_enter_ns = 0

    def findrunnable(self, m: M) -> G | None:
        """The next G for M, which is RUNNABLE and on no queue; None when the run is over.

        Parks M for as long as there is none. M may come back with another P.
        """
        while not self.stopping:
            if m.p is NO_P and not self.policy.before_park(self, m):
                if not self.stopm(m):
                    return None
                if m.p is NO_P:
                    continue
            if self.gcwaiting:
                self.gcstopm(m)
                continue
            p = m.p
            if self.timers.count:
                self.run_timers(m)
            if p.schedtick % BREATH == 0:
                self.host.let_others_run()
            g: G | None = None
            if p.schedtick % GLOBAL_TURN == 0 and self.sched.runqsize:
                g = self.globrunqget(p, 1)
            if g is None:
                g = runq.runqget(p)
            if g is None:
                g = self.find_elsewhere(m, p)
            if g is not None:
                if m.spinning:
                    self.stop_spinning(m)
                return g
        return None

    def find_elsewhere(self, m: M, p: P) -> G | None:
        """Nothing in the local queue: global queue, network, the other Ps; else M loses P."""
        sched = self.sched
        if sched.runqsize:
            g = self.globrunqget(p, 0)
            if g is not None:
                return g
        if self.netpoll_waiters and self.poller is None:
            self.netpoll(m, 0)
            g = runq.runqget(p)
            if g is not None:
                return g
        if not m.spinning:
            self.lock.acquire()
            m.spinning = True
            sched.nmspinning += 1
            self.lock.release()
        g = runq.steal(self, p)
        if g is not None:
            return g
        if not self.give_up_p(m, p):
            return None
        # From here M has no P. It said so before it looks again, so whoever made work in
        # between has either seen an idle P and no spinning M, or is seen now.
        if self.queues_hold_work() and self.take_idle_p(m):
            return None
        if (self.timers.count or self.netpoll_waiters) and self.poller is None:
            self.wait_as_poller(m)
        return None

    def give_up_p(self, m: M, p: P) -> bool:
        """Put P on the idle list, unless there is global work; whether it went there."""
        self.lock.acquire()
        if self.sched.runqsize or self.stopping or self.gcwaiting:
            self.lock.release()
            return False
        self.releasep(m, p)
        runq.pidleput(self.sched, p)
        if m.spinning:
            m.spinning = False
            self.sched.nmspinning -= 1
        self.lock.release()
        transition(PIDLE, m, p, NO_G, NO_REASON, NO_TID)
        return True

    def run_timers(self, m: M) -> None:
        """Ready the goroutines whose time has come."""
        now_ns = self.host.nanotime()
        g = self.timers.pop_due(now_ns)
        while g is not None:
            self.ready(m, g)
            g = self.timers.pop_due(now_ns)

    def netpoll(self, m: M, delay_ns: i64) -> None:
        """Ready the goroutines whose descriptors are."""
        waiters = self.host.netpoll(delay_ns)
        self.netpolled(m, waiters)

    def netpolled(self, m: M, waiters: list[object]) -> None:
        """Ready the goroutines that the network poller gave back."""
        self.last_netpoll_ns = self.host.nanotime()
        for waiter in waiters:
            self.ready(m, cast("G", waiter))
        # Only now: those that are on no queue yet would else be on nobody's account, and the last
        # M that parks would call them deadlocked.
        self.lock.acquire()
        self.netpoll_waiters -= len(waiters)
        self.lock.release()

    def wait_as_poller(self, m: M) -> None:
        """Wait, without a P, for the first timer or descriptor; then try to get a P."""
        self.lock.acquire()
        if self.poller is not None:
            self.lock.release()
            return
        self.poller = m
        self.poll_until_ns = FOR_EVER
        self.lock.release()
        # Only now: a timer that comes first from here on breaks the wait.
        until_ns = self.timers.next_ns()
        self.poll_until_ns = until_ns
        delay_ns: i64 = FOR_EVER
        if until_ns >= 0:
            delay_ns = max(until_ns - self.host.nanotime(), 0)
        waiters: list[object] = []
        if not self.stopping:
            waiters = self.host.netpoll(delay_ns)
        self.lock.acquire()
        self.poller = None
        self.lock.release()
        # First the P, so that those who are ready go on here and need no other thread.
        self.take_idle_p(m)
        self.netpolled(m, waiters)

    def new_timer(self, when_ns: i64, g: G) -> None:
        """Ready ``g`` at ``when_ns``."""
        if self.timers.add(when_ns, g):
            self.wake_poller(when_ns)

    def wake_poller(self, when_ns: i64) -> None:
        """The poller must be back by ``when_ns``."""
        if self.poller is not None and not 0 <= self.poll_until_ns <= when_ns:
            self.host.netpoll_break()

    def globrunqget(self, p: P, most: i64) -> G | None:
        """Take P's share of the global queue; ``most`` 0 for as many as is fair."""
        self.lock.acquire()
        g = runq.globrunqget(self.sched, p, len(self.allp), most)
        self.lock.release()
        return g

    def stop_spinning(self, m: M) -> None:
        """M found work. If it was the last to look, another takes its place."""
        self.lock.acquire()
        m.spinning = False
        self.sched.nmspinning -= 1
        self.lock.release()
        self.wakep(m)

    def exitsyscall0(self, m: M, g: G) -> None:
        """G came out of a system call without a P and has left M: queue it, or find M a P."""
        self.record.exit_slow += 1
        g.status = G_RUNNABLE
        transition(EXIT_SLOW, m, NO_P, g, NO_REASON, NO_TID)
        if self.stopping:
            return
        self.lock.acquire()
        p = runq.pidleget(self.sched)
        if p is NO_P:
            runq.globrunqput(self.sched, g)
            self.lock.release()
            return
        self.lock.release()
        self.acquirep(m, p)
        runq.runqput(self, p, g)


def close_quietly(g: G) -> None:
    """Let a goroutine that will not run again give back what it holds."""
    try:
        close = cast("Goroutine", g.coro).close
        close()
    except Exception:
        # Its program is over: neither an await in a finally clause nor an error is of use.
        return


__all__ = ["Goroutine", "Scheduler"]
