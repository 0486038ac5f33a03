"""Make goroutines, and make them runnable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from reference_runtime import runq
from reference_runtime.gmp import G_RUNNABLE, G_WAITING, NO_P, G
from reference_runtime.processors import wakep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_runtime.gmp import Goroutine, M, Sched


def new_g(sched: Sched, coro: Goroutine, name: str) -> G:
    """A G for ``coro``, on no queue yet."""
    begin: Callable[[], object] | None = getattr(coro, "__await__", None)
    steps = cast("Iterator[object]", coro if begin is None else begin())
    sched.lock.acquire()
    sched.goidgen += 1
    goid = sched.goidgen
    sched.lock.release()
    g = G(goid, coro, steps, name)
    sched.lock.acquire()
    g.all_next = sched.allg
    if sched.allg is not None:
        sched.allg.all_prev = g
    sched.allg = g
    sched.ngoroutines += 1
    sched.lock.release()
    return g


def newproc(sched: Sched, m: M, coro: Goroutine, name: str) -> G:
    """Make a goroutine runnable on M's P (Go: newproc)."""
    g = new_g(sched, coro, name)
    runq.runqput_next(sched, m.p, g)
    wakep(sched, m)
    return g


def ready(sched: Sched, m: M, g: G) -> None:
    """Make a G runnable that is parked, or about to park (Go: goready).

    ``m`` is the caller's; without a P its wake-ups go to the global queue.
    """
    if not make_runnable(sched, g):
        return
    if m.p is NO_P:
        put_global(sched, g)
    else:
        runq.runqput_next(sched, m.p, g)
    wakep(sched, m)


def make_runnable(sched: Sched, g: G) -> bool:
    """Whether G, whose wait is over, is to be put on a queue; if not, its M does so itself."""
    sched.lock.acquire()
    if g.status != G_WAITING:
        g.token = True
        sched.lock.release()
        return False
    g.status = G_RUNNABLE
    sched.lock.release()
    return True


def put_global(sched: Sched, g: G) -> None:
    """Append to the global queue."""
    sched.lock.acquire()
    runq.globrunqput(sched, g)
    sched.lock.release()
