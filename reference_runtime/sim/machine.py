"""Virtual CPUs and virtual time: the kernel that the simulated host stands on.

Each thread is a greenlet, so that its code may stop anywhere below a call of the host. Time moves
only when a thread pays for something: :meth:`Machine.pay` lets it use its CPU for some ns, and if
something else is due before they are over, the thread's greenlet gives way. Between two payments
a thread runs alone and in no time. All that happens later stands in one heap of events, ordered by
time and then by when they were made: so the same seed gives the same run.

The kernel's scheduler is a simple fair one. Threads that are ready wait in one queue for all CPUs,
ordered by CPU time used; a woken thread starts at once on an idle CPU, takes a busy one from
another thread (a given share of the wake-ups, by chance), or waits until a running one has had its
slice, noticed at a tick. (Linux 6.18's EEVDF decides by lags and deadlines within a CPU, and its
CPUs have queues of their own and move threads between them; that is left out.)

Rejected: OS threads that pass a baton (15 µs a switch instead of 0.3, and a stuck one cannot be
ended); generators (every function on the way to a host call would have to be one, so it could
not be the very same scheduler); a thread's own event loop in a hub greenlet (two switches each
time instead of one).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from greenlet import GreenletExit, getcurrent, greenlet

from reference_runtime.current import get_current, set_current
from reference_runtime.sim.costs import Chaos, Costs
from reference_runtime.sim.errors import DeadlockError, LivelockError

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

_DONE: Final = 0  # a CPU's thread has used what it paid for
_TIMEOUT: Final = 1  # a blocked thread has waited long enough
_TICK: Final = 2  # threads wait for a CPU: look whose slice is over
_CALL: Final = 3  # somebody wanted to be called
_BACK: Final = 4  # a thread that was sent away by chaos wants a CPU again
_MAIN: Final = 5  # the caller of the machine was woken
_PREEMPT: Final = 6  # a thread that was woken takes a CPU from another

MONITOR: Final = "monitor"
"""Name of the scheduler's monitor thread."""
BEGIN_NS: Final = 1_000_000_000
"""Virtual time begins here, not at 0: the runtime says "none" with a time of 0."""
_NEVER: Final = 1 << 62
_RANDOM_MODULUS: Final = 2_147_483_647


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


