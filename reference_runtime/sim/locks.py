"""Locks and notes in virtual time, on which the runtime's threads wait for each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime.host import FOR_EVER, Lock, Note
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import A_LOCK, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.sim.sim_host import SimHost

A_NOTE: Final = "its note"
"""What a parked thread waits for."""


class SimLock(Lock):
    """A lock in virtual time: a free one costs ``lock_ns``, a taken one blocks."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cost_ns: i64 = machine.costs.lock_ns
        self.owner: Thread | None = None
        self.waiters: list[Thread] = []

    def acquire(self) -> None:
        """As :meth:`Lock.acquire`.

        A thread that holds a lock already pays without losing its CPU (but by chaos): critical
        sections are a few field accesses, and a kernel that preempts there is rare.
        """
        machine = self.machine
        thread = machine.running
        if thread.locks:
            machine.owe(self.cost_ns)
        else:
            machine.spend(self.cost_ns)
        taken = self.owner is not None
        if taken:
            machine.pay(0)
        while self.owner is not None:
            self.waiters.append(thread)
            machine.block(A_LOCK)
        self.owner = thread
        thread.locks += 1

    def release(self) -> None:
        """As :meth:`Lock.release`."""
        thread = self.machine.running
        if self.owner is not thread:
            raise RuntimeError("a lock was released by a thread that does not hold it")
        self.owner = None
        thread.locks -= 1
        if self.waiters:
            self.machine.wake(self.waiters.pop(0))


class SimNote(Note):
    """A note in virtual time: sleeping and waking are futex calls."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self.machine = host.machine
        self.woken: bool = False
        self.sleeper: Thread | None = None

    def sleep(self) -> None:
        """As :meth:`Note.sleep`."""
        self.sleep_for(FOR_EVER)

    def sleep_for(self, ns: i64) -> bool:
        """As :meth:`Note.sleep_for`; timers of parked threads have the kernel's slack too."""
        machine = self.machine
        if not self.woken:
            self.host.gil.drop()
            machine.pay(self.host.syscall_ns)
            if not self.woken:
                if self.sleeper is not None:
                    raise RuntimeError("two threads sleep on one note")
                self.sleeper = machine.running
                machine.block(A_NOTE, ns if ns < 0 else ns + self.host.slack_ns())
                self.sleeper = None
            self.host.gil.take()
            machine.owe(self.host.costs.unpark_ns)
        woken = self.woken
        self.woken = False
        return woken

    def wakeup(self) -> None:
        """As :meth:`Note.wakeup`."""
        self.woken = True
        sleeps = self.sleeper is not None
        if sleeps:
            self.machine.owe(self.host.wake_ns)
        sleeper = self.sleeper
        if sleeper is not None:
            self.machine.wake(sleeper)
            self.machine.owe(self.host.costs.wake_rest_ns)
