"""Timers and the network poller: goroutines that wait without a thread.

The *poller* is an M without a P that waits for the first timer or descriptor; there is at most
one. Ps that are busy check the timers between two goroutines, and the monitor does so too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime import runq
from reference_runtime.gmp import NO_P
from reference_runtime.host import FOR_EVER
from reference_runtime.processors import startm, take_idle_p, wakep
from reference_runtime.ready import make_runnable, put_global, ready

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, Sched
    from reference_runtime.polldesc import PollWaiter
    from reference_runtime.timers import Timer


def new_timer(sched: Sched, timer: Timer) -> None:
    """Have a timer fire."""
    if sched.timers.add(timer):
        wake_poller(sched, timer.when_ns)


def run_timers(sched: Sched, m: M) -> None:
    """Ready the goroutines whose time has come, and do what else is due."""
    now_ns = sched.host.nanotime()
    timer = sched.timers.pop_due(now_ns)
    while timer is not None:
        if timer.g is not None:
            ready(sched, m, timer.g)
        elif timer.fire is not None:
            timer.fire(m)
        timer = sched.timers.pop_due(now_ns)


def netpoll(sched: Sched, m: M, delay_ns: i64) -> None:
    """Ready the goroutines whose descriptors are."""
    waiters = sched.host.netpoll(delay_ns)
    netpolled(sched, m, waiters)


def netpolled(sched: Sched, m: M, waiters: list[PollWaiter]) -> None:
    """Ready the goroutines that the network poller gave back."""
    sched.last_netpoll_ns = sched.host.nanotime()
    if sched.rules.injects:
        inject(sched, m, waiters)
    else:
        for waiter in waiters:
            if waiter.fire is None:
                ready(sched, m, waiter.g)
            else:
                waiter.fire(m)
    # Only now: those that are on no queue yet would else be on nobody's account, and the last
    # M that parks would call them deadlocked.
    sched.lock.acquire()
    sched.netpoll_waiters -= len(waiters)
    sched.lock.release()


def inject(sched: Sched, m: M, waiters: list[PollWaiter]) -> None:
    """Ready many goroutines, an M for each idle P (go1.21, runtime.injectglist).

    If M has a P, the first is for M itself, as long as its P's queue is empty. Each idle P gets
    one of the next, through the global queue. What is left goes to M's queue.
    """
    own = m.p
    idle: i64 = sched.npidle if sched.rules.inject_keeps else len(waiters)
    dealt: i64 = 0
    for waiter in waiters:
        if waiter.fire is not None:
            waiter.fire(m)
            continue
        g = waiter.g
        if not make_runnable(sched, g):
            continue
        if own is not NO_P and (own.runqhead == own.runqtail or dealt >= idle):
            runq.runqput(sched, own, g)
        else:
            put_global(sched, g)
            dealt += 1
    while dealt > 0 and sched.npidle:
        startm(sched, m, NO_P, False)
        dealt -= 1
    if own is not NO_P and sched.rules.inject_wakes:
        wakep(sched, m)


def wait_as_poller(sched: Sched, m: M) -> None:
    """Wait, without a P, for the first timer or descriptor; then try to get a P."""
    sched.lock.acquire()
    if sched.poller is not None:
        sched.lock.release()
        return
    sched.poller = m
    sched.poll_until_ns = FOR_EVER
    sched.lock.release()
    # Only now: a timer that comes first from here on breaks the wait.
    until_ns = sched.timers.next_ns()
    sched.poll_until_ns = until_ns
    delay_ns: i64 = FOR_EVER
    if until_ns >= 0:
        delay_ns = sched.rules.poll_ns(max(until_ns - sched.host.nanotime(), 0))
    waiters: list[PollWaiter] = []
    if not sched.stopping:
        waiters = sched.host.netpoll(delay_ns)
    sched.lock.acquire()
    sched.poller = None
    sched.lock.release()
    # First the P, so that those who are ready go on here and need no other thread.
    take_idle_p(sched, m)
    netpolled(sched, m, waiters)


def wake_poller(sched: Sched, when_ns: i64) -> None:
    """Wake the poller if it would come back later than ``when_ns``."""
    if sched.poller is not None and not 0 <= sched.poll_until_ns <= when_ns:
        sched.host.netpoll_break()


def wait_begins(sched: Sched, waiter: PollWaiter, fd: i64, event: i64) -> None:
    """Have the network poller ready the waiter's goroutine, which is about to park.

    Raises:
        DoubleWait: another goroutine waits for the same.
        OSError: the descriptor is none, or one that cannot be waited for.
    """
    sched.lock.acquire()
    sched.netpoll_waiters += 1
    sched.lock.release()
    try:
        sched.host.netpoll_arm(int(fd), int(event), waiter)
    except BaseException:
        waits_less(sched)
        raise


def waits_less(sched: Sched) -> None:
    """A goroutine waits no more for a descriptor, and not because it is ready."""
    sched.lock.acquire()
    sched.netpoll_waiters -= 1
    sched.lock.release()


def wait_timed_out(waiter: PollWaiter, fd: i64, m: M) -> None:
    """A waiter's time is over: ready its goroutine, unless the descriptor was ready first."""
    if m.sched.host.netpoll_disarm(int(fd), waiter):
        waiter.timed_out = True
        ready(m.sched, m, waiter.g)
        # Only now, as in `netpolled`.
        waits_less(m.sched)
