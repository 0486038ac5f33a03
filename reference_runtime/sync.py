"""A mutex and a wait group for goroutines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from reference_runtime.gmp import PARK, G
from reference_runtime.goroutines import getm
from reference_runtime.ready import ready
from reference_runtime.switch import SWITCH

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["Mutex", "WaitGroup"]


class Mutex:
    """Mutual exclusion of goroutines; handed to the one that waited longest."""

    def __init__(self) -> None:
        self.locked: bool = False
        self.waiting: deque[G] = deque()

    async def lock(self) -> None:
        """Wait for the mutex and hold it."""
        m = getm()
        sched = m.sched
        sched.wait_lock.acquire()
        if not self.locked:
            self.locked = True
            sched.wait_lock.release()
            return
        g = m.curg
        self.waiting.append(g)
        sched.wait_lock.release()
        g.wait_reason = "mutex lock"
        m.wants = PARK
        await SWITCH

    def unlock(self) -> None:
        """Give it up.

        Raises:
            RuntimeError: nobody holds it.
        """
        m = getm()
        sched = m.sched
        heir: G | None = None
        sched.wait_lock.acquire()
        if not self.locked:
            sched.wait_lock.release()
            raise RuntimeError("unlock of an unlocked mutex")
        if self.waiting:
            heir = self.waiting.popleft()
        else:
            self.locked = False
        sched.wait_lock.release()
        if heir is not None:
            ready(sched, m, heir)


class WaitGroup:
    """Counts what is still to be done; goroutines that wait are woken at 0."""

    def __init__(self, count: int = 0) -> None:
        self.count: i64 = count
        self.waiting: list[G] = []

    def add(self, count: i64) -> None:
        """So much more to do.

        Raises:
            ValueError: more was done than there was.
        """
        m = getm()
        sched = m.sched
        woken: list[G] = []
        none: list[G] = []
        sched.wait_lock.acquire()
        if self.count + count < 0:
            sched.wait_lock.release()
            raise ValueError("a wait group's count fell below 0")
        self.count += count
        if self.count == 0:
            woken = self.waiting
            self.waiting = none
        sched.wait_lock.release()
        for g in woken:
            ready(sched, m, g)

    def done(self) -> None:
        """One thing is done."""
        self.add(-1)

    async def wait(self) -> None:
        """Wait until everything is done."""
        m = getm()
        sched = m.sched
        sched.wait_lock.acquire()
        if self.count == 0:
            sched.wait_lock.release()
            return
        g = m.curg
        self.waiting.append(g)
        sched.wait_lock.release()
        g.wait_reason = "wait group"
        m.wants = PARK
        await SWITCH
