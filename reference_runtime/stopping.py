"""What a collector says to its runtime: stop everybody, stop one, and go on.

Example:
    >>> async with stopped_world("gc"):
    ...     ...                          # no other goroutine runs
    >>> async with suspended(g) as still:
    ...     ...                          # g stands still, or was dead already
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reference_runtime.gmp import G
from reference_runtime.goroutines import getm, scheduler_of
from reference_runtime.scheduler import Scheduler
from reference_runtime.sync import Mutex
from tracer.trace.words import RUNTIME_REASONS

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["stopped_world", "suspended"]


def world_sema(scheduler: Scheduler) -> Mutex:
    """Who stops anybody holds it, so that two never wait for each other (Go: worldsema)."""
    sema = Mutex()
    scheduler.lock.acquire()
    if scheduler.world_sema is None:
        scheduler.world_sema = sema
    scheduler.lock.release()
    return cast("Mutex", scheduler.world_sema)


class StoppedWorld:
    """See :func:`stopped_world`."""

    def __init__(self, reason: i64) -> None:
        self.reason: i64 = reason

    async def __aenter__(self) -> None:
        """Stop the world."""
        await world_sema(scheduler_of(getm())).lock()
        m = getm()
        scheduler_of(m).stop_the_world(m, self.reason)

    async def __aexit__(self, *error: object) -> None:
        """Let it go on."""
        m = getm()
        scheduler_of(m).start_the_world(m, self.reason)
        world_sema(scheduler_of(m)).unlock()


class Suspended:
    """See :func:`suspended`."""

    def __init__(self, g: G) -> None:
        self.g = g

    async def __aenter__(self) -> bool:
        """Wait until the goroutine stands still; False if it is dead."""
        await world_sema(scheduler_of(getm())).lock()
        m = getm()
        return scheduler_of(m).suspend(m, self.g)

    async def __aexit__(self, *error: object) -> None:
        """Let it run again."""
        m = getm()
        scheduler_of(m).resume(m, self.g)
        world_sema(scheduler_of(m)).unlock()


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
