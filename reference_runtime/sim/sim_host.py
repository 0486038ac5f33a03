"""A host whose CPUs, threads, files and clock are simulated.

The scheduler cannot tell it from the real one: it calls the same methods. What a call costs is in
:class:`~reference_runtime.sim.costs.Costs`; who runs when is in
:class:`~reference_runtime.sim.machine.Machine`. Nothing here asks the real machine for anything,
so a run depends on its arguments and seed alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from reference_runtime.host import (
    Host,
    Lock,
    Note,
    Stopper,
    SwitchWatch,
)
from reference_runtime.polldesc import PollWaiter
from reference_runtime.sim.costs import Chaos, Costs
from reference_runtime.sim.descriptors import Descriptors
from reference_runtime.sim.files import Event, File
from reference_runtime.sim.gil import Gil
from reference_runtime.sim.locks import SimLock, SimNote
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.sim_stopper import SimStopper
from reference_runtime.sim.switches import SimBlockWatch, SimSwitchWatch
from reference_runtime.sim.threads import A_SLEEP, BLOCKED, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64

LOOP_NS: Final = 50_000
"""An endless loop's time goes on in such steps."""


class SimHost(Host):
    """A simulated machine with one program on it.

    Args:
        cpus: virtual CPUs.
        costs: what the machine charges.
        seed: of all chance; the same arguments give the same run.
        chaos: how the run is disturbed, for tests.
        max_events: bound on the events of a run, for tests; 0 for none.
        max_ns: bound on its virtual time, likewise.
    """

    def __init__(
        self,
        cpus: int = 2,
        costs: Costs | None = None,
        seed: int = 0,
        chaos: Chaos | None = None,
        max_events: int = 0,
        max_ns: int = 0,
    ) -> None:
        self.machine = Machine(cpus, costs, seed, chaos, max_events, max_ns)
        self.costs = self.machine.costs
        self.syscall_ns: i64 = int(self.costs.syscall_ns * self.costs.syscall_scale)
        self.wake_ns: i64 = self.costs.wake_call_ns
        self.gil = Gil(self.machine, self.costs.gil)
        self.slacks: Final = [int(ns) for ns in self.costs.timer_spread_ns]
        self.clock_ns: i64 = self.costs.clock_ns
        self.on_signal: Callable[[int], None] | None = None
        """Another signal handler of the program: called on the thread that got the signal."""
        self.stopper: SimStopper | None = None
        self.loops_over: bool = False
        self.descriptors = Descriptors(self.machine, self.gil, self.syscall_ns, self.slack_ns)

    # Time and chance.

    def nanotime(self) -> i64:
        """As :meth:`Host.nanotime`; the machine begins at ``machine.BEGIN_NS``."""
        self.machine.owe(self.clock_ns)
        return self.machine.clock()

    def random(self, n: i64) -> i64:
        """As :meth:`Host.random`."""
        return self.machine.random(n)

    # Threads.

    def new_lock(self) -> Lock:
        """As :meth:`Host.new_lock`."""
        return SimLock(self.machine)

    def new_note(self) -> Note:
        """As :meth:`Host.new_note`."""
        return SimNote(self)

    def start_thread(self, body: Callable[[], None], name: str) -> None:
        """As :meth:`Host.start_thread`."""
        self.machine.owe(self.wake_ns)
        self.machine.start(self._with_gil(body) if self.gil.wanted else body, name)

    def thread_id(self) -> i64:
        """As :meth:`Host.thread_id`."""
        return self.machine.running.tid

    def thread_cpu_ns(self) -> i64:
        """As :meth:`Host.thread_cpu_ns`."""
        return self.machine.cpu_ns(self.machine.running)

    def thread_blocked(self, tid: i64) -> bool:
        """As :meth:`Host.thread_blocked`."""
        if self.gil.wanted:
            self.gil.drop()
            self.machine.pay(self.costs.thread_state_ns)
            self.gil.take()
        else:
            self.machine.owe(self.costs.thread_state_ns)
        thread = self.machine.threads.get(int(tid))
        return thread is not None and thread.state == BLOCKED

    def blocked_on(self, tid: i64, fd: int) -> bool:
        """As :meth:`Host.blocked_on`, at the price of a look at a thread's state."""
        self.machine.owe(self.costs.thread_state_ns)
        thread = self.machine.threads.get(int(tid))
        return thread is not None and self.descriptors.blocked_on(thread, fd)

    def watch_switches(self, upcall: bool) -> SwitchWatch:
        """As :meth:`Host.watch_switches`; this kernel has upcalls."""
        return SimSwitchWatch(self.machine, upcall, self.syscall_ns, self.gil)

    def watch_blocks(self) -> SwitchWatch:
        """As :meth:`Host.watch_blocks`."""
        return SimBlockWatch(self.machine, True, self.syscall_ns, self.gil)

    def new_stopper(self) -> Stopper | None:
        """As :meth:`Host.new_stopper`."""
        self.stopper = SimStopper(self.machine, self.slack_ns, self.gil)
        return self.stopper

    def tgkill(self, tid: i64, signo: i64) -> None:
        """As :meth:`Host.tgkill`; a thread that is gone is no error."""
        self.machine.owe(self.costs.tgkill_ns)
        thread = self.machine.threads.get(int(tid))
        if thread is None:
            return
        stopper = self.stopper
        if stopper is not None and not thread.interruptible and not thread.signals:
            stopper.refused(thread, False)
        else:
            self.machine.interrupt(thread, signo)

    def let_others_run(self) -> None:
        """As :meth:`Host.let_others_run`."""
        self.machine.spend(self.costs.turn_ns)
        self.gil.drop()
        self.gil.take()

    def usleep(self, ns: i64) -> None:
        """As :meth:`Host.usleep`; the monitor's round is paid for where it begins."""
        self.gil.drop()
        self.machine.pay(self.syscall_ns)
        self.machine.block(A_SLEEP, ns + self.slack_ns())
        self.gil.take()
        self.machine.owe(self.costs.round_ns)

    def close(self) -> None:
        """End the threads that are left."""
        self.machine.close()

    # System calls.

    def call(self, cpu_ns: i64, block_ns: i64, after_ns: i64 = 0) -> None:
        """Some system call: it works for ``cpu_ns``, and blocks for ``block_ns`` unless -1.

        After that it works for ``after_ns``. What a replay makes of a call that it knows only by
        its times.
        """
        thread = self.machine.running
        self.gil.drop()
        thread.in_program = True
        self.machine.pay(self.syscall_ns + cpu_ns)
        if block_ns >= 0:
            self.machine.block("a system call", block_ns)
        if after_ns:
            self.machine.pay(after_ns)
        thread.in_program = False
        self.gil.take()

    def call_until(self, cpu_ns: i64, event: Event, after_ns: i64 = 0) -> None:
        """Some system call that blocks until the event has happened."""
        machine = self.machine
        thread = machine.running
        self.gil.drop()
        thread.in_program = True
        machine.pay(self.syscall_ns + cpu_ns)
        while not event.happened:
            event.waiters.append(thread)
            machine.block("an event")
        if after_ns:
            machine.pay(after_ns)
        thread.in_program = False
        self.gil.take()

    def fire(self, event: Event) -> None:
        """The event happens: calls that block for it go on."""
        event.happened = True
        for thread in event.waiters:
            self.machine.wake(thread)
        event.waiters.clear()

    def read(self, fd: int, count: int) -> bytes:
        """As :meth:`Host.read`."""
        return self.descriptors.read(fd, count)

    def write(self, fd: int, data: bytes) -> int:
        """As :meth:`Host.write`."""
        return self.descriptors.write(fd, data)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """As :meth:`Host.pread`; the content of a simulated file is zeros."""
        file = self.descriptors.file(fd)
        if file.block_ns < 0 or offset < 0:
            raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
        self.call(0, file.block_ns or -1)
        return bytes(count)

    def poll(self, fd: int, events: int, timeout_ns: int) -> int:
        """As :meth:`Host.poll`."""
        return self.descriptors.poll(fd, events, timeout_ns)

    def nanosleep(self, ns: int) -> None:
        """As :meth:`Host.nanosleep`."""
        self.usleep(ns)

    def pipe(self) -> tuple[int, int]:
        """As :meth:`Host.pipe`."""
        return self.descriptors.pipe()

    def socket_pair(self) -> tuple[int, int]:
        """socketpair(2): two connected stream sockets."""
        return self.descriptors.socket_pair()

    def tcp_pair(self) -> tuple[int, int]:
        """As :meth:`Host.tcp_pair`: what a loopback adds to a socket pair is left out."""
        one, other = self.socket_pair()
        self.set_blocking(one, False)
        self.set_blocking(other, False)
        return one, other

    def open_file(self, block_ns: int) -> int:
        """A regular file whose pread waits ``block_ns`` for its device; 0 for one in memory."""
        return self.descriptors.open(File(None, None, block_ns))

    def set_blocking(self, fd: int, blocking: bool) -> None:
        """As ``os.set_blocking``."""
        self.descriptors.set_blocking(fd, blocking)

    def close_fd(self, fd: int) -> None:
        """As :meth:`Host.close_fd`."""
        self.descriptors.close_fd(fd)

    def spin_ns(self, ns: int) -> None:
        """As :meth:`Host.spin_ns`. A signal that comes meanwhile is handled where it stands."""
        machine = self.machine
        thread = machine.running
        left: i64 = ns
        self.gil.drop()
        while left > 0:
            self._handle_signals(thread)
            left = machine.compute(left)
        self._handle_signals(thread)
        self.gil.take()

    def endless_loop(self, nosplit: bool) -> None:
        """As :meth:`Host.endless_loop`; it looks for its end every ``LOOP_NS``."""
        thread = self.machine.running
        while not self.loops_over:
            if nosplit:
                self.gil.drop()
                thread.in_program = True
                self.machine.pay(LOOP_NS)
                thread.in_program = False
                self.gil.take()
            else:
                self.spin_ns(LOOP_NS)

    def end_loops(self, over: bool) -> None:
        """As :meth:`Host.end_loops`."""
        self.loops_over = over

    # The network poller.

    def netpoll_arm(self, fd: int, event: int, waiter: PollWaiter) -> None:
        """As :meth:`Host.netpoll_arm`."""
        self.descriptors.netpoll_arm(fd, event, waiter)

    def netpoll_disarm(self, fd: int, waiter: PollWaiter) -> bool:
        """As :meth:`Host.netpoll_disarm`."""
        return self.descriptors.netpoll_disarm(fd, waiter)

    def netpoll(self, delay_ns: i64) -> list[PollWaiter]:
        """As :meth:`Host.netpoll`."""
        return self.descriptors.netpoll(delay_ns)

    def netpoll_break(self) -> None:
        """As :meth:`Host.netpoll_break`."""
        self.descriptors.netpoll_break()

    # What the calls above share.

    def _handle_signals(self, thread: Thread) -> None:
        """Signals that came while the thread computed."""
        while thread.signals:
            signo = thread.signals.pop(0)
            if self.stopper is not None:
                self.stopper.signalled()
            elif self.on_signal is not None:
                self.on_signal(signo)

    def slack_ns(self) -> i64:
        """How late the next timer fires."""
        if not self.slacks:
            return self.costs.timer_slack_ns
        return self.slacks[self.machine.random(len(self.slacks))]

    def _with_gil(self, body: Callable[[], None]) -> Callable[[], None]:
        def live() -> None:
            self.gil.take()
            body()
            self.gil.drop()

        return live
