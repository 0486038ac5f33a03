"""The monitor thread (Go: sysmon): an M without a P, which asks the policy what to take back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime.current import set_current
from reference_runtime.gmp import NO_P
from reference_runtime.netpoll import netpoll
from reference_runtime.processors import in_syscall, startm, stop_run
from reference_runtime.transitions import mstart

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, Sched

NETPOLL_AFTER_NS: Final = 10_000_000
"""The monitor looks at the network if nobody has for so long."""


def monitor_main(sched: Sched, m: M) -> None:
    """The body of the monitor's thread."""
    set_current(m)
    m.tid = sched.host.thread_id()
    mstart(m, m.tid)
    try:
        watch(sched, m)
    except BaseException as failure:
        failure.add_note(f"policy {sched.policy.name}, in the monitor")
        stop_run(sched, failure)
    sched.record.add(policy_cpu_ns=sched.host.thread_cpu_ns())
    set_current(None)
    m.exited.wakeup()


def watch(sched: Sched, m: M) -> None:
    """Sleep, look, take back, until the run is over (go1.21, runtime.sysmon)."""
    host = sched.host
    policy = sched.policy
    idle_rounds: i64 = 0
    delay_ns: i64 = 0
    while not sched.stopping:
        delay_ns = policy.monitor_sleep_ns(idle_rounds, delay_ns)
        policy.monitor_wait(sched, m, delay_ns)
        if policy.monitor_rests and rest_while_idle(sched, m):
            idle_rounds = 0
            delay_ns = policy.monitor_sleep_ns(0, delay_ns)
        if sched.stopping:
            return
        now_ns = host.nanotime()
        look_after_waiters(sched, m, now_ns)
        if look_at_calls(sched, m, now_ns):
            idle_rounds = 0
        else:
            idle_rounds += 1


def look_at_calls(sched: Sched, m: M, now_ns: i64) -> i64:
    """One round over the Ps in system calls, up to the first that M takes for itself.

    Returns:
        How many were taken back (go1.21, runtime.retake).
    """
    policy = sched.policy
    taken: i64 = 0
    if not policy.begin_round(sched, now_ns):
        return taken
    for p in sched.allp:
        if not in_syscall(sched, p):
            continue
        reason = policy.wanted(sched, p, now_ns)
        if reason >= 0 and policy.take(sched, m, p, reason):
            taken += 1
            if m.p is not NO_P:
                break
    return taken


def look_after_waiters(sched: Sched, m: M, now_ns: i64) -> None:
    """See to descriptors that nobody looked at for 10 ms, and to timers that are overdue."""
    if (
        sched.netpoll_waiters
        and sched.poller is None
        and now_ns > sched.last_netpoll_ns + NETPOLL_AFTER_NS
    ):
        netpoll(sched, m, 0)
    if sched.timers.count and 0 <= sched.timers.next_ns() < now_ns:
        startm(sched, m, NO_P, False)


def rest_while_idle(sched: Sched, m: M) -> bool:
    """With every P idle, sleep until one is taken; whether that was so.

    The poller sees to timers meanwhile: there is one whenever a timer is set and no P is in use.
    """
    sched.lock.acquire()
    idle = sched.npidle == len(sched.allp) and not sched.stopping
    sched.monitor_waits = idle
    sched.lock.release()
    if idle:
        m.note.sleep()
    return idle
