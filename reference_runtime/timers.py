"""Sleeping goroutines, in one heap for all Ps.

Go keeps a heap per P since 1.14, so that Ps do not fight for one lock. Here the interpreter's
lock serialises the heap anyway, and one heap needs no stealing of timers.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from reference_runtime.host import Lock

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G


class Timers:
    """When which G is to be readied."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self.heap: list[tuple[int, int, G]] = []
        self.added = 0
        """Orders timers of one instant by their making, so that no two Gs are compared."""
        self.count: i64 = 0
        """Length of the heap; read without the lock by those who only want to know of work."""

    def add(self, when_ns: i64, g: G) -> bool:
        """Ready ``g`` at ``when_ns``; whether that is now the first of all timers."""
        self.lock.acquire()
        self.added += 1
        added = self.added
        self.lock.release()
        entry = (int(when_ns), added, g)
        self.lock.acquire()
        heappush(self.heap, entry)
        self.count += 1
        first = self.heap[0][2] is g
        self.lock.release()
        return first

    def next_ns(self) -> i64:
        """When the first timer is due; -1 where there is none."""
        self.lock.acquire()
        when_ns: i64 = self.heap[0][0] if self.heap else -1
        self.lock.release()
        return when_ns

    def pop_due(self, now_ns: i64) -> G | None:
        """Take a G whose time has come."""
        g: G | None = None
        self.lock.acquire()
        if self.heap and self.heap[0][0] <= now_ns:
            g = heappop(self.heap)[2]
            self.count -= 1
        self.lock.release()
        return g
