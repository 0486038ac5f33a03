"""Cancellation (Go: context.Context): one word for all goroutines of a job that it is off.

Example:
    >>> async def work(jobs: Channel, context: Context) -> None:
    ...     while True:
    ...         case, job, _ = await select([recv_case(context.done), recv_case(jobs)])
    ...         if case == 0:
    ...             return                      # context.error says why
    ...
    >>> context = Context(timeout_ns=1_000_000_000)
    >>> go(work(jobs, context))
    >>> context.cancel()
"""

from __future__ import annotations

from functools import partial
from typing import Final

from reference_runtime.channels import Channel
from reference_runtime.gmp import M
from reference_runtime.goroutines import getm
from reference_runtime.locks import new_lock
from reference_runtime.netpoll import new_timer
from reference_runtime.timers import Timer

__all__ = ["CANCELLED", "DEADLINE_EXCEEDED", "Context"]

CANCELLED = "context cancelled"
DEADLINE_EXCEEDED = "context deadline exceeded"


class Context:
    """A job that may be called off, with those that were made under it.

    Args:
        parent: called off with it, this one is too; None for a job of its own.
        timeout_ns: after so long it is called off by itself; -1 for never.
    """

    def __init__(self, parent: Context | None = None, timeout_ns: int = -1) -> None:
        self.done = Channel()
        """Closed when the job is off: a ``recv_case`` for ``select``."""
        self.error = ""
        """Why it is off: ``CANCELLED`` or ``DEADLINE_EXCEEDED``; empty while it is not."""
        self.lock: Final = new_lock()
        """Guards ``error`` and ``children``: who is made now is ended, or sees that it is over."""
        self.children: list[Context] = []
        self.timer: Timer | None = None
        if parent is not None:
            parent.lock.acquire()
            parent.children.append(self)
            error = parent.error
            parent.lock.release()
            if error:
                self.end(error)
        if timeout_ns >= 0 and not self.error:
            sched = getm().sched
            self.timer = Timer(sched.host.nanotime() + timeout_ns, None, partial(expire, self))
            new_timer(sched, self.timer)

    def cancel(self) -> None:
        """Call the job off, and those under it; a second time does nothing."""
        self.end(CANCELLED)

    def end(self, error: str) -> None:
        """The job is off for this reason, unless it was for another."""
        sched = getm().sched
        self.lock.acquire()
        first = not self.error
        if first:
            self.error = error
        self.lock.release()
        if not first:
            return
        if self.timer is not None:
            sched.timers.cancel(self.timer)
        self.done.close()
        for child in self.children:
            child.end(error)


def expire(context: Context, m: M) -> None:  # noqa: ARG001
    """A context's time is over; called by some M."""
    context.end(DEADLINE_EXCEEDED)
