"""What is to happen at a time: a sleeping goroutine, the end of a wait, a message of ``after``.

One heap serves all Ps. Go keeps a heap per P since 1.14, so that Ps do not fight for one lock.
Here the interpreter's lock serialises the heap anyway, and one heap needs no stealing of timers.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from reference_runtime.host import Lock

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M


class Timer:
    """One moment, at which ``g`` is readied, or ``fire`` is called by some M without a lock."""

    def __init__(self, when_ns: i64, g: G | None, fire: Callable[[M], None] | None) -> None:
        self.when_ns: i64 = when_ns
        self.g = g
        self.fire = fire
        self.live: bool = True
        """It has neither fired nor been cancelled."""


class Timers:
    """The timers of a run."""

    def __init__(self, lock: Lock) -> None:
        self.lock: Final = lock
        self.heap: Final[list[tuple[int, int, Timer]]] = []
        """Those that were cancelled stay until they are the first."""
        self.added = 0
        """Orders timers of one instant by their making, so that no two of them are compared."""
        self.count: i64 = 0
        """How many are live; read without the lock by those who only want to know of work."""

    def add(self, timer: Timer) -> bool:
        """Have a timer fire; whether it is now the first of all."""
        self.lock.acquire()
        self.added += 1
        added = self.added
        self.lock.release()
        # Any makes it an object before the lock: mypyc keeps a tuple that it knows in pieces.
        entry: Any = (int(timer.when_ns), added, timer)
        self.lock.acquire()
        heappush(self.heap, entry)
        self.count += 1
        first = self.heap[0][2] is timer
        self.lock.release()
        return first

    def cancel(self, timer: Timer) -> bool:
        """Have it not fire; False if it did already."""
        self.lock.acquire()
        live = timer.live
        if live:
            timer.live = False
            self.count -= 1
        self.lock.release()
        return live

    def next_ns(self) -> i64:
        """When the first timer is due; -1 where there is none."""
        when_ns: i64 = -1
        dead = self.pop_dead()
        while dead is not None:
            dead = self.pop_dead()
        self.lock.acquire()
        if self.heap:
            when_ns = self.heap[0][0]
        self.lock.release()
        return when_ns

    def pop_dead(self) -> Timer | None:
        """Take a first timer that was cancelled: what it holds is let go of without the lock."""
        timer: Timer | None = None
        self.lock.acquire()
        if self.heap and not self.heap[0][2].live:
            timer = heappop(self.heap)[2]
        self.lock.release()
        return timer

    def pop_due(self, now_ns: i64) -> Timer | None:
        """Take a timer whose time has come."""
        timer: Timer | None = None
        live = False
        while not live:
            # What a cancelled one holds is let go of here, without the lock.
            timer = None
            self.lock.acquire()
            if not self.heap or self.heap[0][0] > now_ns:
                self.lock.release()
                return None
            timer = heappop(self.heap)[2]
            live = timer.live
            if live:
                timer.live = False
                self.count -= 1
            self.lock.release()
        return timer
