"""``upcall``: the kernel itself wakes the M that takes the P, right where a thread blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.gmp import NO_P
from reference_runtime.host import SwitchWatch
from reference_runtime.policies.base import NOT_YET, SYSMON_MAX_NS
from reference_runtime.policies.integrated import IntegratedPolicy
from reference_runtime.policies.sched_out import NET_NS
from reference_runtime.processors import check_dead, in_syscall, retake
from reference_runtime.slices import look_at_slices, next_look_ns
from reference_runtime.transitions import BY_UPCALL

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, P, Sched


@mypyc_attr(allow_interpreted_subclasses=True)
class UpcallPolicy(IntegratedPolicy):
    """One wake-up from the block to the next goroutine, where ``sched_out`` needs two.

    One M without a P is *on call*: it waits for a signal that a program in the kernel sends where
    a thread of this process leaves its CPU in a system call. It takes that thread's P and runs it
    itself. Before it does so, it calls the next M; the P does not wait for that one.

    As near to UMS as Linux lets: the wake-up is the kernel's own, but the M on call is a thread
    that has to be scheduled, and the CPU is not handed over.

    Args:
        net_ns: how long a call may last of which nobody was told; the M on call looks at all Ps as
            often.
    """

    name: ClassVar[str] = "upcall"

    def __init__(self, net_ns: i64 = NET_NS) -> None:
        super().__init__()
        self.net_ns: i64 = net_ns
        self.switches: SwitchWatch = SwitchWatch()
        self.last_net_ns: i64 = 0

    def start(self, sched: Sched) -> None:
        """Put the program into the kernel.

        Raises:
            PretakeError: this machine or this user cannot have it.
        """
        super().start(sched)
        self.switches = sched.host.watch_blocks()

    def stop(self, sched: Sched) -> None:  # noqa: ARG002
        """Take it out again."""
        self.switches.close()

    def stopping(self) -> None:
        """Wake the M on call."""
        self.switches.break_wait()

    def m_started(self, m: M) -> None:
        """The kernel's program knows threads by their M's number."""
        self.switches.add(m.tid, m.id)
        super().m_started(m)

    def monitor_sleep_ns(self, idle_rounds: i64, last_ns: i64) -> i64:  # noqa: ARG002
        """Time for what else a monitor does: the network, and goroutines that run for long."""
        return min(SYSMON_MAX_NS, self.net_ns)

    def monitor_wait(self, sched: Sched, m: M, delay_ns: i64) -> None:
        """On call: M takes the first P that a blocked thread holds, and hands on what is left."""
        sched.lock.acquire()
        if sched.npidle == len(sched.allp):
            delay_ns = self.net_ns
        # It counts as parked, so that the last M to park sees a deadlock.
        sched.nmidle += 1
        asleep = sched.nmidle == sched.mcount and sched.poller is None
        sched.lock.release()
        if asleep:
            check_dead(sched)
        blocked = self.switches.wait(next_look_ns(sched, delay_ns))
        sched.lock.acquire()
        sched.nmidle -= 1
        sched.lock.release()
        for number in blocked:
            p = sched.allm[number].p
            if p is NO_P or not in_syscall(sched, p):
                continue
            if m.p is NO_P:
                self.take(sched, m, p, BY_UPCALL)
            else:
                retake(sched, m, p, BY_UPCALL)
        look_at_slices(sched, m)
        sched.record.add(policy_wakeups=1)

    def rest_while_idle(self, sched: Sched) -> bool:  # noqa: ARG002
        """It waits for upcalls instead: the next block comes without any other sign."""
        return False

    def begin_round(self, sched: Sched, now_ns: i64) -> bool:  # noqa: ARG002
        """It looks at the Ps by itself every ``net_ns`` only."""
        if now_ns < self.last_net_ns + self.net_ns:
            return False
        self.last_net_ns = now_ns
        return True

    def wanted(self, sched: Sched, p: P, now_ns: i64) -> i64:  # noqa: ARG002
        """The net, for calls that have lasted as long."""
        loser = p.m
        if loser is not None and now_ns - loser.enter_ns >= self.net_ns:
            return BY_UPCALL
        return NOT_YET
