"""The run queues and the idle list.

All queues are linked through the Gs, so that a switch allocates nothing. The queue of a P has a
capacity. If it is full, the new G and half of the queue go to the global queue, so that a P that
makes many goroutines feeds the others (go1.21, runtime.runqput).

Functions that take a ``Sched`` are called with the scheduler's lock held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.gmp import NO_P, G, P, Sched

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import Sched


def runqput(sched: Sched, p: P, g: G) -> None:
    """Append G to P's queue, or, if that is full, half the queue and G to the global one."""
    p.lock.acquire()
    if p.runqtail - p.runqhead < p.capacity:
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


def runqget(p: P) -> G | None:
    """Take the G at the head of P's queue."""
    p.lock.acquire()
    g = p.runq_first
    if g is not None:
        p.runq_first = g.schedlink
        g.schedlink = None
        p.runqhead += 1
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
    """Take ``count`` Gs, at least one, from the head of P's queue, as a chain.

    P's lock is held, and they are there.
    """
    first = p.runq_first
    assert first is not None
    last = first
    for _ in range(count - 1):
        following = last.schedlink
        assert following is not None
        last = following
    p.runq_first = last.schedlink
    last.schedlink = None
    p.runqhead += count
    return first


def steal(sched: Sched, p: P) -> G | None:
    """Move half of another P's queue to P's, which is empty, and run the first."""
    count: i64 = len(sched.allp)
    if count == 1:
        return None
    begin = sched.host.random(count)
    for i in range(count):
        victim = sched.allp[(begin + i) % count]
        if victim is p or victim.runqhead == victim.runqtail:
            continue
        victim.lock.acquire()
        waiting = victim.runqtail - victim.runqhead
        if waiting == 0:
            victim.lock.release()
            continue
        first = take(victim, waiting - waiting // 2)
        victim.lock.release()
        following = first.schedlink
        first.schedlink = None
        while following is not None:
            g = following
            following = g.schedlink
            runqput(sched, p, g)
        return first
    return None


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