class Machine:
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
        self.costs: Final = costs or Costs()
        self.chaos: Final = chaos or Chaos()
        self.now_ns: i64 = BEGIN_NS
        self.owed_ns: i64 = 0
        """CPU time of the running thread that the machine's clock has not seen yet."""
        self.events: i64 = 0
        """Events so far: ends of payments, timers, wake-ups, ticks."""
        self.scheduled: i64 = 0
        """Threads that were put on a CPU, left one, or were woken, so far."""
        self.max_events: i64 = max_events
        self.cpus: Final = [Cpu(n) for n in range(cpus)]
        self.threads: Final[dict[int, Thread]] = {}
        self.log: list[tuple[int, str, int]] | None = None
        """If a list: what happened to threads (time, word, tid), for tests."""
        self.on_step: Callable[[], None] | None = None
        """Called before each payment and each wait, on the thread; must not call the host."""
        self.on_switch_out: list[Callable[[int, int, bool], None]] = []
        """Called with (tid, time, blocked) where a thread leaves its CPU, by the kernel: they may
        wake a thread and nothing else."""
        self.on_switch_in: list[Callable[[int, int], int]] = []
        """Called with (tid, time) where a thread is about to get a CPU; what that costs it, ns."""
        self.on_wake: list[Callable[[int, int], None]] = []
        """Called with (tid, time) where a blocked thread is made ready; as above."""
        self.quantum_ns: i64 = self.costs.quantum_ns
        self._switch_ns: i64 = self.costs.context_switch_ns
        self._wakeup_ns: i64 = self.costs.wakeup_ns
        self._wakeups: Final = [int(ns) for ns in self.costs.wakeup_spread_ns]
        self._timer_wakeups: Final = [
            int(ns) for ns in self.costs.timer_wakeup_spread_ns or self.costs.wakeup_spread_ns
        ]
        self._preempt_percent: i64 = self.costs.preempt_percent
        self._preempt_light_percent: i64 = self.costs.preempt_light_percent
        self._preempt_by_light_percent: i64 = self.costs.preempt_by_light_percent
        self._slice_ns: i64 = self.costs.slice_ns
        self._tick_ns: i64 = self.costs.tick_ns
        self._one_in: i64 = self.chaos.one_in
        self._jitter: i64 = self.chaos.jitter
        self._anywhere: bool = self.chaos.anywhere
        self._closing: bool = False
        self._random: i64 = (seed * 7_919 + 12_345) % (_RANDOM_MODULUS - 1) + 1
        self._heap: list[tuple[int, int, int, object, int]] = []
        self._made: i64 = 0
        self._horizon_ns: i64 = _NEVER
        self._ready: list[tuple[int, int, Thread]] = []
        self._free: i64 = cpus
        self._tick_at_ns: i64 = _NEVER
        self._floor_ns: i64 = 0
        self._failure: BaseException | None = None
        self.main: Final = Thread(self._next_tid(), "main")
        self.main.state = ON_CPU
        self.main.stack = getcurrent()
        self.threads[int(self.main.tid)] = self.main
        self.running: Thread = self.main
        if max_ns:
            self.call_at(BEGIN_NS + max_ns, self._too_long)

    # What threads ask of the kernel.

    def clock(self) -> i64:
        """Time as the running thread sees it, ns."""
        return self.now_ns + self.owed_ns

    def random(self, n: i64) -> i64:
        """A number in [0, n) (Park and Miller's minimal standard generator)."""
        self._random = self._random * 48_271 % _RANDOM_MODULUS
        return self._random % n

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
            self._push(self.now_ns + timeout_ns, _TIMEOUT, thread, thread.waits)
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
            self._push(self.clock(), _MAIN, thread, thread.waits)
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
        self._push(when_ns, _CALL, what, 0)

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
            self._push(at, _DONE, cpu, cpu.epoch)

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

    def _next_tid(self) -> i64:
        self._made += 1
        return 1_000 + self._made

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

    def _note(self, word: str, thread: Thread) -> None:
        if self.log is not None:
            self.log.append((int(self.clock()), word, int(thread.tid)))

    def _push(self, when_ns: i64, kind: i64, what: object, number: i64) -> None:
        self._made += 1
        heappush(self._heap, (int(when_ns), int(self._made), int(kind), what, int(number)))
        if when_ns < self._horizon_ns:
            self._horizon_ns = when_ns

    def _occupy(self, cpu: Cpu, ns: i64) -> None:
        cpu.epoch += 1
        cpu.until_ns = self.now_ns + ns
        self._push(cpu.until_ns, _DONE, cpu, cpu.epoch)

    def _may_send_away(self, thread: Thread) -> bool:
        return thread.locks == 0 or self._anywhere

    def _send_away(self, thread: Thread, ns: i64) -> None:
        """Take the CPU from the running thread for a while, as if something urgent came up."""
        thread.left_ns = ns
        self._leave_cpu(thread, False)
        away = 1 + self.random(self.chaos.away_ns)
        self._push(self.now_ns + away, _BACK, thread, thread.waits)
        self._run_others(thread)

    def _leave_cpu(self, thread: Thread, blocked: bool, heir: Thread | None = None) -> None:
        """Free the thread's CPU at this instant; ``heir`` has it, or the next that is ready."""
        cpu = thread.cpu
        assert cpu is not None
        used = max(self.now_ns - thread.since_ns, 0)
        thread.cpu_ns += used
        thread.weight_ns += used
        cpu.busy_ns += used
        if not blocked:
            thread.state = READY
        cpu.epoch += 1
        cpu.thread = None
        thread.cpu = None
        self._free += 1
        self.scheduled += 1
        self._note("block" if blocked else "preempt", thread)
        if self.on_switch_out:
            for hook in self.on_switch_out:
                hook(int(thread.tid), int(self.now_ns), blocked)
        if heir is not None and self._is_free(cpu):
            self._dispatch(cpu, heir, 0)
        elif heir is not None:
            self._enqueue(heir)
        elif self._ready and self._is_free(cpu):
            self._dispatch(cpu, heappop(self._ready)[2], 0)

    def _is_free(self, cpu: Cpu) -> bool:
        """A method, since a checker of types thinks a field stays what it was set to."""
        return cpu.thread is None

    def _make_ready(self, thread: Thread, by_timer: bool) -> None:
        thread.state = READY
        thread.waits += 1
        cpu = self._free_cpu(thread) if self._free else None
        if cpu is not None:
            self._dispatch(cpu, thread, self._latency_ns(by_timer))
        elif self._takes_cpu(thread, by_timer):
            # Not at once: who wakes it is in the middle of something, and goes on up to here.
            if not by_timer and self.running.cpu is not None:
                thread.last_cpu = self.running.cpu
            self._push(self.clock(), _PREEMPT, thread, thread.waits)
        else:
            self._enqueue(thread)

    def _takes_cpu(self, thread: Thread, by_timer: bool) -> bool:
        """Whether a woken thread takes a busy CPU, by chance."""
        percent = self._preempt_percent
        if thread.light:
            percent = self._preempt_light_percent
        elif self.running.light and not by_timer:
            percent = self._preempt_by_light_percent
        return percent > 0 and not thread.batch and self.random(100) < percent

    def _latency_ns(self, by_timer: bool) -> i64:
        """From a wake-up to the thread's first instruction on a CPU that was free."""
        spread = self._timer_wakeups if by_timer else self._wakeups
        if not spread:
            return self._wakeup_ns
        return spread[self.random(len(spread))]

    def _preempt(self, thread: Thread) -> None:
        """A thread that was woken a moment ago takes a CPU: a free one, if there is one by now."""
        cpu = self._free_cpu(thread) if self._free else thread.last_cpu
        if cpu is None:
            cpu = self.cpus[0]
        other = cpu.thread
        if other is None:
            self._dispatch(cpu, thread, 0)
            return
        other.left_ns = cpu.until_ns - max(self.now_ns, other.since_ns)
        self._leave_cpu(other, False, thread)
        self._enqueue(other)

    def _enqueue(self, thread: Thread) -> None:
        self._made += 1
        heappush(self._ready, (int(thread.weight_ns), int(self._made), thread))
        if self._tick_at_ns == _NEVER:
            self._arm_tick()

    def _free_cpu(self, thread: Thread) -> Cpu | None:
        """A free CPU: the one it was last on, if that is free, else the first."""
        last = thread.last_cpu
        if last is not None and last.thread is None:
            return last
        for cpu in self.cpus:
            if cpu.thread is None:
                return cpu
        return None

    def _dispatch(self, cpu: Cpu, thread: Thread, latency_ns: i64) -> None:
        start = self.clock() + latency_ns + self._switch_ns
        if self._jitter:
            start += (latency_ns + self._switch_ns) * self.random(self._jitter + 1) // 100
        self._free -= 1
        self.scheduled += 1
        thread.state = ON_CPU
        thread.cpu = cpu
        thread.last_cpu = cpu
        cpu.thread = thread
        for hook in self.on_switch_in:
            start += hook(int(thread.tid), int(start))
        thread.since_ns = start
        cpu.slice_start_ns = start
        cpu.epoch += 1
        cpu.until_ns = start + thread.left_ns
        thread.left_ns = 0
        if thread.weight_ns > self._floor_ns:
            self._floor_ns = thread.weight_ns
        self._push(cpu.until_ns, _DONE, cpu, cpu.epoch)
        self._note("run", thread)
        if self._ready and self._tick_at_ns == _NEVER:
            self._arm_tick()

    def _arm_tick(self) -> None:
        """Look at the running threads again when the first of their slices ends."""
        first: i64 = _NEVER
        now = self.clock()
        for cpu in self.cpus:
            if cpu.thread is not None:
                first = min(first, self._slice_end_ns(cpu, now))
        if first < _NEVER:
            self._tick_at_ns = first
            self._push(first, _TICK, None, 0)

    def _slice_end_ns(self, cpu: Cpu, now: i64) -> i64:
        """The end of the slice that the CPU's thread is in: it has one after the other."""
        slices = max(now - cpu.slice_start_ns, 0) // self._slice_ns + 1
        end = cpu.slice_start_ns + slices * self._slice_ns
        return (end + self._tick_ns - 1) // self._tick_ns * self._tick_ns

    def _tick(self) -> None:
        self._tick_at_ns = _NEVER
        for cpu in self.cpus:
            thread = cpu.thread
            if not self._ready:
                return
            if (
                thread is not None
                and self.now_ns - cpu.slice_start_ns >= self._slice_ns
                and cpu.until_ns >= self.now_ns
            ):
                thread.left_ns = cpu.until_ns - self.now_ns
                self._leave_cpu(thread, False)
                self._enqueue(thread)
        if self._ready and self._tick_at_ns == _NEVER:
            self._arm_tick()

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
            self._horizon_ns = self._heap[0][0] if self._heap else _NEVER
            if when_ns > self.now_ns:
                self.now_ns = when_ns
            if kind == _DONE:
                assert isinstance(what, Cpu)
                if what.epoch == number:
                    assert what.thread is not None
                    return what.thread
            elif kind == _TIMEOUT:
                assert isinstance(what, Thread)
                if what.state == BLOCKED and what.waits == number:
                    what.timed_out = True
                    self._wake(what, True)
            elif kind == _TICK:
                if self._tick_at_ns == when_ns:
                    self._tick()
            elif kind == _BACK:
                assert isinstance(what, Thread)
                self._make_ready(what, False)
            elif kind == _PREEMPT:
                assert isinstance(what, Thread)
                if what.state == READY and what.waits == number:
                    self._preempt(what)
            elif kind == _MAIN:
                return self.main
            else:
                assert callable(what)
                what()
        return self.main
