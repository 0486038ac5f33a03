"""Switches of the simulated kernel's threads, as a scheduler on top of it learns of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.host import SwitchWatch
from reference_runtime.sim.machine import BLOCKED, Machine, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64


class SimSwitchWatch(SwitchWatch):
    """The kernel wakes the one who waits at each switch-out that blocks.

    A perf event wakes its reader at other switches too, who then goes back to sleep; that is left
    out, and each switch of a machine that is watched costs what its record costs.

    Args:
        machine: whose threads.
        upcall: the kernel hands the CPU that the blocked thread leaves to the one who waits, at
            once, and makes no record (UMS).
        syscall_ns: price of the wait's system call.
    """

    def __init__(self, machine: Machine, upcall: bool, syscall_ns: i64) -> None:
        self.machine = machine
        self.upcall = upcall
        self.syscall_ns: i64 = syscall_ns
        self.numbers: dict[int, int] = {}
        self.told: list[int] = []
        self.broken = False
        self.waiter: Thread | None = None
        if not upcall:
            machine.switch_dearer_by(machine.costs.switch_record_ns)
        machine.on_switch_out.append(self.switched_out)

    def add(self, tid: i64, number: i64) -> None:
        """As :meth:`SwitchWatch.add`."""
        self.numbers[int(tid)] = int(number)

    def switched_out(self, tid: int, time_ns: int, blocked: bool) -> None:  # noqa: ARG002
        """Called by the kernel."""
        if not blocked or tid not in self.numbers:
            return
        self.told.append(tid)
        if self.waiter is not None:
            if self.upcall:
                self.machine.wake_here(self.waiter)
            else:
                self.machine.wake(self.waiter)

    def wait(self, timeout_ns: i64) -> list[int]:
        """As :meth:`SwitchWatch.wait`: only of threads that are still blocked."""
        machine = self.machine
        machine.pay(self.syscall_ns)
        if not self.told and not self.broken:
            self.waiter = machine.running
            machine.block("switches of threads", timeout_ns)
            self.waiter = None
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
