"""Which thread has which virtual CPU, and when that changes.

A simple fair scheduler. Threads that are ready wait in one queue for all CPUs, ordered by CPU
time used; a woken thread starts at once on an idle CPU, takes a busy one from another thread (a
given share of the wake-ups, by chance), or waits until a running one has had its slice, noticed
at a tick. (Linux 6.18's EEVDF decides by lags and deadlines within a CPU, and its CPUs have
queues of their own and move threads between them; that is left out.)
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from greenlet import getcurrent

from reference_runtime.sim.costs import Chaos, Costs
from reference_runtime.sim.threads import ON_CPU, READY, Cpu, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64

# Kinds of events.
AT_DONE: Final = 0  # a CPU's thread has used what it paid for
AT_TIMEOUT: Final = 1  # a blocked thread has waited long enough
AT_TICK: Final = 2  # threads wait for a CPU: look whose slice is over
AT_CALL: Final = 3  # somebody wanted to be called
AT_BACK: Final = 4  # a thread that was sent away by chaos wants a CPU again
AT_MAIN: Final = 5  # the caller of the machine was woken
AT_PREEMPT: Final = 6  # a thread that was woken takes a CPU from another

BEGIN_NS: Final = 1_000_000_000
"""Virtual time begins here, not at 0: the runtime says "none" with a time of 0."""
NEVER: Final = 1 << 62
_RANDOM_MODULUS: Final = 2_147_483_647


class Cpus:
    """The CPUs, the threads that wait for one, and the events by which that goes on.

    Args:
        cpus: how many there are.
        costs: what switches and wake-ups cost.
        seed: of all chance in the run.
        chaos: how the run is disturbed.
    """

    def __init__(self, cpus: int, costs: Costs, seed: int, chaos: Chaos) -> None:
        self.costs: Final = costs
        self.chaos: Final = chaos
        self.now_ns: i64 = BEGIN_NS
        self.owed_ns: i64 = 0
        """CPU time of the running thread that the machine's clock has not seen yet."""
        self.scheduled: i64 = 0
        """Threads that were put on a CPU, left one, or were woken, so far."""
        self.cpus: Final = [Cpu(n) for n in range(cpus)]
        self.log: list[tuple[int, str, int]] | None = None
        """If a list: what happened to threads (time, word, tid), for tests."""
        self.on_switch_out: list[Callable[[int, int, bool], None]] = []
        """Called with (tid, time, blocked) where a thread leaves its CPU, by the kernel: they may
        wake a thread and nothing else."""
        self.on_switch_in: list[Callable[[int, int], int]] = []
        """Called with (tid, time) where a thread is about to get a CPU; what that costs it, ns."""
        self._switch_ns: i64 = costs.context_switch_ns
        self._wakeup_ns: i64 = costs.wakeup_ns
        self._wakeups: Final = [int(ns) for ns in costs.wakeup_spread_ns]
        self._timer_wakeups: Final = [
            int(ns) for ns in costs.timer_wakeup_spread_ns or costs.wakeup_spread_ns
        ]
        self._preempt_percent: i64 = costs.preempt_percent
        self._preempt_light_percent: i64 = costs.preempt_light_percent
        self._preempt_by_light_percent: i64 = costs.preempt_by_light_percent
        self._slice_ns: i64 = costs.slice_ns
        self._tick_ns: i64 = costs.tick_ns
        self._jitter: i64 = chaos.jitter
        self._random: i64 = (seed * 7_919 + 12_345) % (_RANDOM_MODULUS - 1) + 1
        self._heap: list[tuple[int, int, int, object, int]] = []
        self._made: i64 = 0
        self._horizon_ns: i64 = NEVER
        self._ready: list[tuple[int, int, Thread]] = []
        self._free: i64 = cpus
        self._tick_at_ns: i64 = NEVER
        self._floor_ns: i64 = 0
        self.main: Final = Thread(self._next_tid(), "main")
        self.main.state = ON_CPU
        self.main.stack = getcurrent()
        self.running: Thread = self.main

    def clock(self) -> i64:
        """Time as the running thread sees it, ns."""
        return self.now_ns + self.owed_ns

    def random(self, n: i64) -> i64:
        """A number in [0, n) (Park and Miller's minimal standard generator)."""
        self._random = self._random * 48_271 % _RANDOM_MODULUS
        return self._random % n

    def _next_tid(self) -> i64:
        self._made += 1
        return 1_000 + self._made

    def _note(self, word: str, thread: Thread) -> None:
        if self.log is not None:
            self.log.append((int(self.clock()), word, int(thread.tid)))

    def _push(self, when_ns: i64, kind: i64, what: object, number: i64) -> None:
        self._made += 1
        heappush(self._heap, (int(when_ns), int(self._made), int(kind), what, int(number)))
        if when_ns < self._horizon_ns:
            self._horizon_ns = when_ns

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
            self._push(self.clock(), AT_PREEMPT, thread, thread.waits)
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
        if self._tick_at_ns == NEVER:
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
        self._push(cpu.until_ns, AT_DONE, cpu, cpu.epoch)
        self._note("run", thread)
        if self._ready and self._tick_at_ns == NEVER:
            self._arm_tick()

    def _arm_tick(self) -> None:
        """Look at the running threads again when the first of their slices ends."""
        first: i64 = NEVER
        now = self.clock()
        for cpu in self.cpus:
            if cpu.thread is not None:
                first = min(first, self._slice_end_ns(cpu, now))
        if first < NEVER:
            self._tick_at_ns = first
            self._push(first, AT_TICK, None, 0)

    def _slice_end_ns(self, cpu: Cpu, now: i64) -> i64:
        """The end of the slice that the CPU's thread is in: it has one after the other."""
        slices = max(now - cpu.slice_start_ns, 0) // self._slice_ns + 1
        end = cpu.slice_start_ns + slices * self._slice_ns
        return (end + self._tick_ns - 1) // self._tick_ns * self._tick_ns

    def _tick(self) -> None:
        self._tick_at_ns = NEVER
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
        if self._ready and self._tick_at_ns == NEVER:
            self._arm_tick()
