"""Locks that know who holds them, to check the rule of ``scheduler.py`` in tests.

The rule is that nothing is done under a lock that may let another thread run, or that may run
foreign code: no host call that switches threads, no object made (a collection may start), no last
reference dropped to what is not ours (its finaliser runs).
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING

from reference_runtime.host import Lock

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["KnowingLock", "LockBook"]


class LockBook:
    """Which thread holds how many of the locks that write here."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.waited: i64 = 0
        """How often a thread found a lock held by another. Compiled, with a GIL, that is a holder
        who let another thread run."""

    def holds(self) -> bool:
        """Whether the calling thread holds one."""
        return self.held.get(_thread.get_ident(), 0) > 0


class KnowingLock(Lock):
    """A lock of the interpreter's that writes into a book."""

    def __init__(self, book: LockBook) -> None:
        self.book = book
        self.lock = _thread.allocate_lock()

    def acquire(self) -> None:
        """Wait for the lock and hold it."""
        if not self.lock.acquire(False):
            self.book.waited += 1
            self.lock.acquire()
        ident = _thread.get_ident()
        held = self.book.held
        held[ident] = held.get(ident, 0) + 1

    def release(self) -> None:
        """Give it up."""
        self.book.held[_thread.get_ident()] -= 1
        self.lock.release()
