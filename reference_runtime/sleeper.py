"""Wait for one of several sources, as netstack's package sleep does it.

Example: a connection's goroutine waits for data, for room and for a timer, and is told which.

    >>> sleeper = Sleeper()
    >>> data, timer = Waker(), Waker()
    >>> sleeper.add(data)
    >>> sleeper.add(timer)
    >>> data.wake()                    # by whoever has data, on any goroutine
    >>> await sleeper.fetch() is data
    True

A channel of each source and a ``select`` would do as well. That takes an object for each source
at every wait, and queues and leaves as many queues. Here the sources are put together once, and
to wait costs the same for 2 sources as for 200.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from reference_runtime.channels import Wait, end_timeout, start_timeout
from reference_runtime.gmp import PARK, STACK_PREEMPT
from reference_runtime.goroutines import getm
from reference_runtime.ready import ready
from reference_runtime.switch import SWITCH
from reference_runtime.syscalls import stop_if_asked

__all__ = ["Sleeper", "Waker"]


class Waker:
    """One source. It is asserted or not; a second assertion before it is fetched is the first."""

    def __init__(self) -> None:
        self.asserted = False
        self.sleeper: Sleeper | None = None

    def wake(self) -> None:
        """It has happened: wake the sleeper, if it waits (Go: Waker.Assert)."""
        m = getm()
        sched = m.sched
        woken: Wait | None = None
        sched.wait_lock.acquire()
        sleeper = self.sleeper
        if not self.asserted:
            self.asserted = True
            if sleeper is not None:
                sleeper.happened.append(self)
                woken = sleeper.take_wait()
        sched.wait_lock.release()
        if woken is not None:
            ready(sched, m, woken.g)

    def clear(self) -> bool:
        """It has not happened after all; whether it had (Go: Waker.Clear)."""
        sched = getm().sched
        sched.wait_lock.acquire()
        had = self.asserted
        self.asserted = False
        if had and self.sleeper is not None:
            self.sleeper.happened.remove(self)
        sched.wait_lock.release()
        return had


class Sleeper:
    """What one goroutine waits for: any of its wakers (Go: sleep.Sleeper)."""

    def __init__(self) -> None:
        self.happened: Final[deque[Waker]] = deque()
        """The wakers that were asserted and not fetched, by when that was."""
        self.wakers: list[Waker] = []
        self.wait: Wait | None = None

    def add(self, waker: Waker) -> None:
        """Wait for this one too; if it has been asserted already, ``fetch`` gives it at once.

        Raises:
            ValueError: another sleeper waits for it, or this one does already.
        """
        sched = getm().sched
        sched.wait_lock.acquire()
        free = waker.sleeper is None
        if free:
            waker.sleeper = self
            self.wakers.append(waker)
            if waker.asserted:
                self.happened.append(waker)
        sched.wait_lock.release()
        if not free:
            raise ValueError("this waker has a sleeper already")

    async def fetch(self, timeout_ns: int = -1) -> Waker:
        """The waker that was asserted first; waits for one, for ``timeout_ns`` at most.

        It is not asserted any more then. With a ``timeout_ns`` of 0 it does not wait.

        Raises:
            TimeoutError: none was asserted in time.
            RuntimeError: another goroutine waits with this sleeper.
        """
        while True:
            m = getm()
            if m.curg.stackguard == STACK_PREEMPT:
                await stop_if_asked(m.sched, m)
                m = getm()
            sched = m.sched
            wait = Wait(m.curg)
            sched.wait_lock.acquire()
            waker = self.happened.popleft() if self.happened else None
            if waker is not None:
                waker.asserted = False
            taken = waker is None and self.wait is not None
            if waker is None and not taken and timeout_ns != 0:
                self.wait = wait
            sched.wait_lock.release()
            if waker is not None:
                return waker
            if taken:
                raise RuntimeError("another goroutine waits with this sleeper")
            if timeout_ns == 0:
                raise TimeoutError("no waker was asserted")
            timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
            m.curg.wait_reason = "sleeper"
            m.wants = PARK
            await SWITCH
            if timer is not None:
                end_timeout(sched, timer)
            if wait.timed_out:
                timeout_ns = 0
                self.leave(wait)

    def done(self) -> None:
        """Wait for none of them any more; each may be added to another sleeper."""
        sched = getm().sched
        sched.wait_lock.acquire()
        for waker in self.wakers:
            waker.sleeper = None
        self.happened.clear()
        sched.wait_lock.release()
        self.wakers = []

    def take_wait(self) -> Wait | None:
        """Who waits, if nobody else wakes it; the wait lock is held."""
        wait = self.wait
        if wait is None or wait.taken:
            return None
        wait.taken = True
        self.wait = None
        return wait

    def leave(self, wait: Wait) -> None:
        """Its time is over: it waits no more."""
        sched = getm().sched
        sched.wait_lock.acquire()
        if self.wait is wait:
            self.wait = None
        sched.wait_lock.release()
