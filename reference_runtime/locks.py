"""Real locks, and what stands on them: where threads run at once, or are stopped anywhere.

The rule of ``scheduler.py`` needs real locks in two cases: on a Python without a GIL, and where
the scheduler is interpreted. Compiled, with a GIL, a lock that does nothing is enough.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING, Final

from reference_runtime.current import COMPILED
from reference_runtime.host import Lock

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["LOCKS_ARE_REAL", "NO_GIL", "Counter", "ThreadLock", "new_lock"]

NO_GIL: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads run Python code at once: a free-threaded build, which no module made go back."""

LOCKS_ARE_REAL: Final = not COMPILED or NO_GIL
"""False where the GIL keeps compiled critical sections apart."""


class ThreadLock(Lock):
    """A lock of the interpreter's."""

    def __init__(self) -> None:
        self.lock: Final = _thread.allocate_lock()

    def acquire(self) -> None:
        """Wait for the lock and hold it."""
        self.lock.acquire()

    def release(self) -> None:
        """Give it up."""
        self.lock.release()


def new_lock() -> Lock:
    """A real lock where the GIL does not do."""
    return ThreadLock() if LOCKS_ARE_REAL else Lock()


class Counter:
    """A number to which goroutines add on several threads (Go: atomic.Int64)."""

    def __init__(self) -> None:
        self.lock: Final = new_lock()
        self.count: i64 = 0
        self.most: i64 = 0
        """The highest that it ever was."""

    def add(self, more: i64 = 1) -> i64:
        """Add to it; what it is then."""
        self.lock.acquire()
        count = self.count + more
        self.count = count
        self.most = max(self.most, count)
        self.lock.release()
        return count

    @property
    def value(self) -> int:
        """What it is now."""
        return int(self.count)
