"""Preemption: a goroutine is asked to stop, and stops or refuses.

Each request poisons the goroutine's stack guard, which it looks at where it enters a function of
the runtime (``goroutines.checkpoint``). That is all there is in Go up to 1.13: a loop that calls
nothing goes on. As from Go 1.14, a signal is sent to the goroutine's thread besides. If it meets
the thread at a safe point, the thread stops there, in the signal's handler, and cannot run
anything else: so it is not the thread itself that gives its P away but whoever learns of the stop
first, the monitor or the one that asked (``take_stopped``). The goroutine goes to the global
queue like any other that was preempted. It is *bound* to the stopped thread: an M that finds it
gives that thread its P, lets it go on and parks (Go: startlockedm).

Rejected
--------
- *Switching stacks* (swapcontext, siglongjmp) so that the thread itself runs the scheduler, as
  Go's asyncPreempt does. Below a kernel's frame lie CPython's own frames, and the interpreter
  keeps its thread state, recursion depth and exception stack for each thread: a second
  interpreter loop on another stack of the same thread works only as far as greenlet takes it,
  which cannot switch without the GIL, and a signal's handler cannot get the GIL.
- *Raising an exception in the goroutine* (``PyThreadState_SetAsyncExc``): it is cooperative, at
  the interpreter's own checks, and loses the work done so far.
- *A handler that only sets a flag for the kernel to look at*: that is a check in the loop, and
  the subject here is a loop without one.
- *Waiting for each signal's outcome* where it was sent: a thread that waits for a CPU would hold
  the monitor up. So the answer comes whenever it comes, and the monitor's sleep ends with it.
"""

from __future__ import annotations

