"""``integrated``: no monitor thread; an M without work watches the other Ms."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.gmp import NO_G, NO_P
from reference_runtime.monitor import look_after_waiters, look_at_calls
from reference_runtime.policies.base import NOT_YET, RetakePolicy
from reference_runtime.processors import (
    acquirep,
    call_m,
    check_dead,
    handoffp,
    take_from_syscall,
    work_for_others,
)
from reference_runtime.transitions import BY_INTEGRATED, HANDOFF, NO_TID, transition

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, P, Sched


@mypyc_attr(allow_interpreted_subclasses=True)
class IntegratedPolicy(RetakePolicy):
    """The M that retakes a P runs it, so the P does not wait for another thread to wake up.

    One M that found nothing to run does not park. It *watches* as the monitor would: it sleeps as
    long, and retakes at the second sighting of a call. While any P is in use, one M watches. A
    watcher that goes to run a P first wakes the next M to watch; the P does not wait for that
    wake-up.
    """

    name: ClassVar[str] = "integrated"

    def __init__(self) -> None:
        super().__init__()
        self.has_monitor = False
        self.watcher: M | None = None
        self.called: bool = False
        """An M was woken to watch, and is not there yet."""

    def start(self, sched: Sched) -> None:  # noqa: ARG002
        """Forget an earlier run."""
        self.watcher = None
        self.called = False

    def m_started(self, m: M) -> None:
        """The first M calls one to watch it."""
        if m.id == 0:
            self.call_watcher(m.sched)

    def call_watcher(self, sched: Sched) -> None:
        """Wake an M to watch, if none does."""
        sched.lock.acquire()
        wanted = self.watcher is None and not self.called
        if wanted:
            self.called = True
        sched.lock.release()
        if wanted:
            call_m(sched)

    def before_park(self, sched: Sched, m: M) -> bool:
        """M watches if nobody does; whether it has a P then."""
        sched.lock.acquire()
        self.called = False
        if self.watcher is not None or sched.stopping:
            sched.lock.release()
            return False
        self.watcher = m
        sched.lock.release()
        begin_ns = sched.host.thread_cpu_ns()
        self.watch(sched, m)
        sched.record.add(policy_cpu_ns=sched.host.thread_cpu_ns() - begin_ns)
        return m.p is not NO_P

    def watch(self, sched: Sched, m: M) -> None:
        """Sleep, look, until there is a P to run or the run is over."""
        idle_rounds: i64 = 0
        delay_ns: i64 = 0
        while not sched.stopping:
            delay_ns = self.monitor_sleep_ns(idle_rounds, delay_ns)
            self.monitor_wait(sched, m, delay_ns)
            idle_rounds += 1
            if self.rest_while_idle(sched):
                idle_rounds = 0
            now_ns = sched.host.nanotime()
            look_after_waiters(sched, m, now_ns)
            if look_at_calls(sched, m, now_ns):
                idle_rounds = 0
            if m.p is not NO_P:
                return

    def wanted(self, sched: Sched, p: P, now_ns: i64) -> i64:
        """At its second sighting."""
        return BY_INTEGRATED if self.sighted_twice(sched, p, now_ns) else NOT_YET

    def take(self, sched: Sched, m: M, p: P, reason: i64) -> bool:
        """M takes P for itself, if there is anything to run on it: that ends the round."""
        if not take_from_syscall(sched, m, p, reason):
            return False
        if p.runqhead == p.runqtail and not work_for_others(sched):
            handoffp(sched, m, p, NO_G, reason)
            return True
        transition(HANDOFF, m, p, NO_G, reason, NO_TID)
        acquirep(sched, m, p)
        self.watcher = None
        self.call_watcher(sched)
        return True

    def rest_while_idle(self, sched: Sched) -> bool:
        """With every P idle, sleep until one is taken; whether that was so.

        The sleeper counts as parked, so that the last M to park still sees a deadlock.
        """
        sched.lock.acquire()
        idle = sched.npidle == len(sched.allp) and not sched.stopping
        sched.monitor_waits = idle
        if idle:
            sched.nmidle += 1
        asleep = idle and sched.nmidle == sched.mcount and sched.poller is None
        sched.lock.release()
        if asleep:
            check_dead(sched)
        if idle:
            sched.monitor_note.sleep()
            sched.lock.acquire()
            sched.nmidle -= 1
            sched.lock.release()
        return idle
