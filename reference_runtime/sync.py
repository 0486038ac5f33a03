"""A mutex and a wait group for goroutines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from reference_runtime.channels import Wait, end_timeout, start_timeout
from reference_runtime.gmp import PARK, STACK_PREEMPT
from reference_runtime.goroutines import getm
from reference_runtime.ready import ready
from reference_runtime.switch import SWITCH
from reference_runtime.syscalls import stop_if_asked

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["Mutex", "WaitGroup"]


class Mutex:
    """Mutual exclusion of goroutines; handed to the one that waited longest."""

    def __init__(self) -> None:
        self.locked: bool = False
        self.waiting: deque[Wait] = deque()

    async def lock(self, timeout_ns: int = -1) -> None:
        """Wait for the mutex, for ``timeout_ns`` at most (-1 for ever), and hold it.

        Raises:
            TimeoutError: it was not given up in time; the caller does not hold it.
        """
        m = getm()
        if m.curg.stackguard == STACK_PREEMPT:
            await stop_if_asked(m.sched, m)
            m = getm()
        sched = m.sched
        sched.wait_lock.acquire()
        if not self.locked:
            self.locked = True
            sched.wait_lock.release()
            return
        sched.wait_lock.release()
        # Made while the lock is free (see scheduler.py), so what was found out may be old.
        g = m.curg
        wait = Wait(g)
        sched.wait_lock.acquire()
        if not self.locked:
            self.locked = True
            sched.wait_lock.release()
            return
        self.waiting.append(wait)
        sched.wait_lock.release()
        timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
        g.wait_reason = "mutex lock"
        m.wants = PARK
        await SWITCH
        if timer is not None:
            end_timeout(sched, timer)
        if wait.timed_out:
            raise TimeoutError("mutex lock: it was not given up in time")

    def unlock(self) -> None:
        """Give it up.

        Raises:
            RuntimeError: nobody holds it.
        """
        m = getm()
        sched = m.sched
        heir: Wait | None = None
        sched.wait_lock.acquire()
        if not self.locked:
            sched.wait_lock.release()
            raise RuntimeError("unlock of an unlocked mutex")
        heir = self.take_heir()
        if heir is None:
            self.locked = False
        sched.wait_lock.release()
        if heir is not None:
            ready(sched, m, heir.g)

    def take_heir(self) -> Wait | None:
        """Who waited longest and has not given up. The wait lock is held."""
        while self.waiting:
            heir = self.waiting.popleft()
            if not heir.taken:
                heir.taken = True
                return heir
        return None


class WaitGroup:
    """Counts what is still to be done; goroutines that wait are woken at 0."""

    def __init__(self, count: int = 0) -> None:
        self.count: i64 = count
        self.waiting: list[Wait] = []

    def add(self, count: i64) -> None:
        """So much more to do.

        Raises:
            ValueError: more was done than there was.
        """
        m = getm()
        sched = m.sched
        woken: list[Wait] = []
        none: list[Wait] = []
        sched.wait_lock.acquire()
        if self.count + count < 0:
            sched.wait_lock.release()
            raise ValueError("a wait group's count fell below 0")
        self.count += count
        if self.count == 0:
            woken = self.waiting
            self.waiting = none
            for wait in woken:
                wait.ok = not wait.taken
                wait.taken = True
        sched.wait_lock.release()
        for wait in woken:
            if wait.ok:
                ready(sched, m, wait.g)

    def done(self) -> None:
        """One thing is done."""
        self.add(-1)

    async def wait(self, timeout_ns: int = -1) -> None:
        """Wait until everything is done, for ``timeout_ns`` at most (-1 for ever).

        Raises:
            TimeoutError: it was not done in time.
        """
        m = getm()
        if m.curg.stackguard == STACK_PREEMPT:
            await stop_if_asked(m.sched, m)
            m = getm()
        sched = m.sched
        sched.wait_lock.acquire()
        if self.count == 0:
            sched.wait_lock.release()
            return
        sched.wait_lock.release()
        g = m.curg
        wait = Wait(g)
        sched.wait_lock.acquire()
        if self.count == 0:
            sched.wait_lock.release()
            return
        self.waiting.append(wait)
        sched.wait_lock.release()
        timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
        g.wait_reason = "wait group"
        m.wants = PARK
        await SWITCH
        if timer is not None:
            end_timeout(sched, timer)
        if wait.timed_out:
            raise TimeoutError("wait group: it was not done in time")
