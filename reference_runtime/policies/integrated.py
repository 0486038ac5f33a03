"""``integrated``: no monitor thread; an M without work looks after the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from reference_runtime.gmp import NO_G, NO_P, P_SYSCALL
from reference_runtime.monitor import look_after_waiters
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.transitions import BY_INTEGRATED, HANDOFF, NO_TID, transition

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M
    from reference_runtime.scheduler import Scheduler


class IntegratedPolicy(RetakePolicy):
    """Who retakes a P runs it: no other thread has to wake up first.

    One M that found nothing to run does not park but *watches*, as the monitor would: same sleeps,
    same second sighting. While a P is in use somebody watches: a watcher that goes to run a P
    calls the next M to watch, which is a wake-up too, but not one that the P waits for.
    """

    name: ClassVar[str] = "integrated"

    def __init__(self) -> None:
        super().__init__()
        self.has_monitor = False
        self.watcher: M | None = None
        self.called: bool = False
        """An M was woken to watch, and is not there yet."""

    def start(self, scheduler: Scheduler) -> None:  # noqa: ARG002
        """Forget an earlier run."""
        self.watcher = None
        self.called = False

    def m_started(self, m: M) -> None:
        """The first M calls one to watch it."""
        if m.id == 0:
            self.call_watcher(cast("Scheduler", m.scheduler))

    def call_watcher(self, scheduler: Scheduler) -> None:
        """See to it that somebody watches."""
        scheduler.lock.acquire()
        wanted = self.watcher is None and not self.called
        if wanted:
            self.called = True
        scheduler.lock.release()
        if wanted:
            scheduler.call_m()

    def before_park(self, scheduler: Scheduler, m: M) -> bool:
        """M watches if nobody does; whether it has a P then."""
        scheduler.lock.acquire()
        self.called = False
        if self.watcher is not None or scheduler.stopping:
            scheduler.lock.release()
            return False
        self.watcher = m
        scheduler.lock.release()
        begin_ns = scheduler.host.thread_cpu_ns()
        self.watch(scheduler, m)
        scheduler.record.policy_cpu_ns += scheduler.host.thread_cpu_ns() - begin_ns
        return m.p is not NO_P

    def watch(self, scheduler: Scheduler, m: M) -> None:
        """Sleep, look, until there is a P to run or the run is over."""
        idle_rounds: i64 = 0
        delay_ns: i64 = 0
        while not scheduler.stopping:
            delay_ns = self.monitor_sleep_ns(idle_rounds, delay_ns)
            self.monitor_wait(scheduler, m, delay_ns)
            idle_rounds += 1
            if self.rest_while_idle(scheduler):
                idle_rounds = 0
            now_ns = scheduler.host.nanotime()
            look_after_waiters(scheduler, m, now_ns)
            if self.monitor(scheduler, m, now_ns):
                idle_rounds = 0
            if m.p is not NO_P:
                return

    def monitor(self, scheduler: Scheduler, m: M, now_ns: i64) -> i64:
        """One round, up to the first P that M takes for itself."""
        taken: i64 = 0
        for p in scheduler.allp:
            if p.status == P_SYSCALL and self.sighted_twice(scheduler, p, now_ns):
                if not scheduler.take_from_syscall(m, p, BY_INTEGRATED):
                    continue
                taken += 1
                if p.runqhead == p.runqtail and not scheduler.work_for_others():
                    scheduler.handoffp(m, p, NO_G, BY_INTEGRATED)
                    continue
                transition(HANDOFF, m, p, NO_G, BY_INTEGRATED, NO_TID)
                scheduler.acquirep(m, p)
                self.watcher = None
                self.call_watcher(scheduler)
                break
        return taken

    def rest_while_idle(self, scheduler: Scheduler) -> bool:
        """With every P idle, sleep until one is taken; whether that was so.

        The sleeper counts as parked, so that the last M to park still sees a deadlock.
        """
        sched = scheduler.sched
        scheduler.lock.acquire()
        idle = sched.npidle == len(scheduler.allp) and not scheduler.stopping
        scheduler.monitor_waits = idle
        if idle:
            sched.nmidle += 1
        asleep = idle and sched.nmidle == sched.mcount and scheduler.poller is None
        scheduler.lock.release()
        if asleep:
            scheduler.check_dead()
        if idle:
            scheduler.monitor_note.sleep()
            scheduler.lock.acquire()
            sched.nmidle -= 1
            scheduler.lock.release()
        return idle
