"""The handler of SIGURG on the simulated machine, as ``_preempt.c`` is on a real one.

A thread that computes in a kernel of the host is at a safe point, and stops. Any other thread is
not, and refuses when the signal comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from reference_runtime.gmp import NO_G, NO_P, G, M, P
from reference_runtime.host import Stopper
from reference_runtime.sim.gil import Gil
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import BLOCKED, Thread
from reference_runtime.transitions import (
    ACQUIREP,
    BY_SIGNAL,
    NO_REASON,
    NO_TID,
    NOT_RUNNING_G,
    NOT_WANTED,
    PREEMPT_REFUSED,
    PREEMPTED,
    RUN,
    UNSAFE_POINT,
    transition,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

A_P: Final = "a P, where a signal stopped it"
"""What a stopped thread waits for."""


class Slot:
    """What is asked of one M; see ``struct slot`` in ``_slot.h``."""

    def __init__(self, thread: Thread, m: M) -> None:
        self.thread = thread
        self.m = m
        self.p: P = NO_P
        self.g: G = NO_G
        self.runs_g: bool = False
        self.wanted: bool = False
        self.pending: bool = False
        self.stopped: bool = False
        self.go_on: bool = False


class SimStopper(Stopper):
    """Stops simulated threads.

    Args:
        machine: whose threads.
        slack_ns: tells how late the next timeout comes.
        gil: the interpreter's lock; a wait is without it.
    """

    def __init__(self, machine: Machine, slack_ns: Callable[[], int], gil: Gil) -> None:
        self.machine = machine
        self.slack_ns = slack_ns
        self.gil = gil
        self.slots: dict[int, Slot] = {}
        """By thread id, which is a slot's number too."""
        self.stops: i64 = 0
        self.waiters: list[Thread] = []
        self.stopped_count: i64 = 0
        self.not_wanted: i64 = 0
        self.unsafe_point: i64 = 0
        self.not_running_g: i64 = 0

    def end(self) -> tuple[int, int, int, int]:
        """As :meth:`Stopper.end`."""
        return (
            int(self.stopped_count),
            int(self.not_wanted),
            int(self.unsafe_point),
            int(self.not_running_g),
        )

    def thread_begins(self, m: object) -> i64:
        """As :meth:`Stopper.thread_begins`."""
        thread = self.machine.running
        self.slots[int(thread.tid)] = Slot(thread, cast("M", m))
        return thread.tid

    def thread_ends(self) -> None:
        """As :meth:`Stopper.thread_ends`."""
        del self.slots[int(self.machine.running.tid)]

    def runs_goroutines(self, slot: i64, yes: bool) -> None:
        """As :meth:`Stopper.runs_goroutines`."""
        self.slots[int(slot)].runs_g = yes

    def ask(self, slot: i64, tid: i64, p: object, g: object) -> bool:  # noqa: ARG002
        """As :meth:`Stopper.ask`."""
        asked = self.slots[int(slot)]
        if asked.stopped or asked.pending:
            return False
        asked.p = cast("P", p)
        asked.g = cast("G", g)
        asked.pending = True
        asked.wanted = True
        return True

    def withdraw(self, slot: i64) -> None:
        """As :meth:`Stopper.withdraw`."""
        asked = self.slots[int(slot)]
        asked.wanted = False
        asked.g = NO_G

    def stopped(self, slot: i64) -> bool:
        """As :meth:`Stopper.stopped`."""
        found = self.slots.get(int(slot))
        return found is not None and found.stopped

    def resume(self, slot: i64, p: object, g: object) -> None:
        """As :meth:`Stopper.resume`."""
        resumed = self.slots[int(slot)]
        resumed.p = cast("P", p)
        resumed.g = cast("G", g)
        resumed.stopped = False
        resumed.go_on = True
        self.machine.owe(self.machine.costs.wake_call_ns)
        if resumed.thread.state == BLOCKED:
            self.machine.wake(resumed.thread)

    def count(self) -> i64:
        """As :meth:`Stopper.count`."""
        return self.stops

    def announce(self) -> None:
        """As :meth:`Stopper.announce`."""
        self.stops += 1
        waiters = self.waiters
        self.waiters = []
        for thread in waiters:
            self.machine.wake(thread)

    def wait(self, seen: i64, ns: i64) -> None:
        """As :meth:`Stopper.wait`."""
        machine = self.machine
        self.gil.drop()
        machine.pay(machine.costs.syscall_ns)
        if self.stops == seen:
            thread = machine.running
            self.waiters.append(thread)
            machine.block("its sleep", ns + self.slack_ns())
            if thread in self.waiters:
                self.waiters.remove(thread)
        self.gil.take()
        # Whoever waits here is nearly always the monitor, between two rounds.
        machine.owe(machine.costs.round_ns)

    # The handler.

    def refused(self, thread: Thread, computes: bool) -> bool:
        """A signal meets a thread, which computes in a kernel or not; whether it goes on."""
        slot = self.slots.get(int(thread.tid))
        if slot is None:
            self.not_running_g += 1
            return True
        slot.pending = False
        if not slot.runs_g:
            self.not_running_g += 1
            reason = NOT_RUNNING_G
        elif not slot.wanted:
            self.not_wanted += 1
            reason = NOT_WANTED
        elif not computes:
            self.unsafe_point += 1
            reason = UNSAFE_POINT
        else:
            return False
        transition(PREEMPT_REFUSED, slot.m, slot.p, slot.g, reason, NO_TID)
        return True

    def signalled(self) -> None:
        """The running thread got the signal while it computed."""
        machine = self.machine
        thread = machine.running
        if self.refused(thread, True):
            return
        slot = self.slots[int(thread.tid)]
        slot.wanted = False
        transition(PREEMPTED, slot.m, slot.p, slot.g, BY_SIGNAL, NO_TID)
        self.stopped_count += 1
        slot.stopped = True
        self.announce()
        machine.pay(machine.costs.syscall_ns)
        while not slot.go_on:
            machine.block(A_P)
        slot.go_on = False
        transition(ACQUIREP, slot.m, slot.p, slot.g, NO_REASON, NO_TID)
        transition(RUN, slot.m, slot.p, slot.g, NO_REASON, NO_TID)