import signal
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
    P_SYSCALL,
    STACK_PREEMPT,
    G,
    M,
    P,
)
from reference_runtime.host import Host, Stopper
from reference_runtime.policies.base import FORCE_PREEMPT_NS, RetakePolicy
from reference_runtime.processors import Processors
from reference_runtime.record import Record
from reference_runtime.transitions import (
    BY_CHECK,
    BY_LOCKED,
    BY_SIGNAL,
    BY_TIME_SLICE,
    HANDOFF,
    NO_TID,
    PREEMPT_REQUEST,
    PREEMPTED,
    STARTM,
    transition,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

PREEMPT_OFF: Final = 0
"""Nobody is asked to stop."""
PREEMPT_COOPERATIVE: Final = 1
"""Goroutines stop where they look (Go up to 1.13, or GODEBUG=asyncpreemptoff=1)."""
PREEMPT_ASYNC: Final = 2
"""Where a signal meets them, too (Go from 1.14)."""

SIGURG: Final = int(signal.SIGURG)
"""Go's choice: programs that know it expect it for no reason, and debuggers let it pass."""
STOP_LOOK_NS: Final = 100_000
"""After so long whoever waits for a stop asks again (go1.21, stopTheWorldWithSema)."""


class Preemption(Processors):
    """Requests to stop, and what becomes of stopped goroutines.

    Args:
        host, policy, procs, queue_capacity, record: as :class:`Processors`.
        preempt: one of ``PREEMPT_OFF``, ``PREEMPT_COOPERATIVE``, ``PREEMPT_ASYNC``.
        time_slice_ns: how long a goroutine runs before the monitor asks it to stop.
    """

    def __init__(
        self,
        host: Host,
        policy: RetakePolicy,
        procs: int,
        queue_capacity: int,
        record: Record,
        preempt: i64 = PREEMPT_COOPERATIVE,
        time_slice_ns: i64 = FORCE_PREEMPT_NS,
    ) -> None:
        super().__init__(host, policy, procs, queue_capacity, record)
        self.preempt: i64 = preempt
        self.time_slice_ns: i64 = time_slice_ns
        self.stopper: Stopper | None = None
        self.world_sema: object = None
        """Held by whoever stops the world or a goroutine; see ``stopping.py``."""
        self.stops_looked_at: i64 = 0
        self.next_slices_ns: i64 = 0
        self.stop_note = host.new_note()
        """Where there is no stopper: whoever waits for a stop sleeps here."""

    # Requests.

    def preemptone(self, m: M, p: P, reason: i64) -> bool:
        """Ask the goroutine on P to stop (Go: preemptone); False if nobody was asked.

        Nobody is where P runs no goroutine, or was asked already and has not had the signal yet.

        Args:
            m: the caller's M; it does not ask itself.
            p: any P.
            reason: index in ``RUNTIME_REASONS``.
        """
        if self.preempt == PREEMPT_OFF:
            return False
        stopper = self.stopper
        now_ns = self.host.nanotime()
        p.lock.acquire()
        target = p.m
        if p.status != P_RUNNING or target is None or target is m or target.holds_world:
            p.lock.release()
            return False
        g = target.curg
        if g.status != G_RUNNING:
            p.lock.release()
            return False
        if stopper is None:
            again = target.asked
        else:
            again = not target.slot or not stopper.ask(target.slot, target.tid, p, g)
        if again:
            p.lock.release()
            return False
        self.poison(m, p, target, reason, now_ns)
        if stopper is not None:
            self.host.tgkill(target.tid, SIGURG)
        return True

    def preemptall(self, m: M, reason: i64) -> None:
        """Ask all goroutines but the caller's to stop (Go: preemptall)."""
        for p in self.allp:
            self.preemptone(m, p, reason)

    def preempt_long(self, m: M, now_ns: i64) -> None:
        """Ask those that have had their time slice (go1.21, runtime.retake)."""
        for p in self.allp:
            if p.status != P_RUNNING and p.status != P_SYSCALL:
                continue
            if p.seen_schedtick != p.schedtick:
                p.seen_schedtick = p.schedtick
                p.seen_sched_ns = now_ns
            elif now_ns >= p.seen_sched_ns + self.time_slice_ns and not self.preemptone(
                m, p, BY_TIME_SLICE
            ):
                self.ask_at_return(m, p)

    def ask_at_return(self, m: M, p: P) -> None:
        """Have the goroutine that is in a system call stop as it returns, if P is still its own.

        Go takes P from it in the call instead (sysretake). Policies that retake only from calls
        that block would let one that makes call after call keep P for ever.
        """
        if self.preempt == PREEMPT_OFF:
            return
        now_ns = self.host.nanotime()
        p.lock.acquire()
        target = p.m
        if p.status != P_SYSCALL or target is None or target.asked or target.holds_world:
            p.lock.release()
            return
        self.poison(m, p, target, BY_TIME_SLICE, now_ns)

    def poison(self, m: M, p: P, target: M, reason: i64, now_ns: i64) -> None:
        """Ask the goroutine that ``target`` has on P. P's lock is held, and let go here."""
        g = target.curg
        if not target.asked:
            target.asked_ns = now_ns
            target.asked = True
        g.stackguard = STACK_PREEMPT
        p.lock.release()
        self.record.preempt_requests += 1
        transition(PREEMPT_REQUEST, m, p, g, reason, target.tid)

    def withdraw(self, m: M, g: G) -> None:
        """G, which was asked to stop, has left M, or runs no more: on M's own thread."""
        m.asked = False
        g.stackguard = 0
        if self.stopper is not None:
            self.stopper.withdraw(m.slot)

    def monitor_sleep(self, m: M, ns: i64) -> None:
        """The monitor's sleep: broken by stopped threads, and by the end of time slices."""
        host = self.host
        if self.preempt == PREEMPT_OFF:
            host.usleep(ns)
            return
        stopper = self.stopper
        until_ns = host.nanotime() + ns
        left_ns = ns
        while left_ns > 0 and not self.stopping:
            nap_ns = min(left_ns, self.time_slice_ns)
            if stopper is None:
                host.usleep(nap_ns)
            else:
                seen = stopper.count()
                self.take_stopped(m)
                stopper.wait(seen, nap_ns)
                self.take_stopped(m)
            now_ns = host.nanotime()
            self.preempt_long(m, now_ns)
            left_ns = until_ns - now_ns

    def next_look_ns(self, ns: i64) -> i64:
        """How long a monitor may wait that would wait for ``ns``, and not in `monitor_sleep`."""
        return ns if self.preempt == PREEMPT_OFF else min(ns, self.time_slice_ns)

    def look_at_slices(self, m: M) -> None:
        """What such a monitor does when its wait is over, at little cost if there is nothing."""
        if self.preempt == PREEMPT_OFF:
            return
        stopper = self.stopper
        if stopper is not None:
            seen = stopper.count()
            if seen != self.stops_looked_at:
                self.stops_looked_at = seen
                self.take_stopped(m)
        now_ns = self.host.nanotime()
        if now_ns >= self.next_slices_ns:
            self.next_slices_ns = now_ns + self.time_slice_ns
            self.preempt_long(m, now_ns)

    # Stops.

    def preempted(self, g: G) -> None:
        """G stopped at a check of its own and has left its M."""
        self.lock.acquire()
        if g.suspended:
            g.status = G_PREEMPTED
            self.lock.release()
            self.tell_stop()
            return
        g.status = G_RUNNABLE
        runq.globrunqput(self.sched, g)
        self.lock.release()

    def take_stopped(self, m: M) -> None:
        """Take the Ps of threads that a signal stopped, and hand them on."""
        stopper = self.stopper
        if stopper is None:
            return
        for p in self.allp:
            loser = p.m
            if loser is not None and loser.slot and stopper.stopped(loser.slot):
                self.take_from_stopped(m, p, stopper)

    def take_from_stopped(self, m: M, p: P, stopper: Stopper) -> None:
        """Take P from its M, whose thread stands in the signal's handler."""
        p.lock.acquire()
        loser = p.m
        if (
            self.stopping
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
        self.record.preempt_ns.append(self.host.nanotime() - asked_ns)
        self.lock.acquire()
        suspended = g.suspended
        alone = (
            not suspended
            and not self.gcwaiting
            and p.runqhead == p.runqtail
            and not self.work_for_others()
        )
        if suspended:
            g.status = G_PREEMPTED
        elif not alone:
            g.status = G_RUNNABLE
            runq.globrunqput(self.sched, g)
        self.lock.release()
        if alone:
            # Nobody else wants to run: Go's scheduler would find the same goroutine again.
            self.give_to_bound(loser, p, g, stopper)
            return
        if suspended:
            self.tell_stop()
        self.handoffp(m, p, g, BY_SIGNAL)

    def run_special(self, m: M, g: G) -> bool:
        """G was found runnable and is suspended, or bound to a stopped M; False if neither."""
        self.lock.acquire()
        if g.suspended:
            g.status = G_PREEMPTED
            self.lock.release()
            self.tell_stop()
            return True
        self.lock.release()
        bound = g.bound
        stopper = self.stopper
        if bound is None or stopper is None:
            return False
        p = m.p
        self.releasep(m, p)
        if p.lost_enter_ns:
            self.record.retake_ns.append(self.host.nanotime() - p.lost_enter_ns)
            p.lost_enter_ns = 0
        self.record.wakeups += 1
        transition(HANDOFF, m, p, g, BY_LOCKED, NO_TID)
        transition(STARTM, m, p, NO_G, BY_LOCKED, bound.tid)
        self.give_to_bound(bound, p, g, stopper)
        return True

    def give_to_bound(self, m: M, p: P, g: G, stopper: Stopper) -> None:
        """Let a stopped M go on with its goroutine, on P, which is in the caller's hands."""
        p.lock.acquire()
        if self.stopping:
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

    def release_stopped(self) -> None:
        """The run is over: let stopped threads go on, without a P, to their end."""
        stopper = self.stopper
        if stopper is None:
            return
        for m in self.allm:
            if m.slot and stopper.stopped(m.slot):
                stopper.resume(m.slot, NO_P, NO_G)

    def stopped_by_check(self, m: M) -> None:
        """M's goroutine found its stack guard poisoned, and is about to stop."""
        self.record.preempted_cooperative += 1
        if m.asked:
            self.record.preempt_ns.append(self.host.nanotime() - m.asked_ns)
        m.curg.stackguard = 0
        transition(PREEMPTED, m, m.p, m.curg, BY_CHECK, NO_TID)

    # Life of a run, and of an M.

    def begin_preemption(self) -> None:
        """Before the first M."""
        if self.preempt == PREEMPT_ASYNC:
            self.stopper = self.host.new_stopper()

    def end_preemption(self) -> None:
        """After the last M has left; one that is stuck in a call never has a signal again."""
        if self.stopper is not None:
            refused = self.record.refused
            counts = self.stopper.end()
            self.record.preempted_async = counts[0]
            for reason, count in zip(refused, counts[1:], strict=True):
                refused[reason] = count
            self.stopper = None

    def m_begins(self, m: M) -> None:
        """On M's thread: signals that come from now on are for M."""
        if self.stopper is not None:
            m.slot = self.stopper.thread_begins(m)
            self.stopper.runs_goroutines(m.slot, True)

    def m_ends(self, m: M) -> None:
        """On M's thread."""
        if m.slot and self.stopper is not None:
            m.slot = 0
            self.stopper.thread_ends()

    def stopper_runs(self, m: M, yes: bool) -> None:
        """Whether M is about to run goroutines, or to park."""
        if self.stopper is not None:
            self.stopper.runs_goroutines(m.slot, yes)

    # Those that wait for a stop.

    def tell_stop(self) -> None:
        """Something stands still that did not before: whoever waits for it may look."""
        if self.stopper is None:
            self.stop_note.wakeup()
        else:
            self.stopper.announce()

    def wait_for_stop(self, m: M, seen: i64) -> None:
        """Wait, on M's thread, until something was told since ``seen``, or it is time to ask."""
        if self.stopper is None:
            self.stop_note.sleep_for(STOP_LOOK_NS)
        else:
            self.stopper.wait(seen, STOP_LOOK_NS)
            self.take_stopped(m)

    def stops_seen(self) -> i64:
        """How many stops there were, for :meth:`wait_for_stop`."""
        return 0 if self.stopper is None else self.stopper.count()


__all__ = ["PREEMPT_ASYNC", "PREEMPT_COOPERATIVE", "PREEMPT_OFF", "Preemption"]
