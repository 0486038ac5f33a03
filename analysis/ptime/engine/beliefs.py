"""Which thread is believed to have each P (for :mod:`owners <analysis.ptime.engine.owners>`).

Example: P 0 is believed to be with thread 11, and a row shows it with thread 12. So thread 11 lost
it. A row shows that a thread has a P, or that it has none. :class:`Beliefs` derives what follows
for Ps and threads that the row does not name, since when, and from when on their state is unknown.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from analysis.ptime.engine.moves import (
    DEAD,
    DOUBT,
    NOBODY,
    NOWHERE,
    ON_LIST,
    OWN,
    REACH_NS,
    WITH,
    Move,
    Moves,
)
from analysis.ptime.engine.tids import Tids

MAX_P: Final = 1 << 16
"""Go allows fewer Ps than this; a higher number is no P's."""


class P:
    """Where a P is, as far as rows told."""

    def __init__(self, number: i64) -> None:
        self.number: i64 = number
        self.where: i64 = NOWHERE
        self.tid: i64 = NOBODY
        self.told_ns: i64 = -1
        """The last row that agreed with this."""
        self.moves: list[Move] = []
        """The last ones, for a row that says otherwise."""
        self.queue: Move | None = None
        """How much waited in its queue when its thread blocked."""


class Thread:
    """What a thread had, and when it came back from its last call."""

    def __init__(self, tid: i64) -> None:
        self.tid: i64 = tid
        self.pid: i64 = -1
        self.p: i64 = NOBODY
        self.told_ns: i64 = -1
        """The last row that told of its P, or that it has none."""
        self.exit_ns: i64 = -1
        self.acquired_ns: i64 = -1
        self.in_call: bool = False
        """It blocked in a call of its goroutine's, and has not returned."""


class Process:
    """The Ps of a process, and the last look at what waits in it."""

    def __init__(self, pid: i64) -> None:
        self.pid: i64 = pid
        self.ps: list[P] = []
        self.looked_ns: i64 = -1
        self.tail: Move | None = None
        self.procs: i64 = 0
        self.stopping: bool = False

    def p(self, number: i64) -> P:
        """The P of that number; all below it are there then."""
        while len(self.ps) <= number:
            self.ps.append(P(len(self.ps)))
        return self.ps[number]


