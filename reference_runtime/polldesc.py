"""Who waits for a descriptor: one reader and one writer (Go: pollDesc, go1.21 runtime/netpoll.go).

Both hosts keep one :class:`PollDesc` for each descriptor that somebody waited for, so that they
agree on what fits into it: a goroutine that waits to read and another that waits to write, and no
third. Each host guards them in its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reference_runtime.errors import DoubleWait
from reference_runtime.host import READABLE, WRITABLE

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M

__all__ = ["PollDesc", "PollWaiter"]


class PollWaiter:
    """One wait of one goroutine; ``netpoll`` gives it back when it is over.

    Or of nobody, where ``fire`` says what some M is to do then, without a lock.
    """

    def __init__(self, g: G, fire: Callable[[M], None] | None = None) -> None:
        self.g = g
        self.fire = fire
        self.evicted: bool = False
        """The descriptor was closed meanwhile: it is over for that reason."""
        self.timed_out: bool = False


class PollDesc:
    """The two slots of one descriptor."""

    def __init__(self) -> None:
        self.reader: PollWaiter | None = None
        self.writer: PollWaiter | None = None
        self.registered: bool = False
        """The kernel's poller knows the descriptor (real host)."""

    def wanted(self) -> i64:
        """The events that somebody waits for."""
        events: i64 = 0
        if self.reader is not None:
            events |= READABLE
        if self.writer is not None:
            events |= WRITABLE
        return events

    def put(self, fd: i64, event: i64, waiter: PollWaiter) -> None:
        """Have a waiter wait for ``READABLE`` or ``WRITABLE``.

        Raises:
            DoubleWait: somebody does already.
        """
        if self.wanted() & event:
            word = "readable" if event == READABLE else "writable"
            raise DoubleWait(f"another goroutine waits already until descriptor {fd} is {word}")
        if event == READABLE:
            self.reader = waiter
        else:
            self.writer = waiter

    def take(self, events: i64, ready: list[PollWaiter]) -> None:
        """The waiters of these events wait no more."""
        if events & READABLE and self.reader is not None:
            ready.append(self.reader)
            self.reader = None
        if events & WRITABLE and self.writer is not None:
            ready.append(self.writer)
            self.writer = None

    def remove(self, waiter: PollWaiter) -> bool:
        """This waiter waits no more; False if it did not."""
        if self.reader is waiter:
            self.reader = None
            return True
        if self.writer is waiter:
            self.writer = None
            return True
        return False

    def evict(self, evicted: list[PollWaiter]) -> None:
        """The descriptor is closed: nobody waits for it any more."""
        first = len(evicted)
        self.take(READABLE | WRITABLE, evicted)
        for waiter in evicted[first:]:
            waiter.evicted = True
