"""Adds up P time by state and lost P time since the last change, and shares out the lost time.

Example: of 2 Ps one is blocked in read and one runs, and W = 3 goroutines are ready and do not
run. One P is lost, to read. Then the other P faults, and two Ps are lost, one to each cause.

The rule: idle Ps and spinning Ms take some of the W goroutines. If n Ps neither run nor are idle,
min(n, W - takers) of them are lost, in equal parts to each of the n. Between two looks W is known
only as an interval, so all of this is computed twice, for the least and the most.

The share of one P is an integral over time that all Ps of a process have in common, as if each
were among the n; a P's own share of a span is the difference of two readings. So a row costs the
same with 2 Ps and with 600. It is kept in units of 1/5040 ns: 1 to 10 Ps divide that without
rest.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from analysis.ptime.engine.moves import FRESH_NS, MANY, Move
from analysis.ptime.engine.rows import FITS, Out, capped, capped_product
from analysis.ptime.engine.state import (
    ANY,
    IDLE,
    IN_SYSCALL,
    K_RUNNABLE,
    MOVING,
    N_STATES,
    RUNNING,
    STATES,
    STOPPED_WORLD,
    UNKNOWN,
    Census,
    Process,
)

SCALE: Final = 5040
"""Shares of lost P time are kept in this part of a ns."""

LONG_NS: Final = 1_000_000_000
"""With as many Ps as Go allows, the shares of so long a time are far below what an i64 holds."""

STALLS: Final = tuple(
    f"{kind}_{end}_{cause}_ns"
    for kind in ("some", "full")
    for end in ("least", "most")
    for cause in ("any", *STATES[1:7])
)
"""Time (not P time) in which a P was lost to a cause, ``some``, and in which none ran a goroutine
meanwhile, ``full``. Causes overlap: ``any`` is no sum of theirs."""

BIN: Final = (
    *("pid", "ts_ns", "p_ns", *(f"{state}_ns" for state in STATES)),
    *(f"least_{state}_ns" for state in STATES[1:7]),
    *(f"most_{state}_ns" for state in STATES[1:7]),
    *("wait_least_ns", "wait_most_ns", "wait_unknown_ns"),
    *STALLS,
)
"""Columns of :attr:`Sums.bins`: all sums of a process from its begin up to ``ts_ns``."""


class Sums:
    """Adds up what everything was in.

    Args:
        census: the processes, and how late it is.
        has_looks: the trace has table waiting.
    """

    def __init__(self, census: Census, has_looks: bool) -> None:
        self.census: Census = census
        self.has_looks: bool = has_looks
        self.bins: Out = Out()

    def look(self, process: Process, move: Move) -> None:
        """What waits from here on, and who could take it (LOOK)."""
        self.settle(process)
        process.least, process.most = move.least, move.most
        process.spin_least, process.spin_most = move.spin_least, move.spin_most
        process.idle_least, process.idle_most = move.idle_least, move.idle_most
        if move.read_least >= 0:
            process.look_ns = self.census.now_ns
            process.read_least, process.timer_ns = move.read_least, move.timer_ns
        process.looked = True
        process.old = move.old
        process.fresh_until_ns = self.census.now_ns + FRESH_NS
        process.ran = process.on_cpu > 0

    def settle(self, process: Process) -> None:
        """Add the time since the last change to what everything was in."""
        now_ns = self.census.now_ns
        if process.ended:
            return
        while process.bin_end_ns <= now_ns:
            self.settle_to(process, process.bin_end_ns)
            self.put_bin(process)
            process.bin_end_ns += self.census.bin_ns
        self.settle_to(process, now_ns)

    def settle_to(self, process: Process, now_ns: i64) -> None:
        """The same, within one bin."""
        ns = now_ns - process.at_ns
        if ns <= 0:
            return
        fresh_until_ns = process.fresh_until_ns
        if process.old and process.at_ns < fresh_until_ns < now_ns:
            self.settle_to(process, fresh_until_ns)
        if process.at_ns < process.timer_ns < now_ns:
            self.settle_to(process, process.timer_ns)
        if ns > LONG_NS:
            # So that no share of lost time, which is counted in SCALE, exceeds an i64.
            step_ns = FITS // (SCALE * (process.count + 1))
            while now_ns - process.at_ns > step_ns:
                self.settle_to(process, process.at_ns + step_ns)
        ns = now_ns - process.at_ns
        if ns <= 0:
            return
        counts, sums = process.counts, process.ns
        # Nobody takes work while no P runs: what was read still waits, and a timer that is due
        # since waits, too.
        stands = (
            process.changed_ns <= process.look_ns
            and counts[RUNNING] == 0
            and counts[MOVING] == 0
            and counts[UNKNOWN] == 0
        )
        stale = process.old and process.ran and process.at_ns >= fresh_until_ns and not stands
        due: i64 = 1 if 0 <= process.timer_ns <= process.at_ns else 0
        process.at_ns = now_ns
        running, idle, unknown = counts[RUNNING], counts[IDLE], counts[UNKNOWN]
        # Those that neither run nor are idle nor unknown; mostly there is none, or one.
        going = process.count - running - idle - unknown
        if running > 0:
            sums[RUNNING] += running * ns
        if idle > 0:
            sums[IDLE] += idle * ns
        if unknown > 0:
            sums[UNKNOWN] += unknown * ns
        state: i64 = IN_SYSCALL
        left = going
        while left > 0:
            n = counts[state]
            if n > 0:
                sums[state] += n * ns
                left -= n
            state += 1
        process.p_ns += process.count * ns
        monitor = process.monitor
        if monitor is not None and monitor.k == K_RUNNABLE:
            process.monitor_ns += ns
        idle_most = idle if unknown == 0 else max(idle, process.idle_most)
        least, most, spin_least, spin_most = (
            process.least,
            process.most,
            process.spin_least,
            process.spin_most,
        )
        if not process.looked or stale:
            least, most, spin_least, spin_most = 0, MANY, 0, 0
        elif not self.has_looks:
            least += process.held_least
            most += process.held_most
            if spin_most == 0 and process.idle_most == 0:
                least += process.held_least_if_nobody
                # What other Ps have queued was not read, and nobody takes it from them.
                if process.count - process.held - idle > 0:
                    most = MANY
        else:
            if stands:
                least = max(least, process.read_least + due)
            if due > 0:
                most = MANY
        if most >= MANY:
            process.wait_unknown_ns += ns
        waited_most = least if most >= MANY else most
        process.wait_most_ns = capped(process.wait_most_ns, capped_product(waited_most, ns))
        process.wait_least_ns = capped(process.wait_least_ns, capped_product(least, ns))
        if idle > 0 and least > spin_most:
            process.idle_beside_ns += min(idle, least - spin_most) * ns
        if going == 0:
            return
        lost_least = min(going, max(0, least - spin_most - idle_most))
        lost_most = min(going, max(0, most - spin_least - idle))
        if lost_most > 0:
            # What a P does that nobody knows may be to run.
            none_most = running == 0
            none_least = none_most and unknown == 0 and lost_least > 0
            process.some_most[ANY] += ns
            if none_most:
                process.full_most[ANY] += ns
            if lost_least > 0:
                process.some_least[ANY] += ns
            if none_least:
                process.full_least[ANY] += ns
            share_least = ns * lost_least * SCALE
            share_most = ns * lost_most * SCALE
            if going > 1:
                share_least //= going
                share_most //= going
            process.share_least += share_least
            process.share_most += share_most
            state = IN_SYSCALL
            left = going
            while left > 0:
                n = counts[state]
                if n > 0:
                    left -= n
                    process.some_most[state] += ns
                    if none_most:
                        process.full_most[state] += ns
                    if none_least:
                        process.full_least[state] += ns
                    if lost_least > 0:
                        process.some_least[state] += ns
                        total = process.rest_least[state] + n * share_least
                        process.lost_least[state] += total // SCALE
                        process.rest_least[state] = total % SCALE
                    total = process.rest_most[state] + n * share_most
                    process.lost_most[state] += total // SCALE
                    process.rest_most[state] = total % SCALE
                state += 1

    def put_bin(self, process: Process) -> None:
        """All sums so far."""
        out = self.bins
        out.put(process.pid)
        out.put(process.at_ns)
        out.put(process.p_ns)
        state: i64 = 0
        while state < N_STATES:
            out.put(process.ns[state])
            state += 1
        for lost in (process.lost_least, process.lost_most):
            state = IN_SYSCALL
            while state <= STOPPED_WORLD:
                out.put(lost[state])
                state += 1
        out.put(process.wait_least_ns)
        out.put(process.wait_most_ns)
        out.put(process.wait_unknown_ns)
        for sums in (
            process.some_least,
            process.some_most,
            process.full_least,
            process.full_most,
        ):
            state = ANY
            while state <= STOPPED_WORLD:
                out.put(sums[state])
                state += 1
