"""What the simulated machine charges for, in ns of virtual time."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Chaos", "Costs"]


@dataclass(frozen=True)
class Costs:
    """Prices of one machine. The defaults are of a small virtual machine with Linux 6.18.

    They were taken as round figures from measurements on the kind of machine that the project's
    benchmarks ran on; a replay of a capture calibrates them against the capture.
    """

    syscall_ns: int = 300
    """Way into the kernel and back, apart from what the call does (see ``syscall_scale``)."""
    syscall_scale: float = 1.0
    """Times ``syscall_ns``: a guest under KVM without paravirtualised entry pays 2 to 3."""
    context_switch_ns: int = 1_500
    """From one thread to the next on one CPU."""
    wakeup_ns: int = 3_000
    """From a wake-up to the thread's first instruction on a CPU that was idle."""
    wakeup_spread_ns: tuple[int, ...] = ()
    """If not empty: wake-ups take one of these by chance, instead of ``wakeup_ns``."""
    timer_wakeup_spread_ns: tuple[int, ...] = ()
    """The same of those that a timer woke; as the others where empty."""
    preempt_percent: int = 0
    """How many of the threads that are woken while no CPU is free take one from the thread that
    has it; the others wait until a CPU is free or a slice is over."""
    preempt_light_percent: int = 0
    """The same where a monitor is woken, which hardly uses a CPU."""
    preempt_by_light_percent: int = 0
    """The same where a monitor wakes another thread."""
    wake_call_ns: int = 1_000
    """What waking another thread costs the waker (futex, IPI), up to where that one is ready."""
    wake_rest_ns: int = 0
    """The same from there on."""
    unpark_ns: int = 0
    """What a parked thread that was woken does before it is in the runtime's code again."""
    thread_start_ns: int = 25_000
    """From clone(2) to the new thread's first instruction."""
    timer_slack_ns: int = 50_000
    """How late a sleeping thread's timer fires (Linux: 50 µs unless told otherwise)."""
    timer_spread_ns: tuple[int, ...] = ()
    """If not empty: timers are late by one of these, instead of ``timer_slack_ns``."""
    slice_ns: int = 2_800_000
    """For how long a thread keeps its CPU while others wait for one (base_slice_ns)."""
    tick_ns: int = 4_000_000
    """A slice's end is noticed at a multiple of this (CONFIG_HZ=250)."""
    lock_ns: int = 25
    """Taking a free lock."""
    clock_ns: int = 25
    """Reading the clock."""
    turn_ns: int = 100
    """A busy M's pass through its loop: about one goroutine switch."""
    find_ns: int = 0
    """From a P's arrival at an M to its first goroutine, besides locks and turns."""
    gil_signal_ns: int = 1_000
    """What it costs to let go of the interpreter's lock while somebody waits for it."""
    round_ns: int = 0
    """One round of the monitor, besides what it asks the host for and takes back."""
    thread_state_ns: int = 1_700
    """Asking the kernel for another thread's state (a read of an open file in /proc)."""
    probe_ns: int = 0
    """What a probe on each of the runtime's transitions costs the thread; 0 for no tracer."""
    gil: bool = False
    """Whether the runtime's own code needs an interpreter's lock, one for all threads."""
    tgkill_ns: int = 1_500
    """Sending a signal."""
    signal_ns: int = 2_000
    """From the signal's sending to its handler, on a running thread."""
    switch_record_ns: int = 300
    """What a thread's switch-out pays for being recorded by a perf event."""
    quantum_ns: int = 500
    """How far a thread may run ahead of the others' time with its locks and turns before they get
    theirs. 0 is exact; the default is less than any wake-up takes, and saves most of the changes
    of thread where several CPUs are busy with the scheduler. A watched run is always exact."""

    def scaled(self, syscall_scale: float) -> Costs:
        """The same machine with dearer or cheaper system calls."""
        return replace(self, syscall_scale=syscall_scale)


@dataclass(frozen=True)
class Chaos:
    """How a run is disturbed, so that other interleavings come about; same seed, same run."""

    one_in: int = 0
    """A thread loses its CPU at one in so many calls that may switch; 0 for never."""
    away_ns: int = 20_000
    """For at most so long."""
    anywhere: bool = False
    """Also where only an interpreted runtime's threads can lose the interpreter: at the calls
    that may not switch, and inside locked regions."""
    jitter: int = 0
    """Costs vary up to this many percent."""
