"""Time slices: ask goroutines that have run long enough to stop.

The monitor does this, or the M that watches in its place (``integrated``). Its sleep is never
longer than a slice, and ends at once when a signal has stopped a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.gmp import P_RUNNING, P_SYSCALL, PREEMPT_OFF
from reference_runtime.preempt import ask_at_return, preemptone
from reference_runtime.stopped import take_stopped
from reference_runtime.transitions import BY_TIME_SLICE

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, Sched


def preempt_long(sched: Sched, m: M, now_ns: i64) -> None:
    """Ask the goroutines whose time slice is over to stop (go1.21, runtime.retake)."""
    for p in sched.allp:
        if p.status != P_RUNNING and p.status != P_SYSCALL:
            continue
        if p.seen_schedtick != p.schedtick:
            p.seen_schedtick = p.schedtick
            p.seen_sched_ns = now_ns
        elif now_ns >= p.seen_sched_ns + sched.time_slice_ns and not preemptone(
            sched, m, p, BY_TIME_SLICE
        ):
            ask_at_return(sched, m, p)


def monitor_sleep(sched: Sched, m: M, ns: i64) -> None:
    """The monitor's sleep: broken by stopped threads, and by the end of time slices."""
    host = sched.host
    if sched.preempt == PREEMPT_OFF:
        host.usleep(ns)
        return
    stopper = sched.stopper
    until_ns = host.nanotime() + ns
    left_ns = ns
    while left_ns > 0 and not sched.stopping:
        nap_ns = min(left_ns, sched.time_slice_ns)
        if stopper is None:
            host.usleep(nap_ns)
        else:
            seen = stopper.count()
            take_stopped(sched, m)
            stopper.wait(seen, nap_ns)
            take_stopped(sched, m)
        now_ns = host.nanotime()
        preempt_long(sched, m, now_ns)
        left_ns = until_ns - now_ns


def next_look_ns(sched: Sched, ns: i64) -> i64:
    """How long a monitor that waits outside of `monitor_sleep` may wait, at most ``ns``."""
    return ns if sched.preempt == PREEMPT_OFF else min(ns, sched.time_slice_ns)


def look_at_slices(sched: Sched, m: M) -> None:
    """The work of such a monitor after its wait; cheap if there is nothing to do."""
    if sched.preempt == PREEMPT_OFF:
        return
    stopper = sched.stopper
    if stopper is not None:
        seen = stopper.count()
        if seen != sched.stops_looked_at:
            sched.stops_looked_at = seen
            take_stopped(sched, m)
    now_ns = sched.host.nanotime()
    if now_ns >= sched.next_slices_ns:
        sched.next_slices_ns = now_ns + sched.time_slice_ns
        preempt_long(sched, m, now_ns)
