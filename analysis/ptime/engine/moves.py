"""*Moves*: changes of Ps that the first half of the pass writes and the second half reads.

For example: from this moment on P 3 is with thread 512, or is idle. A move follows from rows. Some
moves become known later than they happened, and are then written with an earlier time than those
that are there already: :mod:`owners <analysis.ptime.engine.owners>` explains why, and how far
back.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64, mypyc_attr

REACH_NS: Final = 1_000_000_000
"""How far behind the row at hand a move may be written: how long a takeback, or the second of two
looks, may take to show. Go's sysmon looks at least every 10 ms."""

FRESH_NS: Final = 20_000_000
"""A look says nothing of what waits so long after it, unless nobody ran meanwhile."""

MANY: Final = 1 << 33
"""Stands for "any number" of goroutines that wait: more than three counts of 31 bits."""

NOBODY: Final = -1

# Where a P is. NOWHERE: nobody knows; ON_LIST: on that of idle Ps.
NOWHERE: Final = 0
WITH: Final = 1
TRANSIT: Final = 2
ON_LIST: Final = 3
STW: Final = 4
DEAD: Final = 5

# Kinds of moves.
OWN: Final = 0
DOUBT: Final = 1
LOOK: Final = 2
HELD_QUEUE: Final = 3
TAKEN: Final = 4
STOP_BEGINS: Final = 5
STOP_STANDS: Final = 6
STOP_ENDS: Final = 7
PROCS: Final = 8
STAYS: Final = 9


@mypyc_attr(acyclic=True)
class Move:
    """One thing that follows from rows.

    Args:
        ns: from when.
        kind: OWN … PROCS.
        pid: the process.
        p: the P, or -1.
        where: for OWN: NOWHERE … DEAD.
        tid: for OWN the thread that has it, for TAKEN the one that lost it, for a stop who stops.
        a: further numbers, by kind.
    """

    def __init__(self, ns: i64, kind: i64, pid: i64, p: i64, where: i64, tid: i64) -> None:
        self.ns: i64 = ns
        self.kind: i64 = kind
        self.pid: i64 = pid
        self.p: i64 = p
        self.where: i64 = where
        self.tid: i64 = tid
        self.dead: bool = False
        """A later row said otherwise."""
        # Of LOOK: goroutines that wait, Ps and Ms that could take them; HELD_QUEUE: of one P.
        self.least: i64 = 0
        self.most: i64 = 0
        self.spin_least: i64 = 0
        self.spin_most: i64 = 0
        self.idle_least: i64 = 0
        self.idle_most: i64 = 0
        self.old: bool = False
        """LOOK: the next one is further than FRESH_NS; HELD_QUEUE: read at both ends; STOP_BEGINS:
        seen only later than it was."""
        self.read_least: i64 = -1
        """Of LOOK: how many waited at that very moment, at least; -1: the last reading stands."""
        self.timer_ns: i64 = -1
        """Of LOOK: when the first timer was to be due then, -1 for none."""


class Moves:
    """The moves of which a later row may still say otherwise."""

    def __init__(self) -> None:
        self.moves: list[Move] = []

    def put(self, move: Move) -> None:
        """Write a move down in its place: behind those of the same moment."""
        if not self.moves or self.moves[-1].ns <= move.ns:
            self.moves.append(move)
        else:
            self.moves.insert(self.place(move.ns), move)

    def place(self, ns: i64) -> i64:
        """How many moves are at or before this moment."""
        # Most are asked for near the end, and there may be a million: in growing steps from there.
        low: i64 = 0
        high: i64 = len(self.moves)
        step: i64 = 1
        while step < high:
            if self.moves[high - step].ns <= ns:
                low = high - step + 1
                break
            high -= step
            step *= 2
        while low < high:
            middle = (low + high) // 2
            if self.moves[middle].ns <= ns:
                low = middle + 1
            else:
                high = middle
        return low

    def forget(self, count: i64) -> None:
        """The first moves are settled."""
        del self.moves[:count]
