"""``sched_out``: the kernel tells which thread blocked, by a perf event on each thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from mypy_extensions import mypyc_attr

from reference_runtime.gmp import NO_P
from reference_runtime.host import SwitchWatch
from reference_runtime.policies.base import NOT_YET, SYSMON_MAX_NS, RetakePolicy
from reference_runtime.processors import in_syscall, retake
from reference_runtime.slices import look_at_slices, next_look_ns
from reference_runtime.transitions import BY_SCHED_OUT

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, P, Sched

NET_NS: Final = 100_000_000
"""The backup of the discussion: a call that no event told of loses its P after so long."""


@mypyc_attr(allow_interpreted_subclasses=True)
class SchedOutPolicy(RetakePolicy):
    """P is retaken when its thread leaves the CPU, blocked, in a system call.

    The monitor does not sleep between its rounds; it waits for switches. It ignores preemptions,
    since a preempted thread goes on as soon as it has a CPU, and threads that block outside of a
    system call (parked, or waiting for a lock), since they have no P in a call. Unlike Go it also
    retakes a P for which there is no work: Go leaves that P because it can only guess that the
    call blocks, and here the block is known.

    Args:
        net_ns: how long a call may last of which no event told, since a ring was full, say; the
            monitor looks at all Ps as often.
    """

    name: ClassVar[str] = "sched_out"
    upcall: ClassVar[bool] = False

    def __init__(self, net_ns: i64 = NET_NS) -> None:
        super().__init__()
        self.net_ns: i64 = net_ns
        self.monitor_rests = False
        self.reason: i64 = BY_SCHED_OUT
        self.watch: SwitchWatch = SwitchWatch()
        self.last_net_ns: i64 = 0

    def start(self, sched: Sched) -> None:
        """Find out whether the machine tells of switches.

        Raises:
            PretakeError: it does not, or forbids it.
        """
        self.watch = sched.host.watch_switches(self.upcall)

    def stop(self, sched: Sched) -> None:  # noqa: ARG002
        """Watch no more."""
        self.watch.close()

    def stopping(self) -> None:
        """Wake the monitor."""
        self.watch.break_wait()

    def m_started(self, m: M) -> None:
        """Each M's thread has its own event."""
        self.watch.add(m.tid, m.id)

    def monitor_sleep_ns(self, idle_rounds: i64, last_ns: i64) -> i64:  # noqa: ARG002
        """Time for what else a monitor does: the network, and goroutines that run for long."""
        return min(SYSMON_MAX_NS, self.net_ns)

    def monitor_wait(self, sched: Sched, m: M, delay_ns: i64) -> None:
        """Wait for threads that block, and retake what they hold: the shortest way from there."""
        if sched.npidle == len(sched.allp):
            delay_ns = self.net_ns
        # A thread that a signal stopped waits in the handler: that is a block like any other.
        blocked = self.watch.wait(next_look_ns(sched, delay_ns))
        for number in blocked:
            p = sched.allm[number].p
            if p is not NO_P and in_syscall(sched, p):
                retake(sched, m, p, self.reason)
        look_at_slices(sched, m)
        sched.record.add(policy_wakeups=1)

    def begin_round(self, sched: Sched, now_ns: i64) -> bool:  # noqa: ARG002
        """The monitor looks at the Ps by itself every ``net_ns`` only."""
        if now_ns < self.last_net_ns + self.net_ns:
            return False
        self.last_net_ns = now_ns
        return True

    def wanted(self, sched: Sched, p: P, now_ns: i64) -> i64:  # noqa: ARG002
        """The net, for calls that have lasted as long."""
        loser = p.m
        if loser is not None and now_ns - loser.enter_ns >= self.net_ns:
            return self.reason
        return NOT_YET
