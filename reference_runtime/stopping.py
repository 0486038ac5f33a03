"""What a garbage collector calls: stop the world, stop one goroutine, and go on.

Example:
    >>> async with stopped_world("gc"):
    ...     ...                          # no other goroutine runs
    >>> async with suspended(g) as still:
    ...     ...                          # g stands still, or was dead already
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reference_runtime.gmp import G, Sched
from reference_runtime.goroutines import getm
from reference_runtime.sync import Mutex
from reference_runtime.world import resume, start_the_world, stop_the_world, suspend
from tracer.trace.words import RUNTIME_REASONS

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["stopped_world", "suspended"]


def world_sema(sched: Sched) -> Mutex:
    """Held by who stops others, so that two never wait for each other (Go: worldsema)."""
    sema = Mutex()
    sched.lock.acquire()
    if sched.world_sema is None:
        sched.world_sema = sema
    sched.lock.release()
    return cast("Mutex", sched.world_sema)


class StoppedWorld:
    """See :func:`stopped_world`."""

    def __init__(self, reason: i64) -> None:
        self.reason: i64 = reason

    async def __aenter__(self) -> None:
        """Stop the world."""
        await world_sema(getm().sched).lock()
        m = getm()
        stop_the_world(m.sched, m, self.reason)

    async def __aexit__(self, *error: object) -> None:
        """Let it go on."""
        m = getm()
        start_the_world(m.sched, m, self.reason)
        world_sema(m.sched).unlock()


class Suspended:
    """See :func:`suspended`."""

    def __init__(self, g: G) -> None:
        self.g = g

    async def __aenter__(self) -> bool:
        """Wait until the goroutine stands still; False if it is dead."""
        await world_sema(getm().sched).lock()
        m = getm()
        return suspend(m.sched, m, self.g)

    async def __aexit__(self, *error: object) -> None:
        """Let it run again."""
        m = getm()
        resume(m.sched, m, self.g)
        world_sema(m.sched).unlock()


def stopped_world(reason: str = "stw") -> StoppedWorld:
    """For an ``async with`` in which no other goroutine runs (Go: stopTheWorld).

    The caller waits with its thread and P until the last one has stopped. It may make no call in
    there that waits for another goroutine.

    Args:
        reason: word of :data:`tracer.trace.words.RUNTIME_REASONS`: ``stw`` or ``gc``.
    """
    return StoppedWorld(RUNTIME_REASONS.index(reason))


def suspended(g: G) -> Suspended:
    """For an ``async with`` in which ``g``, another goroutine, stands still (Go: suspendG)."""
    return Suspended(g)
