"""The monitor thread (Go: sysmon): an M without a P, which asks the policy what to take back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime.current import set_current
from reference_runtime.gmp import NO_P
from reference_runtime.transitions import mstart

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M
    from reference_runtime.scheduler import Scheduler

NETPOLL_AFTER_NS: Final = 10_000_000
"""The monitor looks at the network if nobody has for so long."""


def monitor_main(scheduler: Scheduler, m: M) -> None:
    """The body of the monitor's thread."""
    set_current(m)
    m.tid = scheduler.host.thread_id()
    mstart(m, m.tid)
    try:
        watch(scheduler, m)
    except BaseException as failure:
        scheduler.stop(failure)
    scheduler.record.policy_cpu_ns += scheduler.host.thread_cpu_ns()
    set_current(None)
    m.exited.wakeup()


def watch(scheduler: Scheduler, m: M) -> None:
    """Sleep, look, take back, until the run is over (go1.21, runtime.sysmon)."""
    host = scheduler.host
    policy = scheduler.policy
    idle_rounds: i64 = 0
    delay_ns: i64 = 0
    while not scheduler.stopping:
        delay_ns = policy.monitor_sleep_ns(idle_rounds, delay_ns)
        policy.monitor_wait(scheduler, m, delay_ns)
        if policy.monitor_rests and rest_while_idle(scheduler, m):
            idle_rounds = 0
            delay_ns = policy.monitor_sleep_ns(0, delay_ns)
        if scheduler.stopping:
            return
        now_ns = host.nanotime()
        look_after_waiters(scheduler, m, now_ns)
        if policy.monitor(scheduler, m, now_ns):
            idle_rounds = 0
        else:
            idle_rounds += 1


def look_after_waiters(scheduler: Scheduler, m: M, now_ns: i64) -> None:
    """See to descriptors that nobody looked at for 10 ms, and to timers that are overdue."""
    if (
        scheduler.netpoll_waiters
        and scheduler.poller is None
        and now_ns > scheduler.last_netpoll_ns + NETPOLL_AFTER_NS
    ):
        scheduler.netpoll(m, 0)
    if scheduler.timers.count and 0 <= scheduler.timers.next_ns() < now_ns:
        scheduler.startm(m, NO_P, False)


def rest_while_idle(scheduler: Scheduler, m: M) -> bool:
    """With every P idle, sleep until one is taken; whether that was so.

    The poller sees to timers meanwhile: there is one whenever a timer is set and no P is in use.
    """
    scheduler.lock.acquire()
    idle = scheduler.sched.npidle == len(scheduler.allp) and not scheduler.stopping
    scheduler.monitor_waits = idle
    scheduler.lock.release()
    if idle:
        m.note.sleep()
    return idle