class Beliefs:
    """The Ps, threads and processes, as far as rows told.

    Args:
        moves: takes what follows.
        only_pid: the process of threads that no row of table task names; -1 for none.
    """

    def __init__(self, moves: Moves, only_pid: i64) -> None:
        self.moves: Moves = moves
        self.only_pid: i64 = only_pid
        self.tids: Tids = Tids()
        self.threads: list[Thread] = []
        """By the places of ``tids``."""
        self.processes: dict[int, Process] = {}
        self.last: Process | None = None
        """The one that was asked for last: of most traces the only one, and asked at each row."""
        self.now_ns: i64 = 0
        """The time of the row at hand."""
        self.nonsense: i64 = 0
        """Rows about a P that cannot be."""

    # Who has a P.

    def bind(self, process: Process, p: P, ns: i64, thread: Thread) -> None:
        """A row shows P with this thread."""
        self.bind_since(process, p, ns, thread, -1)

    def bind_since(self, process: Process, p: P, ns: i64, thread: Thread, since_ns: i64) -> None:
        """A row shows P with this thread; at ``since_ns`` it was seen elsewhere, -1 if not."""
        if p.where == WITH and p.tid == thread.tid:
            p.told_ns = ns
            thread.p, thread.told_ns = p.number, ns
            return
        # Of two at a time: mypyc compiles no max of three, and calls Python's.
        known_ns = max(max(p.told_ns, since_ns), ns - REACH_NS)
        back_ns = thread.exit_ns
        had = thread.p
        from_call = p.where == WITH and self.thread(p.tid).in_call
        begins = p.where == DEAD
        if had == NOBODY and not begins and back_ns > known_ns and thread.told_ns <= back_ns:
            # It came back without a P, and found this one: from another's call, or idle.
            self.release(p)
            self.set(process, p, back_ns, WITH, thread.tid)
            p.told_ns = ns
        else:
            if from_call or (p.where != NOWHERE and not begins and had == NOBODY):
                self.doubt(process, p, known_ns)
            # Else the thread gave up a P, and took this one, while it ran: when changes no sum.
            self.release(p)
            self.set(process, p, ns, WITH, thread.tid)
        self.lose_other(process, thread, p.number, ns)
        thread.p, thread.told_ns = p.number, ns

    def has_none(self, process: Process, thread: Thread, since_ns: i64) -> None:
        """A row shows that this thread has no P; it had one at ``since_ns`` at the latest."""
        if thread.p >= 0 and thread.p < len(process.ps):
            p = process.ps[thread.p]
            if p.where == WITH and p.tid == thread.tid:
                self.doubt(process, p, max(p.told_ns, min(since_ns, self.now_ns)))
                p.where, p.tid = NOWHERE, NOBODY
        thread.p, thread.told_ns = NOBODY, self.now_ns

    def lose_other(self, process: Process, thread: Thread, number: i64, ns: i64) -> None:
        """The thread has this P, so whatever else it was thought to have is idle."""
        if thread.p == number or thread.p < 0 or thread.p >= len(process.ps):
            return
        other = process.ps[thread.p]
        if other.where == WITH and other.tid == thread.tid:
            self.set(process, other, ns, ON_LIST, NOBODY)

    def release(self, p: P) -> None:
        """P is no longer with whom it was with."""
        if p.where == WITH and p.tid >= 0:
            thread = self.thread(p.tid)
            if thread.p == p.number:
                thread.p, thread.told_ns = NOBODY, self.now_ns

    def end_beyond(self, process: Process) -> None:
        """GOMAXPROCS is smaller now: the Ps beyond it are no more, and nobody has one of them."""
        for p in process.ps:
            if p.number >= process.procs and p.where != DEAD:
                self.release(p)
                self.set(process, p, self.now_ns, DEAD, NOBODY)

    def bound_by(self, since_ns: i64, process: Process, p: P, ns: i64) -> None:
        """The change at hand lies somewhere after ``since_ns``: what P was in is unknown there."""
        if since_ns >= 0 and since_ns < ns:
            self.doubt(process, p, max(since_ns, p.told_ns), True)

    def doubt(self, process: Process, p: P, since_ns: i64, bounded: bool = False) -> None:
        """After this moment P was no longer where it was thought to be, or may not have been."""
        ns = max(max(since_ns + 1, self.now_ns - REACH_NS), 0)
        if ns >= self.now_ns:
            return
        self.cancel(p, ns)
        move = Move(ns, DOUBT, process.pid, p.number, NOWHERE, NOBODY)
        move.old = bounded
        p.moves.append(move)
        self.moves.put(move)

    def set(self, process: Process, p: P, ns: i64, where: i64, tid: i64) -> None:
        """P is there from this moment on."""
        if p.where == where and p.tid == tid and not (p.moves and p.moves[-1].kind == DOUBT):
            p.told_ns = max(p.told_ns, ns)
            return
        self.cancel(p, ns)
        move = Move(ns, OWN, process.pid, p.number, where, tid)
        p.moves.append(move)
        self.moves.put(move)
        p.where, p.tid = where, tid
        p.told_ns = max(p.told_ns, ns)

    def cancel(self, p: P, ns: i64) -> None:
        """Take back what was said of P from this moment on."""
        while p.moves and p.moves[-1].ns > ns:
            p.moves.pop().dead = True
        if len(p.moves) > 64:
            p.moves = p.moves[-32:]

    # Where things are kept.

    def thread(self, tid: i64) -> Thread:
        """The thread of that number."""
        place = self.tids.place(tid)
        if place < len(self.threads):
            return self.threads[place]
        made = Thread(tid)
        made.pid = self.only_pid
        self.threads.append(made)
        return made

    def process(self, pid: i64) -> Process:
        """The process of that number."""
        last = self.last
        if last is not None and last.pid == pid:
            return last
        found = self.processes.get(pid)
        if found is None:
            found = Process(pid)
            self.processes[pid] = found
        self.last = found
        return found

    def process_of(self, thread: Thread) -> Process:
        """The thread's process."""
        return self.process(thread.pid)

    def p_of(self, process: Process, number: i64) -> P | None:
        """The P of that number; None where there can be none, which is counted."""
        if number >= MAX_P:
            self.nonsense += 1
            return None
        return process.p(number)
