"""``thread_state``: the monitor asks the kernel whether the thread is blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.policies.base import NOT_YET, RetakePolicy
from reference_runtime.transitions import BY_SYSMON, BY_THREAD_STATE

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import P, Sched


@mypyc_attr(allow_interpreted_subclasses=True)
class ThreadStatePolicy(RetakePolicy):
    """The monitor retakes at the first sighting, if the thread is blocked.

    ``sysmon`` waits for a second sighting because it cannot tell a call that blocks from one that
    is about to return; the kernel can. A call that is not blocked is retaken at its second
    sighting, as there.
    """

    name: ClassVar[str] = "thread_state"

    def wanted(self, sched: Sched, p: P, now_ns: i64) -> i64:
        """At its second sighting, or now if its thread is blocked."""
        tick = p.syscalltick
        loser = p.m
        if self.sighted_twice(sched, p, now_ns):
            return BY_SYSMON
        if loser is None or self.left_alone(sched, p, now_ns):
            return NOT_YET
        # The question releases the interpreter: P may be in another call when it is answered.
        if sched.host.thread_blocked(loser.tid) and p.syscalltick == tick:
            return BY_THREAD_STATE
        return NOT_YET
