"""The run queues and the idle list.

All queues are linked through the Gs, so that a switch allocates nothing. The queue of a P has a
capacity. If it is full, the new G and half of the queue go to the global queue, so that a P that
makes many goroutines feeds the others (go1.21, runtime.runqput).

Functions that take a ``Sched`` are called with the scheduler's lock held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.gmp import G_SYSCALL, NO_P, P_RUNNING, G, P, Sched
from reference_runtime.like import RUNNEXT_WAIT_NS

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import Sched


def runqput(sched: Sched, p: P, g: G) -> None:
    """Append G to P's queue, or, if that is full, half the queue and G to the global one."""
    p.lock.acquire()
    if p.runqtail - p.runqhead - (1 if p.has_next else 0) < p.capacity:
        append(p, g)
        p.lock.release()
        return
    moved: G | None = take(p, p.capacity // 2)
    p.lock.release()
    sched.lock.acquire()
    while moved is not None:
        following = moved.schedlink
        globrunqput(sched, moved)
        moved = following
    globrunqput(sched, g)
    sched.lock.release()


def runqput_next(sched: Sched, p: P, g: G) -> None:
    """Have G be the next on P, ahead of all others (go1.21, runtime.runqput with ``next``).

    A G that was to be the next goes to the end of the queue. Without the rule ``runnext`` this is
    :func:`runqput`.
    """
    if not sched.runnext:
        runqput(sched, p, g)
        return
    p.lock.acquire()
    kicked: G | None = None
    if p.has_next:
        kicked = p.runq_first
        assert kicked is not None
        p.runq_first = kicked.schedlink
        p.runqhead += 1
    g.schedlink = p.runq_first
    if p.runq_first is None:
        p.runq_last = g
    p.runq_first = g
    p.runqtail += 1
    p.has_next = True
    if kicked is not None and p.runqtail - p.runqhead - 1 < p.capacity:
        append(p, kicked)
        kicked = None
    p.lock.release()
    if kicked is not None:
        runqput(sched, p, kicked)


def runqget(p: P) -> G | None:
    """Take the G at the head of P's queue; ``p.inherits`` tells whether it was runnext."""
    p.lock.acquire()
    g = p.runq_first
    if g is not None:
        p.runq_first = g.schedlink
        g.schedlink = None
        p.runqhead += 1
        p.inherits = p.has_next
        p.has_next = False
    p.lock.release()
    return g


def append(p: P, g: G) -> None:
    """Append G to P's queue; P's lock is held, there is room."""
    g.schedlink = None
    if p.runq_first is None:
        p.runq_first = g
    else:
        p.runq_last.schedlink = g
    p.runq_last = g
    p.runqtail += 1


def take(p: P, count: i64) -> G:
    """Take ``count`` Gs, at least one, from the head of P's queue, as a chain; never runnext.

    P's lock is held, and they are there.
    """
    before = p.runq_first
    assert before is not None
    first: G | None = before.schedlink if p.has_next else before
    assert first is not None
    last = first
    for _ in range(count - 1):
        following = last.schedlink
        assert following is not None
        last = following
    if p.has_next:
        before.schedlink = last.schedlink
        if last.schedlink is None:
            p.runq_last = before
    else:
        p.runq_first = last.schedlink
    last.schedlink = None
    p.runqhead += count
    return first


def steal(sched: Sched, p: P) -> G | None:
    """Move half of another P's queue to P's, which is empty, and run one of them.

    Once round the others, or in Go's four passes, the last of which takes a runnext.
    """
    count: i64 = len(sched.allp)
    if count == 1:
        return None
    passes = sched.rules.steal_passes
    for turn in range(passes):
        begin = sched.host.random(count)
        for i in range(count):
            victim = sched.allp[(begin + i) % count]
            if victim is p or victim.runqhead == victim.runqtail:
                continue
            g = steal_from(sched, p, victim)
            if g is None and turn == passes - 1 and victim.has_next:
                g = steal_next(sched, victim)
            if g is not None:
                return g
    return None


def steal_from(sched: Sched, p: P, victim: P) -> G | None:
    """Move half of the victim's queue, without its runnext."""
    victim.lock.acquire()
    waiting = victim.runqtail - victim.runqhead - (1 if victim.has_next else 0)
    if waiting == 0:
        victim.lock.release()
        return None
    first = take(victim, waiting - waiting // 2)
    victim.lock.release()
    following = first.schedlink
    first.schedlink = None
    while following is not None:
        g = following
        following = g.schedlink
        if sched.runnext:
            # Go's thief runs the last that it took.
            runqput(sched, p, first)
            g.schedlink = None
            first = g
        else:
            runqput(sched, p, g)
    return first


def steal_next(sched: Sched, victim: P) -> G | None:
    """Take the victim's runnext, if it is still there after a while (go1.21, runtime.runqgrab).

    One that runs a goroutine is about to run it: what readied it parks soon, as a rule.
    """
    m = victim.m
    runs = victim.status == P_RUNNING and m is not None and m.curg.status != G_SYSCALL
    if runs or sched.rules.always_sleeps:
        sleep_before(sched)
    g: G | None = None
    victim.lock.acquire()
    if victim.has_next:
        g = victim.runq_first
        assert g is not None
        victim.runq_first = g.schedlink
        g.schedlink = None
        victim.runqhead += 1
        victim.has_next = False
    victim.lock.release()
    return g


def sleep_before(sched: Sched) -> None:
    """The thief's sleep, which is counted: what it costs is a figure of the discussion."""
    host = sched.host
    begin_ns = host.nanotime()
    begin_cpu_ns = host.thread_cpu_ns()
    host.usleep(RUNNEXT_WAIT_NS)
    ns = host.nanotime() - begin_ns
    sched.record.thief_slept(ns, host.thread_cpu_ns() - begin_cpu_ns)


def globrunqput(sched: Sched, g: G) -> None:
    """Append G to the global queue."""
    g.schedlink = None
    if sched.runq_last is None:
        sched.runq_first = g
    else:
        sched.runq_last.schedlink = g
    sched.runq_last = g
    sched.runqsize += 1


def globrunqget(sched: Sched, p: P, procs: i64, most: i64) -> G | None:
    """Take P's share of the global queue: one G to run, the others into P's queue.

    Args:
        sched: whose queue.
        p: the caller's P.
        procs: number of Ps, who share.
        most: how many to take at most; 0 for half of P's capacity.
    """
    # By twos: of more, mypyc makes a tuple, and the lock is held.
    count = min(sched.runqsize, sched.runqsize // procs + 1)
    count = min(count, p.capacity // 2)
    if most:
        count = min(count, most)
    first: G | None = None
    for _ in range(count):
        g = sched.runq_first
        assert g is not None
        sched.runq_first = g.schedlink
        if sched.runq_first is None:
            sched.runq_last = None
        g.schedlink = None
        sched.runqsize -= 1
        if first is None:
            first = g
            continue
        p.lock.acquire()
        append(p, g)
        p.lock.release()
    return first


def pidleput(sched: Sched, p: P) -> None:
    """Put P on the idle list."""
    p.link = sched.pidle
    sched.pidle = p
    sched.npidle += 1


def pidleget(sched: Sched) -> P:
    """Take a P from the idle list; ``NO_P`` if there is none."""
    p = sched.pidle
    if p is None:
        return NO_P
    sched.pidle = p.link
    p.link = None
    sched.npidle -= 1
    return p


def all_gs(sched: Sched) -> list[G]:
    """Every live G, oldest first."""
    gs: list[G] = []
    g = sched.allg
    while g is not None:
        gs.append(g)
        g = g.all_next
    gs.reverse()
    return gs
