"""``thread_state``: the monitor asks the kernel whether the thread is blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reference_runtime.gmp import P_SYSCALL
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.processors import retake
from reference_runtime.transitions import BY_SYSMON, BY_THREAD_STATE

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, P, Sched


class ThreadStatePolicy(RetakePolicy):
    """The monitor retakes at the first sighting, if the thread is blocked.

    ``sysmon`` waits for a second sighting because it cannot tell a call that blocks from one that
    is about to return; the kernel can. A call that is not blocked is retaken at its second
    sighting, as there.
    """

    name: ClassVar[str] = "thread_state"

    def monitor(self, sched: Sched, m: M, now_ns: i64) -> i64:
        """One round over all Ps."""
        taken: i64 = 0
        for p in sched.allp:
            if p.status == P_SYSCALL:
                reason = self.reason_to_retake(sched, p, now_ns)
                if reason >= 0 and retake(sched, m, p, reason):
                    taken += 1
        return taken

    def reason_to_retake(self, sched: Sched, p: P, now_ns: i64) -> i64:
        """Why P is to be retaken now; -1 if it is not."""
        tick = p.syscalltick
        loser = p.m
        if self.sighted_twice(sched, p, now_ns):
            return BY_SYSMON
        if loser is None or self.left_alone(sched, p, now_ns):
            return -1
        # The question releases the interpreter: P may be in another call when it is answered.
        if sched.host.thread_blocked(loser.tid) and p.syscalltick == tick:
            return BY_THREAD_STATE
        return -1
