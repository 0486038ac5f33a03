"""Virtual CPUs and virtual time: the kernel that the simulated host stands on.

Each thread is a greenlet, so that its code can stop anywhere below a call of the host. Time
moves only when a thread pays for something. Example: a system call costs 200 ns;
:meth:`Machine.pay` lets the thread use its CPU for 200 ns, and if another event is due before
that, the thread's greenlet yields. Between two payments a thread runs alone, and no time passes.
Later events are in one heap, ordered by time and then by their creation; so the same seed gives
the same run.

Rejected: OS threads that pass a baton (15 µs a switch instead of 0.3, and a stuck one cannot be
ended); generators (every function on the way to a host call would have to be one, so it could
not be the very same scheduler); a thread's own event loop in a hub greenlet (two switches each
time instead of one).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from typing import TYPE_CHECKING, Final

from greenlet import GreenletExit, greenlet

from reference_runtime.current import get_current, set_current
from reference_runtime.sim.costs import Chaos, Costs
from reference_runtime.sim.cpus import (
    AT_BACK,
    AT_CALL,
    AT_DONE,
    AT_MAIN,
    AT_PREEMPT,
    AT_TICK,
    AT_TIMEOUT,
    BEGIN_NS,
    NEVER,
    Cpus,
)
from reference_runtime.sim.errors import DeadlockError, LivelockError
from reference_runtime.sim.threads import A_LOCK, BLOCKED, DEAD, ON_CPU, READY, Cpu, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64


class Machine(Cpus):
    """The virtual kernel.

    Args:
        cpus: how many CPUs it has.
        costs: what things cost.
        seed: of all chance in the run.
        chaos: how the run is disturbed.
        max_events: after so many events the run ends with :class:`LivelockError`; 0 for no bound.
        max_ns: after so much virtual time likewise.
    """

    def __init__(
        self,
        cpus: int,
        costs: Costs | None = None,
        seed: int = 0,
        chaos: Chaos | None = None,
        max_events: int = 0,
        max_ns: int = 0,
    ) -> None:
        super().__init__(cpus, costs or Costs(), seed, chaos or Chaos())
        self.events: i64 = 0
        """Events so far: ends of payments, timers, wake-ups, ticks."""
        self.max_events: i64 = max_events
        self.threads: Final[dict[int, Thread]] = {int(self.main.tid): self.main}
        self.on_step: Callable[[], None] | None = None
        """Called before each payment and each wait, on the thread; must not call the host."""
        self.on_wake: list[Callable[[int, int], None]] = []
        """Called with (tid, time) where a blocked thread is made ready, by the kernel: they may
        wake a thread and nothing else."""
        self.quantum_ns: i64 = self.costs.quantum_ns
        self._one_in: i64 = self.chaos.one_in
        self._anywhere: bool = self.chaos.anywhere
        self._closing: bool = False
        self._failure: BaseException | None = None
        if max_ns:
            self.call_at(BEGIN_NS + max_ns, self._too_long)

    # What threads ask of the kernel.

    def start(self, body: Callable[[], None], name: str) -> Thread:
        """A new thread that runs ``body``. Never switches."""
        thread = Thread(self._next_tid(), name)
        self.threads[int(thread.tid)] = thread
        thread.stack = greenlet(lambda: self._live(thread, body), self.main.stack)
        thread.left_ns = self.costs.thread_start_ns
        thread.weight_ns = self._floor_ns
        self._note("start", thread)
        thread.batch = True  # until it runs: a new thread takes no CPU from another
        self._make_ready(thread, False)
        thread.batch = False
        return thread

    def owe(self, ns: i64) -> None:
        """Use the CPU for ``ns``, to be paid at the next payment. Never switches, but by chaos."""
        if self.running is not self.main:
            self.owed_ns += ns
            if self._anywhere and self._one_in:
                self.pay(0)

    def spend(self, ns: i64) -> None:
        """Use the CPU for ``ns``; may run ahead of other threads by the quantum. May switch."""
        if (
            self._one_in == 0
            and self.on_step is None
            and self.now_ns + self.owed_ns + ns <= self._horizon_ns + self.quantum_ns
        ):
            if self.running is not self.main:
                self.owed_ns += ns
        else:
            self.pay(ns)

    def pay(self, ns: i64) -> None:
        """Use the CPU for ``ns`` and for what is owed; others have their turn. May switch."""
        thread = self.running
        if self._closing:
            raise GreenletExit
        if self.on_step is not None:
            self.on_step()
        if thread is self.main:
            return
        ns += self.owed_ns
        self.owed_ns = 0
        if self._jitter:
            ns += ns * self.random(self._jitter + 1) // 100
        if self._one_in and self.random(self._one_in) == 0 and self._may_send_away(thread):
            self._send_away(thread, ns)
        elif self.now_ns + ns < self._horizon_ns:
            self.now_ns += ns
        else:
            cpu = thread.cpu
            assert cpu is not None
            self._occupy(cpu, ns)
            self._run_others(thread)

    def compute(self, ns: i64) -> i64:
        """Use the CPU for ``ns``, or until a signal comes; what is left to use. May switch."""
        thread = self.running
        thread.cut_ns = 0
        thread.interruptible = not thread.signals
        thread.in_program = True
        self.pay(ns)
        thread.in_program = False
        thread.interruptible = False
        # Jitter made the payment longer, but never makes what is left longer than it was.
        return min(thread.cut_ns, ns)

    def block(self, what: str, timeout_ns: i64 = -1) -> bool:
        """Give up the CPU until :meth:`wake`, or for ``timeout_ns``; whether it was woken.

        Nothing may be owed: the caller paid, then saw that it has to wait. May switch.
        """
        thread = self.running
        if self._closing:
            raise GreenletExit
        assert self.owed_ns == 0
        # What waits for a lock may hold another: that is how long it holds the first.
        if thread.locks and what != A_LOCK:
            raise RuntimeError(f"a thread waits for {what} and holds a lock")
        thread.waiting_for = what
        thread.timed_out = False
        thread.waits += 1
        thread.state = BLOCKED
        if self.on_step is not None:
            try:
                self.on_step()
            except BaseException:
                thread.state = ON_CPU
                raise
        if timeout_ns >= 0:
            self._push(self.now_ns + timeout_ns, AT_TIMEOUT, thread, thread.waits)
        if thread is not self.main:
            self._leave_cpu(thread, True)
        self._run_others(thread)
        thread.waiting_for = ""
        return not thread.timed_out

    def wake(self, thread: Thread) -> None:
        """Make a blocked thread ready; does nothing to others. Never switches."""
        self._wake(thread, False)

    def _wake(self, thread: Thread, by_timer: bool) -> None:
        if thread.state != BLOCKED:
            return
        self.events += 1
        self.scheduled += 1
        self._note("wake", thread)
        if thread is self.main:
            thread.state = ON_CPU
            self._push(self.clock(), AT_MAIN, thread, thread.waits)
            return
        # A sleeper is not paid back for the time it slept.
        if thread.weight_ns < self._floor_ns:
            thread.weight_ns = self._floor_ns
        for hook in self.on_wake:
            hook(int(thread.tid), int(self.clock()))
        self._make_ready(thread, by_timer)

    def wake_here(self, thread: Thread) -> None:
        """Make a blocked thread ready with no wake-up latency, ahead of all others.

        For a kernel that hands a CPU from one thread to another (UMS's upcall, switchto). Where
        it is called from ``on_switch_out``, the CPU that just became free is the one it gets.
        """
        if thread.state == BLOCKED:
            thread.weight_ns = -1
            self._note("wake", thread)
            self.events += 1
            self.scheduled += 1
            thread.state = READY
            thread.waits += 1
            cpu = self._free_cpu(thread) if self._free else None
            if cpu is not None:
                self._dispatch(cpu, thread, 0)
            else:
                self._enqueue(thread)

    def call_at(self, when_ns: i64, what: Callable[[], None]) -> None:
        """Have the kernel call ``what`` at a time; it may wake threads, and nothing else."""
        self._push(when_ns, AT_CALL, what, 0)

    def interrupt(self, thread: Thread, signo: i64) -> None:
        """Send a signal. A thread in an interruptible payment goes on at once, others later."""
        thread.signals.append(int(signo))
        if not thread.interruptible or thread is self.running:
            return
        cpu = thread.cpu
        if cpu is None:
            thread.cut_ns += thread.left_ns
            thread.left_ns = 0
            return
        at = self.clock() + self.costs.signal_ns
        if at < cpu.until_ns:
            thread.cut_ns += cpu.until_ns - at
            cpu.epoch += 1
            cpu.until_ns = at
            self._push(at, AT_DONE, cpu, cpu.epoch)

    def cpu_ns(self, thread: Thread) -> i64:
        """CPU time that a thread has used."""
        if thread.cpu is None:
            return thread.cpu_ns
        return thread.cpu_ns + max(self.clock() - thread.since_ns, 0)

    def stuck(self) -> list[str]:
        """Which threads wait for what, one line each."""
        return [
            f"thread {thread.tid} ({thread.name}) waits for {thread.waiting_for}"
            for thread in self.threads.values()
            if thread.state == BLOCKED
        ]

    def close(self) -> None:
        """End the threads that are left. Called by the machine's main thread."""
        self._closing = True
        for thread in list(self.threads.values()):
            if thread is self.main or thread.stack is None:
                continue
            self.running = thread
            set_current(thread.current)
            thread.stack.throw(GreenletExit)
        self.threads.clear()
        self._heap.clear()
        self.running = self.main
        set_current(self.main.current)

    # How the kernel works.

    def _live(self, thread: Thread, body: Callable[[], None]) -> None:
        set_current(None)
        try:
            body()
            if not self._closing:
                self.pay(0)
        except GreenletExit:
            pass
        except BaseException as failure:
            self._failure = failure
        if self._closing:
            return
        thread.state = DEAD
        thread.stack = None
        self._leave_cpu(thread, True)
        del self.threads[int(thread.tid)]
        thread.current = None
        # Nobody switches back to this greenlet: it ends when the next thread has been chosen, by
        # returning into main, which passes on to that thread.
        self.running = thread

    def _occupy(self, cpu: Cpu, ns: i64) -> None:
        cpu.epoch += 1
        cpu.until_ns = self.now_ns + ns
        self._push(cpu.until_ns, AT_DONE, cpu, cpu.epoch)

    def _may_send_away(self, thread: Thread) -> bool:
        return thread.locks == 0 or self._anywhere

    def _send_away(self, thread: Thread, ns: i64) -> None:
        """Take the CPU from the running thread for a while, as if something urgent came up."""
        thread.left_ns = ns
        self._leave_cpu(thread, False)
        away = 1 + self.random(self.chaos.away_ns)
        self._push(self.now_ns + away, AT_BACK, thread, thread.waits)
        self._run_others(thread)

    def _run_others(self, me: Thread) -> None:
        """Let time go on until ``me`` is to run: the kernel's loop, on whoever's greenlet."""
        next_thread = self._next()
        if next_thread is me:
            if self._failure is not None:
                self._fail()
            return
        me.current = get_current()
        self.running = next_thread
        target = next_thread.stack
        assert target is not None
        target.switch()
        while self.running is not me:
            # Only main gets here: a thread that ended returned into it. Whoever is next is not
            # known yet; a failure ends the run.
            if self._failure is not None:
                self.running = self.main
                break
            next_thread = self._next()
            self.running = next_thread
            if next_thread is not me:
                target = next_thread.stack
                assert target is not None
                target.switch()
        set_current(me.current)
        if self._closing:
            raise GreenletExit
        if me is self.main and self._failure is not None:
            self._fail()

    def _fail(self) -> None:
        failure = self._failure
        assert failure is not None
        self._failure = None
        raise failure

    def _too_long(self) -> None:
        self._failure = LivelockError(f"{self.now_ns - BEGIN_NS} ns and no end")

    def _next(self) -> Thread:
        """Handle events until a thread is to go on; main, if the run has failed."""
        while self._failure is None:
            if not self._heap:
                waits = "; ".join(self.stuck())
                self._failure = DeadlockError(f"no thread can go on: {waits}")
                return self.main
            if self.max_events and self.events > self.max_events:
                self._failure = LivelockError(f"{self.events} events and no end")
                self.max_events = 0  # told once: the run is to be wound up now
                return self.main
            self.events += 1
            when_ns, _, kind, what, number = heappop(self._heap)
            self._horizon_ns = self._heap[0][0] if self._heap else NEVER
            if when_ns > self.now_ns:
                self.now_ns = when_ns
            if kind == AT_DONE:
                assert isinstance(what, Cpu)
                if what.epoch == number:
                    assert what.thread is not None
                    return what.thread
            elif kind == AT_TIMEOUT:
                assert isinstance(what, Thread)
                if what.state == BLOCKED and what.waits == number:
                    what.timed_out = True
                    self._wake(what, True)
            elif kind == AT_TICK:
                if self._tick_at_ns == when_ns:
                    self._tick()
            elif kind == AT_BACK:
                assert isinstance(what, Thread)
                self._make_ready(what, False)
            elif kind == AT_PREEMPT:
                assert isinstance(what, Thread)
                if what.state == READY and what.waits == number:
                    self._preempt(what)
            elif kind == AT_MAIN:
                return self.main
            else:
                assert callable(what)
                what()
        return self.main
