"""Switches of this machine's threads, as the kernel tells them.

By a perf event for each thread, and one reader for all (``sched_out``), or by a program in the
kernel that wakes the one who waits (``upcall``).

Up to ``kernel.perf_event_paranoid`` 2 the events need no privilege, since the process watches
its own threads. ``tracer/kernel/perf_events.py`` explains how they work, and why they need a
watermark.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, Final

from reference_runtime.host import SwitchWatch
from reference_runtime.locks import new_lock
from tracer.errors import PretakeError
from tracer.kernel.perf_events import SwitchEvent

if TYPE_CHECKING:
    from mypy_extensions import i64

try:
    from reference_runtime import _switches

    NATIVE = True
except ImportError:  # not built
    NATIVE = False


class PerfSwitchWatch(SwitchWatch):
    """An epoll over the perf events of all threads, and an eventfd that breaks the wait.

    Raises:
        PretakeError: perf events are forbidden here; found out on the thread that asks.
    """

    def __init__(self) -> None:
        # One event that nobody reads tells now, on the caller's thread, whether they are allowed.
        SwitchEvent(0).close()
        self.epoll = select.epoll()
        self.epoll_fd = self.epoll.fileno()
        self.break_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events: dict[int, tuple[int, SwitchEvent]] = {}
        self.rings: list[object] = []
        self.polite: bool = False
        if NATIVE:
            _switches.add_break(self.epoll_fd, self.break_fd)
        else:
            self.epoll.register(self.break_fd, select.EPOLLIN)

    def add(self, tid: i64, number: i64) -> None:
        """One page holds some hundred switches; one that is lost is found by the net."""
        event = SwitchEvent(int(tid))
        self.events[event.fileno()] = (int(number), event)
        if NATIVE:
            ring = _switches.add(self.epoll_fd, event.fileno(), event.map, int(number))
            self.rings.append(ring)
        else:
            self.epoll.register(event.fileno(), select.EPOLLIN)

    def wait(self, timeout_ns: i64) -> list[int]:
        """Without the GIL, until a thread has blocked, where the C module is built.

        The reader must not preempt those whom it watches: a preemption is two switches more, of
        which each would wake it again, and the two would chase each other (measured: a quarter of
        a CPU, and short calls at a third of their speed). As a batch thread it takes an idle CPU
        at once, such as the one that a blocked thread has just left, and no other.
        """
        if not self.polite:
            self.polite = True
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if NATIVE:
            return _switches.wait_blocked(self.epoll_fd, timeout_ns)
        blocked: list[int] = []
        for fd, _ in self.epoll.poll(int(timeout_ns) / 1e9):
            if fd != self.break_fd:
                number, event = self.events[fd]
                if event.is_blocked():
                    blocked.append(number)
        return blocked

    def break_wait(self) -> None:
        """For good: the eventfd stays readable."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self.break_fd, 1)

    def close(self) -> None:
        """Close the events; a second call does nothing."""
        for ring in self.rings:
            _switches.remove(ring)
        self.rings.clear()
        for _, event in self.events.values():
            event.close()
        self.events.clear()
        if self.break_fd >= 0:
            self.epoll.close()
            os.close(self.break_fd)
            self.break_fd = -1


class SignalSwitchWatch(SwitchWatch):
    """A program in the kernel sends a signal to the thread that waits, at each block in a call.

    One thread waits at a time. A block while nobody does is told by the next wait, as long as the
    thread is still blocked then.

    Raises:
        PretakeError: this machine or this user cannot have the program.
    """

    def __init__(self) -> None:
        if not NATIVE:
            raise PretakeError("policy upcall needs the C module", "build it, or use sched_out")
        # Not at the head: it takes the BPF loader, which no other policy needs.
        from tracer.kernel.upcall import THREADS_MOST, Upcalls

        self.most = THREADS_MOST
        self.upcalls = Upcalls(int(signal.SIGRTMIN) + 7)
        self.state = self.upcalls.state
        self.lock: Final = new_lock()
        self.threads: int = 0

    def add(self, tid: i64, number: i64) -> None:
        """One beyond the kernel's table is found by the net."""
        if number < self.most:
            self.lock.acquire()
            self.threads = max(self.threads, int(number) + 1)
            self.lock.release()
            self.upcalls.add(int(tid), int(number))

    def wait(self, timeout_ns: i64) -> list[int]:
        """Without the GIL; only of threads that are still blocked, in calls that are no locks."""
        return _switches.wait_upcall(self.state, self.threads, timeout_ns)

    def break_wait(self) -> None:
        """For good: the shared memory says so."""
        _switches.break_upcall(self.state)

    def close(self) -> None:
        """Take the program out of the kernel."""
        self.upcalls.close()
