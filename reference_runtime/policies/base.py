"""What a retake policy is: how a P comes back from a thread that is in a system call.

A policy decides three things, each in one method: which way a call goes (``mode``), whether the
monitor is to take a P back at one of its rounds (``wanted``), and how long it sleeps between
rounds (``monitor_sleep_ns``). The other methods are hooks for policies that need more. The loop
over the Ps is the monitor's (``monitor.py``).

Example, a whole policy in a file ``patient.py``, run by ``pretake run echo --retake
patient.py:Patient``: it waits for 100 µs and asks nothing else.

    from reference_runtime.policies.base import NOT_YET, RetakePolicy
    from reference_runtime.transitions import BY_SYSMON

    class Patient(RetakePolicy):
        def wanted(self, sched, p, now_ns):
            m = p.m
            if m is None or now_ns - m.enter_ns < 100_000:
                return NOT_YET
            return BY_SYSMON

A class of one's own is interpreted. It may inherit from any policy here, compiled as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from mypy_extensions import mypyc_attr

from reference_runtime.gmp import FORCE_PREEMPT_NS
from reference_runtime.processors import retake
from reference_runtime.slices import monitor_sleep
from reference_runtime.transitions import BY_SYSMON

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, P, Sched

RAW: Final = 0
"""No hooks (Go: RawSyscall): P stays with the thread, whatever the call does."""
NORMAL: Final = 1
"""entersyscall: P stays with the thread, and may be retaken."""
BLOCK: Final = 2
"""entersyscallblock: P is handed off before the call."""

NOT_YET: Final = -1
"""A P is not to be taken back now."""

SYSMON_MIN_NS: Final = 20_000
SYSMON_MAX_NS: Final = 10_000_000
SYSMON_IDLE_ROUNDS: Final = 50


class Site:
    """A place in the program that makes system calls, with a hint of its author.

    Args:
        name: what reports call it.
        hint: ``RAW`` for calls that do not block, ``BLOCK`` for calls that will, ``NORMAL``
            where the author cannot tell.
    """

    def __init__(self, name: str, hint: i64 = NORMAL) -> None:
        self.name = name
        self.hint: i64 = hint


@mypyc_attr(allow_interpreted_subclasses=True)
class RetakePolicy:
    """Go's own policy; the other policies override parts of it."""

    name: ClassVar[str] = "base"

    def __init__(self) -> None:
        self.has_monitor: bool = True
        """Whether the scheduler is to run its monitor thread."""
        self.monitor_rests: bool = True
        """Whether the monitor is to sleep while all Ps are idle, until it is woken."""

    def start(self, sched: Sched) -> None:
        """Before the first goroutine runs, on the caller's thread."""

    def stop(self, sched: Sched) -> None:
        """After the last goroutine ran, on the caller's thread."""

    def stopping(self) -> None:
        """The run ends: wake the threads that wait for something of this policy. On any thread."""

    def m_started(self, m: M) -> None:
        """On a new M's thread, before it runs its first goroutine."""

    def m_stopped(self, m: M) -> None:
        """On an M's thread, as the last thing it does."""

    def mode(self, site: Site) -> i64:
        """Which way a call at ``site`` goes: ``RAW``, ``NORMAL`` or ``BLOCK``."""
        return RAW if site.hint == RAW else NORMAL

    def call_done(self, site: Site, mode: i64, enter_ns: i64, exit_ns: i64) -> None:
        """After each call, where ``wants_call_done``."""

    wants_call_done: ClassVar[bool] = False
    """Whether the scheduler is to read the clock after each call and call ``call_done``."""

    def before_park(self, sched: Sched, m: M) -> bool:  # noqa: ARG002
        """An M without a P is about to park; whether it has one again. May wait instead."""
        return False

    def monitor_sleep_ns(self, idle_rounds: i64, last_ns: i64) -> i64:
        """How long the monitor sleeps, after ``idle_rounds`` rounds that took nothing.

        20 µs, doubled each round after 50 idle rounds, to 10 ms (go1.21, runtime.sysmon).
        """
        if idle_rounds == 0:
            return SYSMON_MIN_NS
        if idle_rounds > SYSMON_IDLE_ROUNDS:
            return min(last_ns * 2, SYSMON_MAX_NS)
        return last_ns

    def monitor_wait(self, sched: Sched, m: M, delay_ns: i64) -> None:
        """How the monitor waits between its rounds, looking after preemption. May switch."""
        monitor_sleep(sched, m, delay_ns)
        sched.record.add(policy_wakeups=1)

    def begin_round(self, sched: Sched, now_ns: i64) -> bool:  # noqa: ARG002
        """Whether the monitor is to look at the Ps now; a policy may look at others first."""
        return True

    def wanted(self, sched: Sched, p: P, now_ns: i64) -> i64:
        """Why P, which is in a system call, is to be taken back now (go1.21, runtime.retake).

        Returns:
            Index in :data:`tracer.trace.words.RUNTIME_REASONS`, such as ``BY_SYSMON``, or
            ``NOT_YET``.
        """
        return BY_SYSMON if self.sighted_twice(sched, p, now_ns) else NOT_YET

    def take(self, sched: Sched, m: M, p: P, reason: i64) -> bool:
        """Take back a P that is wanted, and hand it on; False if its M was back first."""
        return retake(sched, m, p, reason)

    def sighted_twice(self, sched: Sched, p: P, now_ns: i64) -> bool:
        """Whether P is to be retaken from a call that the monitor has seen before.

        A call keeps its P for 10 ms if P's queue is empty and another P or M could run what
        comes; on purpose, since the call may need P again. A goroutine that has had P for 10 ms
        loses it in any call, seen before or not (Go: sysretake). Otherwise one that makes call
        after call would keep P from all others.
        """
        if p.seen_schedtick != p.schedtick:
            p.seen_schedtick = p.schedtick
            p.seen_sched_ns = now_ns
        turn_is_over = now_ns >= p.seen_sched_ns + FORCE_PREEMPT_NS
        if p.seen_syscalltick != p.syscalltick and not turn_is_over:
            p.seen_syscalltick = p.syscalltick
            p.seen_syscall_ns = now_ns
            return False
        return not self.left_alone(sched, p, now_ns)

    def left_alone(self, sched: Sched, p: P, now_ns: i64) -> bool:
        """Whether nothing waits for P, others could take what comes, and 10 ms are not over."""
        return (
            p.runqhead == p.runqtail
            and sched.nmspinning + sched.npidle > 0
            and now_ns < p.seen_syscall_ns + FORCE_PREEMPT_NS
        )
