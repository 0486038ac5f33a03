"""Holds of Ps: from a block with P until P is released or the call returns.

A hold has two parts: the thread was blocked, and the thread was awake again and waited for a CPU.
Of the first part it is also counted how long the monitor, which would have taken P, waited for a
CPU. Beside the hold it is counted how long P ran no goroutine, which may end long after the
release.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import append
from mypy_extensions import i64

from analysis.ptime.engine.rows import LARGEST, Out, capped
from analysis.ptime.engine.state import FAULT, IN_SYSCALL, NO_CPU, Census, P, Thread
from analysis.ptime.engine.sums import SCALE, Sums

# How a hold ended.
KEPT: Final = 0
RELEASED: Final = 1
UNTOLD: Final = 2

HOLD: Final = (
    *("pid", "p", "tid", "block_ns", "end_ns", "nr", "stack_id", "state", "end", "blocked_ns"),
    *("awake_ns", "least_ns", "most_ns", "awake_least_ns", "awake_most_ns", "monitor_ns", "raw"),
)
"""Columns of :attr:`Holds.holds`. ``state`` is a number of STATES (syscall, fault), ``end`` 0
for kept, 1 for released, 2 for not known; ``least_ns`` and ``most_ns`` the share of lost P time
while the thread was blocked, ``awake_…`` while it was awake and had no CPU; ``monitor_ns`` how
much of ``blocked_ns`` the monitor wanted a CPU and had none; ``raw`` is 1 for a call of which the
runtime does not know, so that nobody takes P from it."""

LATENCY: Final = ("pid", "p", "since_ns", "until_ns", "end")
"""Columns of :attr:`Holds.latencies`: from when P had no goroutine that runs, until when.
``end`` is 1 where a goroutine ran, 0 where P went idle or stood still with the world, 2 where
nobody knows."""


class Holds:
    """Writes down each hold, and each time without a goroutine.

    Args:
        census: says how late it is.
        sums: has what the Ps of a process lost so far.
    """

    def __init__(self, census: Census, sums: Sums) -> None:
        self.census: Census = census
        self.sums: Sums = sums
        self.holds: Out = Out()
        self.latencies: Out = Out()

    def begin(self, p: P, thread: Thread, state: i64) -> None:
        """The thread that has P blocks."""
        p.hold_ns, p.hold_tid, p.hold_state = self.census.now_ns, thread.tid, state
        p.hold_nr, p.hold_stack = thread.nr, thread.stack_id
        p.hold_raw = thread.raw and state == IN_SYSCALL
        p.blocked_ns = p.awake_ns = p.monitor_ns = 0
        p.least = p.most = p.awake_least = p.awake_most = 0
        if p.without_ns < 0:
            p.without_ns = self.census.now_ns

    def end_piece(self, p: P) -> None:
        """A piece of a hold, in one state, ends now; the process is settled."""
        if p.hold_ns < 0:
            return
        process = p.process
        ns = self.census.now_ns - p.since_ns
        least = process.share_least - p.mark_least
        most = process.share_most - p.mark_most
        # Sums in SCALE come round after 21 days of one P; that shows where a piece is as long.
        if least < 0:
            least = LARGEST
        if most < 0:
            most = LARGEST
        if p.state == IN_SYSCALL or p.state == FAULT:
            p.blocked_ns += ns
            p.least = capped(p.least, least)
            p.most = capped(p.most, most)
            p.monitor_ns += process.monitor_ns - p.mark_monitor
        elif p.state == NO_CPU:
            p.awake_ns += ns
            p.awake_least = capped(p.awake_least, least)
            p.awake_most = capped(p.awake_most, most)

    def end(self, p: P, how: i64) -> None:
        """P is released, or its thread goes on with it."""
        process = p.process
        self.sums.settle(process)
        self.end_piece(p)
        p.mark_least, p.mark_most = process.share_least, process.share_most
        p.mark_monitor = process.monitor_ns
        row = self.holds.values
        row = append(row, process.pid)
        row = append(row, p.number)
        row = append(row, p.hold_tid)
        row = append(row, p.hold_ns)
        row = append(row, self.census.now_ns)
        row = append(row, p.hold_nr)
        row = append(row, p.hold_stack)
        row = append(row, p.hold_state)
        row = append(row, how)
        row = append(row, p.blocked_ns)
        row = append(row, p.awake_ns)
        row = append(row, p.least // SCALE)
        row = append(row, p.most // SCALE)
        row = append(row, p.awake_least // SCALE)
        row = append(row, p.awake_most // SCALE)
        row = append(row, p.monitor_ns)
        row = append(row, 1 if p.hold_raw else 0)
        self.holds.values = row
        p.hold_ns = -1
        if how == KEPT:
            p.without_ns = -1

    def end_latency(self, p: P, how: i64) -> None:
        """A goroutine runs on P again, or none will, or nobody knows."""
        out = self.latencies
        out.put(p.process.pid)
        out.put(p.number)
        out.put(p.without_ns)
        out.put(self.census.now_ns)
        out.put(how)
        p.without_ns = -1
