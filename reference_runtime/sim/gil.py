"""The interpreter's lock: one thread at a time is in the runtime's code (CPython's GIL).

A runtime in Python has this lock, compiled by mypyc or not. A thread keeps it from one blocking
call to the next, and a thread that returns from such a call waits for it. Example: a thread is
given a P and wakes; it must wait if the thread that woke it is still on its way into its own
call.

Python's switch interval is left out, for two reasons: compiled code does not check whether another
thread waits, and what goroutines compute in a replay is native code without the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import Thread

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["Gil"]


A_GIL: Final = "the interpreter's lock"
"""What a thread waits for that needs the interpreter."""


class Gil:
    """The lock.

    Args:
        machine: whose threads.
        wanted: whether there is one; without, both methods do nothing.
    """

    def __init__(self, machine: Machine, wanted: bool) -> None:
        self.machine = machine
        self.wanted: bool = wanted
        self.wake_ns: i64 = machine.costs.wake_call_ns
        self.rest_ns: i64 = max(machine.costs.gil_signal_ns - machine.costs.wake_call_ns, 0)
        self.holder: Thread | None = None
        self.waiters: list[Thread] = []

    def take(self) -> None:
        """Wait for the lock and hold it. May switch."""
        machine = self.machine
        thread = machine.running
        if not self.wanted or thread is machine.main:
            return
        machine.pay(0)
        while self.holder is not None:
            self.waiters.append(thread)
            machine.block(A_GIL)
        self.holder = thread

    def drop(self) -> None:
        """Let it go, and wake the first who waits. Never switches."""
        machine = self.machine
        if not self.wanted or machine.running is not self.holder:
            return
        self.holder = None
        if self.waiters:
            machine.owe(self.wake_ns)
            machine.wake(self.waiters.pop(0))
            machine.owe(self.rest_ns)
