"""Like which Go the scheduler behaves: one object of rules for each.

Example: ``Runtime(like="go1.21")`` starts five goroutines in the order 5, 1, 2, 3, 4, as Go does
(``runnext``), and ``Runtime()`` in the order 1, 2, 3, 4, 5. ``docs/like-go.md`` has Go's function
and version for each rule, and what no rule covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.errors import PretakeError

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["LEAN", "LIKE", "Rules", "rules_like"]

RUNNEXT_WAIT_NS = 3_000
"""How long a thief leaves a running P its runnext (go1.21, runtime.runqgrab)."""
MS_NS = 1_000_000


class Rules:
    """How a scheduler decides where versions of Go differ from each other, or from this one.

    Args:
        name: as ``--like`` has it.
        runnext: what a goroutine readies runs next on its P, in the rest of its time slice
            (go1.5, runtime.runqput).
        steal_passes: how often a spinning M goes round the other Ps. With more than one, the last
            pass takes another's runnext, and the last of several that were stolen runs first
            (go1.13, runtime.findrunnable; go1.21, runtime.stealWork).
        spinning_limit: an M spins only while twice the Ms that spin are fewer than the busy Ps
            (go1.13, runtime.findrunnable).
        go_handoff: a P that is handed off gets an M in the cases of Go's handoffp, in its order:
            so also where no M spins and no P is idle, to look for work.
        takes_back: an M that returns from a call takes the P that it had, from another M's call
            too (go1.13, runtime.exitsyscallfast; go1.26, runtime.exitsyscallTryGetP).
        psyscall: a P in a system call has a status of its own. From go1.26 on it stays running,
            and only the goroutine's status tells (runtime.setBlockOnExitSyscall).
        whole_ms: the poller's waits are of whole milliseconds, at least one (runtime.netpoll).
        injects: goroutines that the network poller readies are dealt out to idle Ps, an M for
            each (runtime.injectglist).
        inject_keeps: what is left of them goes to the M's own queue, and else to the global one
            (go1.19, runtime.injectglist; not in go1.13).
        inject_wakes: and after that one more M is woken if none spins (go1.23,
            runtime.injectglist).
        close_last_first: who waits for a channel that is closed is readied in the reverse order
            (go1.12, runtime.closechan), so that who waited longest runs first.
        skips_netpoll: an M that looks for work does not ask the network; the monitor does so
            every 10 ms, and the poller that waits (gVisor's change).
        preempt: how goroutines are preempted, unless the caller says.
        always_sleeps: a thief that is to take a runnext sleeps before, whether the other P runs a
            goroutine or not; only to go1.10 (runtime.runqgrab, before "only sleep before stealing
            work from a running P").
    """

    def __init__(
        self,
        name: str,
        runnext: bool = True,
        steal_passes: i64 = 4,
        spinning_limit: bool = True,
        go_handoff: bool = True,
        takes_back: bool = True,
        psyscall: bool = True,
        whole_ms: bool = True,
        injects: bool = True,
        inject_keeps: bool = True,
        inject_wakes: bool = False,
        close_last_first: bool = True,
        skips_netpoll: bool = False,
        preempt: str = "async",
        always_sleeps: bool = False,
    ) -> None:
        self.name = name
        self.runnext: bool = runnext
        self.steal_passes: i64 = steal_passes
        self.spinning_limit: bool = spinning_limit
        self.go_handoff: bool = go_handoff
        self.takes_back: bool = takes_back
        self.psyscall: bool = psyscall
        self.whole_ms: bool = whole_ms
        self.injects: bool = injects
        self.inject_keeps: bool = inject_keeps
        self.inject_wakes: bool = inject_wakes
        self.close_last_first: bool = close_last_first
        self.skips_netpoll: bool = skips_netpoll
        self.preempt = preempt
        self.always_sleeps: bool = always_sleeps

    def poll_ns(self, delay_ns: i64) -> i64:
        """How long the poller waits that would wait for ``delay_ns``; -1 is for ever."""
        if not self.whole_ms or delay_ns <= 0:
            return delay_ns
        return max(delay_ns // MS_NS, 1) * MS_NS


LEAN = Rules(
    "lean",
    runnext=False,
    steal_passes=1,
    spinning_limit=False,
    go_handoff=False,
    takes_back=False,
    whole_ms=False,
    injects=False,
    close_last_first=False,
)
"""None of Go's habits: no slot beside the queue, one sweep, an M only where there is work."""

LIKE: dict[str, Rules] = {
    rules.name: rules
    for rules in (
        LEAN,
        Rules("go1.13", inject_keeps=False, preempt="cooperative"),
        Rules("go1.21"),
        Rules("go1.27", psyscall=False, inject_wakes=True),
        Rules("gvisor", skips_netpoll=True),
    )
}
"""By name."""


def rules_like(name: str) -> Rules:
    """The rules of this name.

    Raises:
        PretakeError: there are none.
    """
    if name not in LIKE:
        raise PretakeError(
            f"no rules are called {name!r}", f"choose one of {', '.join(LIKE)} (--like)"
        )
    return LIKE[name]
