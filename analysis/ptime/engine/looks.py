"""How many goroutines wait: *looks* at the run queues of a process, written down as moves.

Example: at one look 3 goroutines wait, and at the next one 5. In between at least 3 and at most 5
waited, unless more can have come and gone meanwhile. A look also reads who could take them (idle
Ps and spinning Ms). The numbers between two looks are known only at the second look; they are
written down with the time of the first.

A trace without table waiting has the queue of one P at a time, in rows of block and runtime: that
of the P whose thread blocks. From then on other Ms can only take goroutines from that queue.
"""

from __future__ import annotations

from mypy_extensions import i64

from analysis.ptime.engine.beliefs import MAX_P, P, Process
from analysis.ptime.engine.moves import (
    FRESH_NS,
    HELD_QUEUE,
    LOOK,
    MANY,
    NOBODY,
    PROCS,
    REACH_NS,
    STOP_BEGINS,
    STOP_ENDS,
    Move,
    Moves,
)
from analysis.ptime.engine.rows import Rows


class Looks:
    """Makes moves of looks.

    Args:
        moves: takes what follows.
        tells_stops: the runtime tells when the world is to stop; else looks show it
            (``gcwaiting``).
        has_looks: the trace has table waiting. Else rows of block and runtime are the looks.
    """

    def __init__(self, moves: Moves, tells_stops: bool, has_looks: bool) -> None:
        self.moves: Moves = moves
        self.tells_stops: bool = tells_stops
        self.has_looks: bool = has_looks

    def of_waiting(self, process: Process, ns: i64, row: Rows) -> None:
        """A row of table waiting: what waits in all queues, and who could take it."""
        timer_ns = row.get(2)
        least, most, queued = row.get(4), row.get(5), row.get(6)
        if ns - row.get(1) > FRESH_NS:
            # What is remembered of the others is as old as that.
            most = -1
        timers, idle, spinning = row.get(7), row.get(8), row.get(9)
        procs, unseen = row.get(10), row.get(11)
        if procs > 0 and procs <= MAX_P and procs != process.procs:
            process.procs = procs
            move = Move(ns, PROCS, process.pid, -1, 0, NOBODY)
            move.least = procs
            self.moves.put(move)
        waits = max(queued, 0) + max(timers, 0)
        look = Move(ns, LOOK, process.pid, -1, 0, NOBODY)
        look.least = look.read_least = max(least, 0) + waits
        look.most = most + max(queued, 0) if most >= 0 and queued >= 0 and unseen <= 0 else MANY
        if timers < 0 or (timers > 0 and timer_ns < 0):
            look.most = MANY
        look.timer_ns = timer_ns if timer_ns > ns else -1
        if spinning < 0:
            look.spin_least, look.spin_most = 0, MANY
        else:
            look.spin_least = look.spin_most = spinning
        if idle < 0:
            look.idle_least, look.idle_most = 0, MANY
        else:
            look.idle_least = look.idle_most = idle
        self.write(process, look, max(timers, 0), timer_ns)
        wanted = row.get(12)
        if not self.tells_stops and wanted >= 0 and (wanted == 1) != process.stopping:
            process.stopping = wanted == 1
            kind: i64 = STOP_BEGINS if process.stopping else STOP_ENDS
            move = Move(ns, kind, process.pid, -1, 0, NOBODY)
            move.old = True
            self.moves.put(move)

    def of_row(self, process: Process, ns: i64, queued: i64, idle: i64, spinning: i64) -> None:
        """A row of a trace without table waiting: of the queues it tells the global one."""
        if queued < 0 or idle < 0 or spinning < 0:
            return
        look = Move(ns, LOOK, process.pid, -1, 0, NOBODY)
        look.least = look.most = look.read_least = queued
        look.spin_least = look.spin_most = spinning
        look.idle_least = look.idle_most = idle
        self.write(process, look, 0, -1)

    def write(self, process: Process, look: Move, timers: i64, timer_ns: i64) -> None:
        """Write down what waited since the look before: as much as at either, and what is between.

        ``look`` has what was read now. A timer that is due now has been since ``timer_ns``.
        """
        ns = look.ns
        before = process.tail
        since_ns = process.looked_ns
        if before is not None and ns - since_ns <= REACH_NS:
            # In its place: the tail is the look that lies there already.
            at_least = before.least
            before.least = min(look.least - timers, at_least)
            # A timer that is due now was not before its time. Of each P only the first one was
            # looked at, so from then on there may be any number of them.
            before.most = max(look.most, before.most)
            if timers > 0 and timer_ns <= since_ns:
                before.most = MANY
            before.spin_least = min(look.spin_least, before.spin_least)
            before.spin_most = max(look.spin_most, before.spin_most)
            before.idle_least = min(look.idle_least, before.idle_least)
            before.idle_most = max(look.idle_most, before.idle_most)
            before.old = ns - since_ns > FRESH_NS
            if timers > 0 and timer_ns > 0 and timer_ns < ns:
                due = Move(max(since_ns, timer_ns), LOOK, process.pid, -1, 0, NOBODY)
                due.least = min(look.least, at_least + 1)
                due.most = MANY
                due.spin_least, due.spin_most = before.spin_least, before.spin_most
                due.idle_least, due.idle_most = before.idle_least, before.idle_most
                due.old = before.old
                self.moves.put(due)
        look.old = True
        if timers > 0:
            look.most = MANY
        process.tail = look
        process.looked_ns = ns
        self.moves.put(look)

    def queue_read(
        self, process: Process, p: P, ns: i64, runq: i64, idle: i64, spinning: i64
    ) -> None:
        """How much was in P's queue as its thread blocked; then others only take from it."""
        if self.has_looks or runq < 0:
            return
        move = Move(ns, HELD_QUEUE, process.pid, p.number, 0, NOBODY)
        move.most = runq
        # Who has nothing to run takes from the others: nobody was there to.
        move.least = runq if idle == 0 and spinning == 0 else 0
        p.queue = move
        self.moves.put(move)

    def queue_end(self, process: Process, p: P, ns: i64, runq: i64) -> None:
        """How much is in it as it is taken: it was never less meanwhile."""
        read = p.queue
        p.queue = None
        if read is None or runq < 0:
            return
        if ns - read.ns > REACH_NS:
            read = Move(ns - REACH_NS, HELD_QUEUE, process.pid, p.number, 0, NOBODY)
            read.most = runq
            self.moves.put(read)
        read.least = min(read.most, runq)
        read.old = True
