"""Who has which P: Ms are parked and woken, Ps are given, taken back and handed on.

The concepts, and the rules about locks, stand at the head of ``scheduler.py``, whose base this is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING

from reference_runtime import runq
from reference_runtime.deadlock import Deadlock, describe
from reference_runtime.gmp import (
    NO_G,
    NO_P,
    P_GCSTOP,
    P_IDLE,
    P_RUNNING,
    P_SYSCALL,
    G,
    M,
    P,
    Sched,
)
from reference_runtime.host import FOR_EVER, Host
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.record import Record, Retake
from reference_runtime.timers import Timers
from reference_runtime.transitions import (
    ACQUIREP,
    HANDOFF,
    NO_REASON,
    NO_TID,
    PIDLE,
    RETAKE,
    STARTM,
    STOPM,
    transition,
)
from tracer.trace.words import RUNTIME_REASONS

if TYPE_CHECKING:
    from mypy_extensions import i64

Goroutine = Coroutine[object, object, object] | Generator[object, object, object]


class Processors:
    """One run of one program.

    Args:
        host: the machine.
        policy: how Ps come back from system calls.
        procs: number of Ps (GOMAXPROCS).
        queue_capacity: of each P's local queue, at least 2.
        record: where the run's own counters and retakes go.
    """

    def __init__(
        self, host: Host, policy: RetakePolicy, procs: int, queue_capacity: int, record: Record
    ) -> None:
        self.host = host
        self.policy = policy
        self.record = record
        self.sched = Sched()
        self.lock = host.new_lock()
        self.wait_lock = host.new_lock()
        """Guards what goroutines wait on: channels, mutexes, wait groups."""
        self.allp = [P(i, queue_capacity, host.new_lock()) for i in range(procs)]
        self.allm: list[M] = []
        self.timers = Timers(host.new_lock())
        self.main: G = NO_G
        self.stopping: bool = False
        self.failure: BaseException | None = None
        self.finished = host.new_note()
        self.poller: M | None = None
        self.poll_until_ns: i64 = FOR_EVER
        self.netpoll_waiters: i64 = 0
        self.last_netpoll_ns: i64 = 0
        self.monitor_waits: bool = False
        self.monitor_note = host.new_note()
        self.monitor: M | None = None
        self.gcwaiting: bool = False
        """The world is stopped, or somebody waits for it to stop."""
        self.stopwait: i64 = 0
        """Ps that whoever stops the world still waits for."""

    def stop(self, failure: BaseException | None) -> None:
        """End the run: every M leaves when it next comes by. The first failure is kept."""
        self.lock.acquire()
        if not self.stopping:
            self.stopping = True
            self.failure = failure
        self.lock.release()
        for m in self.allm:
            m.note.wakeup()
        self.monitor_note.wakeup()
        self.policy.stopping()
        self.host.netpoll_break()
        self.finished.wakeup()

    # Ms and Ps find each other.

    def acquirep(self, m: M, p: P) -> None:
        """M takes P, which was given to it."""
        m.nextp = NO_P
        p.lock.acquire()
        p.status = P_RUNNING
        p.m = m
        m.p = p
        p.changed_hands = True
        p.lock.release()
        transition(ACQUIREP, m, p, NO_G, NO_REASON, NO_TID)
        if self.monitor_waits:
            self.monitor_waits = False
            self.monitor_note.wakeup()

    def releasep(self, m: M, p: P) -> None:
        """M has P no more."""
        p.lock.acquire()
        p.status = P_IDLE
        p.m = None
        m.p = NO_P
        p.lock.release()

    def take_idle_p(self, m: M) -> bool:
        """Give M a P from the idle list, if there is one."""
        self.lock.acquire()
        p = runq.pidleget(self.sched)
        self.lock.release()
        if p is NO_P:
            return False
        self.acquirep(m, p)
        return True

    def stopm(self, m: M) -> bool:
        """Park M until it is given a P, or called without; False when the run is over."""
        sched = self.sched
        self.lock.acquire()
        if self.stopping:
            self.lock.release()
            return False
        m.schedlink = sched.midle
        sched.midle = m
        sched.nmidle += 1
        asleep = sched.nmidle == sched.mcount and self.poller is None
        self.lock.release()
        transition(STOPM, m, NO_P, NO_G, NO_REASON, NO_TID)
        if asleep:
            self.check_dead()
        if m.slot:
            self.stopper_runs(m, False)
        m.note.sleep()
        if self.stopping:
            return False
        if m.slot:
            self.stopper_runs(m, True)
        if m.nextp is not NO_P:
            self.acquirep(m, m.nextp)
        return True

    def check_dead(self) -> None:
        """All Ms were parked a moment ago: will any goroutine ever run again?

        A P that is not idle is in somebody's hands, who will give it to an M.
        """
        sched = self.sched
        self.lock.acquire()
        asleep = sched.nmidle == sched.mcount and sched.npidle == len(self.allp)
        self.lock.release()
        if not asleep or self.timers.count or self.netpoll_waiters or self.poller is not None:
            return
        if self.queues_hold_work():
            self.stop(RuntimeError("lost wake-up: a goroutine is runnable and every M is parked"))
        else:
            self.stop(Deadlock([describe(g) for g in runq.all_gs(sched)]))

    def wakep(self, m: M) -> None:
        """There is new work: have one more M look for it, if a P is free and no M looks."""
        sched = self.sched
        if sched.npidle == 0 or sched.nmspinning != 0:
            return
        self.lock.acquire()
        if sched.nmspinning != 0:
            self.lock.release()
            return
        sched.nmspinning += 1
        self.lock.release()
        self.startm(m, NO_P, True)

    def startm(self, m: M, p: P, spinning: bool) -> None:
        """Have some M run P, or any idle P; a new M if none is parked (Go: startm).

        A caller that passes ``spinning`` has counted the new M in ``nmspinning`` already.
        """
        sched = self.sched
        self.lock.acquire()
        if p is NO_P:
            p = runq.pidleget(sched)
            if p is NO_P:
                if spinning:
                    sched.nmspinning -= 1
                self.lock.release()
                return
        parked = sched.midle
        if parked is not None:
            sched.midle = parked.schedlink
            parked.schedlink = None
            sched.nmidle -= 1
        self.lock.release()
        if parked is None:
            started = self.new_m()
            started.spinning = spinning
            transition(STARTM, m, p, NO_G, NO_REASON, NO_TID)
            self.start_m(started, p)
        else:
            parked.spinning = spinning
            parked.nextp = p
            self.record.wakeups += 1
            transition(STARTM, m, p, NO_G, NO_REASON, parked.tid)
            parked.note.wakeup()

    def call_m(self) -> None:
        """Have an M come by without a P, a new one if none is parked: to look after others."""
        sched = self.sched
        self.lock.acquire()
        parked = sched.midle
        if parked is not None:
            sched.midle = parked.schedlink
            parked.schedlink = None
            sched.nmidle -= 1
        self.lock.release()
        if parked is None:
            self.start_m(self.new_m(), NO_P)
        else:
            self.record.wakeups += 1
            parked.note.wakeup()

    def new_m(self) -> M:
        """An M, without its thread."""
        self.lock.acquire()
        id = self.sched.mcount
        self.sched.mcount += 1
        self.lock.release()
        m = M(id, self, self.sched, self.host.new_note(), self.host.new_note())
        self.allm.append(m)
        return m

    def start_m(self, m: M, p: P) -> None:
        """Give a new M its thread and its first P."""
        m.nextp = p
        self.record.threads += 1
        body: Callable[[], None] = partial(self.m_main, m)
        self.host.start_thread(body, f"M{m.id}")

    def m_main(self, m: M) -> None:
        """The body of an M's thread."""
        raise NotImplementedError

    def queues_hold_work(self) -> bool:
        """Whether any run queue has a goroutine."""
        if self.sched.runqsize:
            return True
        for p in self.allp:  # noqa: SIM110  a generator costs more than the sweep
            if p.runqhead != p.runqtail:
                return True
        return False

    # A P leaves a thread that is in a system call.

    def retake(self, m: M, p: P, reason: i64) -> bool:
        """Take P from an M in a system call and hand it on; False if the M was back first.

        Args:
            m: the caller's M.
            p: any P.
            reason: index in ``RUNTIME_REASONS``: who retakes.
        """
        if not self.take_from_syscall(m, p, reason):
            return False
        self.handoffp(m, p, NO_G, reason)
        return True

    def take_from_syscall(self, m: M, p: P, reason: i64) -> bool:
        """The first half of :meth:`retake`: P is idle, off its M, and in the caller's hands."""
        p.lock.acquire()
        loser = p.m
        if p.status != P_SYSCALL or loser is None:
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
        self.record.retakes.append(
            Retake(
                self.host.nanotime(),
                enter_ns,
                p.id,
                loser.tid,
                g.goid,
                RUNTIME_REASONS[reason],
                m.tid,
            )
        )
        transition(RETAKE, m, p, g, reason, loser.tid)
        return True

    def handoffp(self, m: M, p: P, g: G, reason: i64) -> None:
        """P is in the caller's hands: give it to an M if it has anything to do, else idle it.

        Args:
            m: the caller's M.
            p: idle, on no list.
            g: the goroutine for whose call it is, or ``NO_G``.
            reason: index in ``RUNTIME_REASONS``.
        """
        transition(HANDOFF, m, p, g, reason, NO_TID)
        self.lock.acquire()
        if self.gcwaiting:
            p.lost_enter_ns = 0
            self.gcstop(p)
            self.lock.release()
            return
        found = p.runqhead != p.runqtail or self.work_for_others()
        if not found:
            runq.pidleput(self.sched, p)
            p.lost_enter_ns = 0
        self.lock.release()
        if found:
            self.startm(m, p, False)
        else:
            transition(PIDLE, m, p, NO_G, reason, NO_TID)

    def gcstop(self, p: P) -> None:
        """P, which is in the caller's hands, is whose who stops the world; under the lock."""
        p.status = P_GCSTOP
        self.stopwait -= 1
        if self.stopwait == 0:
            self.tell_stop()

    def tell_stop(self) -> None:
        """Somebody may wait for what now stands still."""
        raise NotImplementedError

    def stopper_runs(self, m: M, yes: bool) -> None:
        """Whether M is about to run goroutines, or to park; for the signal's handler."""
        raise NotImplementedError

    def work_for_others(self) -> bool:
        """Whether an M that got P would find something, or has to wait for timers and network."""
        if self.queues_hold_work() and self.sched.nmspinning == 0:
            return True
        if self.sched.runqsize:
            return True
        return bool(self.poller is None and (self.timers.count or self.netpoll_waiters))
