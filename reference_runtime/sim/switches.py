"""How a scheduler on the simulated kernel learns of the switches of its threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime.host import SwitchWatch
from reference_runtime.sim.gil import A_GIL, Gil
from reference_runtime.sim.locks import A_NOTE
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import A_LOCK, BLOCKED, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64


LOCKS: Final = (A_LOCK, A_NOTE, A_GIL)
"""What a thread waits for outside of the program's calls."""


class SimSwitchWatch(SwitchWatch):
    """The kernel wakes the one who waits at each switch of a watched thread.

    At each, in and out: a perf event does not know which of them its reader wants. Who waits
    looks whether a thread blocked, and goes back to sleep if none did; so a switch costs the
    thread its record and a wake-up. An upcall comes at blocks only.

    Args:
        machine: whose threads.
        upcall: the kernel hands the CPU that the blocked thread leaves to the one who waits, at
            once, and makes no record (UMS).
        syscall_ns: price of the wait's system call.
        gil: the interpreter's lock; the wait is without it.
    """

    def __init__(self, machine: Machine, upcall: bool, syscall_ns: i64, gil: Gil) -> None:
        self.machine = machine
        self.gil = gil
        self.upcall = upcall
        self.syscall_ns: i64 = syscall_ns
        self.numbers: dict[int, int] = {}
        self.told: list[int] = []
        self.broken = False
        self.waiter: Thread | None = None
        if not upcall:
            machine.on_switch_in.append(self.switched_in)
        machine.on_switch_out.append(self.switched_out)

    def add(self, tid: i64, number: i64) -> None:
        """As :meth:`SwitchWatch.add`."""
        self.numbers[int(tid)] = int(number)

    def switched_in(self, tid: int, time_ns: int) -> int:
        """Called by the kernel; what the record costs the thread."""
        if tid not in self.numbers:
            return 0
        costs = self.machine.costs
        if self.waiter is None:
            return costs.switch_record_ns
        self.machine.call_at(time_ns, self.tell)
        return costs.switch_record_ns + costs.wake_call_ns

    def tell(self) -> None:
        """Wake who waits, if anybody still does."""
        if self.waiter is not None:
            self.machine.wake(self.waiter)

    def switched_out(self, tid: int, time_ns: int, blocked: bool) -> None:  # noqa: ARG002
        """Called by the kernel."""
        if tid not in self.numbers or (self.upcall and not blocked):
            return
        if blocked:
            self.told.append(tid)
        if self.waiter is not None:
            if self.upcall:
                self.machine.wake_here(self.waiter)
            else:
                self.machine.wake(self.waiter)

    def wait(self, timeout_ns: i64) -> list[int]:
        """As :meth:`SwitchWatch.wait`: only of threads that are still blocked."""
        machine = self.machine
        # As on a real machine, where it would else chase those whom it watches.
        machine.running.batch = not self.upcall
        self.gil.drop()
        machine.pay(self.syscall_ns)
        until_ns: i64 = machine.clock() + timeout_ns
        while not self.told and not self.broken and machine.clock() < until_ns:
            self.waiter = machine.running
            machine.block("switches of threads", until_ns - machine.clock())
            self.waiter = None
            # Out of the wait, and a look at the record.
            machine.pay(machine.costs.unpark_ns + self.syscall_ns)
        self.gil.take()
        machine.owe(machine.costs.round_ns)
        blocked: list[int] = []
        for tid in self.told:
            thread = machine.threads.get(tid)
            if thread is not None and thread.state == BLOCKED:
                blocked.append(self.numbers[tid])
        self.told.clear()
        return blocked

    def break_wait(self) -> None:
        """As :meth:`SwitchWatch.break_wait`."""
        self.broken = True
        if self.waiter is not None:
            self.machine.wake(self.waiter)

    def close(self) -> None:
        """As :meth:`SwitchWatch.close`."""
        if self.switched_out in self.machine.on_switch_out:
            self.machine.on_switch_out.remove(self.switched_out)


class SimBlockWatch(SimSwitchWatch):
    """A program at the kernel's switches wakes who waits, by a signal, at blocks in calls only.

    As on a real machine it knows the waits for locks, which are no calls of the program, and the
    one who waits for it; and who waits is woken like any thread (:meth:`Machine.wake`).
    """

    def switched_out(self, tid: int, time_ns: int, blocked: bool) -> None:  # noqa: ARG002
        """Called by the kernel."""
        thread = self.machine.threads.get(tid)
        if not blocked or thread is None or tid not in self.numbers or thread is self.waiter:
            return
        if thread.waiting_for in LOCKS:
            return
        self.told.append(tid)
        if self.waiter is not None:
            self.machine.wake(self.waiter)
