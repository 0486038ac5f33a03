"""A thread and a CPU of the virtual kernel, and the states that a thread is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from greenlet import greenlet

if TYPE_CHECKING:
    from mypy_extensions import i64

READY: Final = 0
"""Waits for a CPU [the ready queue]."""
ON_CPU: Final = 1
"""Has a CPU: runs, or is being switched in [its CPU]."""
BLOCKED: Final = 2
"""Waits for a wake-up or a timeout [whoever wakes it]."""
DEAD: Final = 3
"""Its body has returned."""

A_LOCK: Final = "a lock"
"""What a thread waits for that is in the middle of the runtime's code."""
A_SLEEP: Final = "its sleep"
"""The same of a thread that sleeps, as the monitor does between its rounds."""
MONITOR: Final = "monitor"
"""Name of the scheduler's monitor thread."""


class Thread:
    """A thread of the virtual kernel."""

    def __init__(self, tid: i64, name: str) -> None:
        self.tid: i64 = tid
        self.name = name
        self.state: i64 = READY
        self.stack: greenlet | None = None
        self.current: object = None
        """What ``current.get_current()`` is while the thread runs."""
        self.cpu: Cpu | None = None
        self.last_cpu: Cpu | None = None
        self.left_ns: i64 = 0
        """CPU time to use before its code goes on, when it is next on a CPU."""
        self.since_ns: i64 = 0
        """When it got its CPU."""
        self.cpu_ns: i64 = 0
        """CPU time used, up to ``since_ns``."""
        self.weight_ns: i64 = 0
        """The ready queue's order: CPU time used, but no less than the others' at its wake-up."""
        self.waits: i64 = 0
        """Counts its waits, so that a timer of an earlier one is known as such."""
        self.timed_out: bool = False
        self.waiting_for = ""
        self.locks: i64 = 0
        """Locks that it holds."""
        self.light: bool = name == MONITOR
        """It sleeps most of the time: a kernel that is fair lets it go first more often."""
        self.batch: bool = False
        """It takes a CPU that is free and no other (SCHED_BATCH)."""
        self.interruptible: bool = False
        """A signal ends its payment early."""
        self.in_program: bool = False
        """It computes for the program, and is not in the middle of the runtime's code."""
        self.cut_ns: i64 = 0
        """What a signal cut off from its payment."""
        self.signals: list[int] = []
        """Signals sent to it and not yet handled."""


class Cpu:
    """A virtual CPU; free where ``thread`` is None."""

    def __init__(self, id: i64) -> None:
        self.id: i64 = id
        self.thread: Thread | None = None
        self.epoch: i64 = 0
        """Counts what it was told to do, so that an end of something else is known as such."""
        self.until_ns: i64 = 0
        self.slice_start_ns: i64 = 0
        self.busy_ns: i64 = 0
        """Time for which it had a thread."""
