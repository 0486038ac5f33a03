"""Who has each P: the first half of the pass over a trace, which writes down *moves*.

**Concepts.** A *row* tells something of one moment. A *move* is what follows from rows: from this
moment on P 3 is with thread 512, or on its way to one, or idle. Most moves are told when they
happen (``retake``, ``acquirep``, ``run``). Some show only later. In Go an M that returns from a
call may take P from another M's call, and tells nobody; the next block of that thread with P says
that it was so, and the thread's return from its own call says since when. So a move may be
written down *behind* the row at hand, up to :data:`REACH_NS`, and ``account``, which reads the
moves, stays as far behind. A *look* is a reading of what waits; what waited between two looks is
known when the second comes, and is written down at the first.

Example, with the times of rows in ms:

    1  block    thread 11 with P 0               P 0 is with 11 (that it is blocked: account)
    3  syscall  thread 12, without a P, returns  nothing follows yet
    5  block    thread 12 with P 0               so P 0 is with 12 since 3: written at 5

**Doubt.** Where a row contradicts what was believed and nothing tells since when, the P is in
doubt from the last row that agreed. What is certain all the same (its thread ran on) stays; the
rest is unknown.

**Rejected.** *Searching time lines* ("the first retake of this P after that block") reads what it
needs many times, and each question is right or wrong by itself: the holds of a server with two Ps
added up to twice the time there was. *One loop without lag* cannot know of a takeback before it
has counted the time. *Reading windows backwards first* makes results depend on where the cuts lie.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64, mypyc_attr

from analysis.ptime.engine.rows import (
    BLOCK,
    EDGE,
    LOSS_ENDS,
    NEVER,
    PSTATE,
    RUNTIME,
    SYSCALL,
    TASK,
    WAITING,
    Rows,
)

__all__ = [
    "DEAD",
    "DOUBT",
    "FRESH_NS",
    "HELD_QUEUE",
    "IDLE",
    "LOOK",
    "MANY",
    "NOBODY",
    "NOWHERE",
    "OWN",
    "PROCS",
    "REACH_NS",
    "STAYS",
    "STOP_BEGINS",
    "STOP_ENDS",
    "STOP_STANDS",
    "STW",
    "TAKEN",
    "TRANSIT",
    "USE_HANDED_OFF",
    "USE_RAW",
    "WITH",
    "Move",
    "Owners",
]

REACH_NS: Final = 1_000_000_000
"""How far behind the row at hand a move may be written: how long a takeback, or the second of two
looks, may take to show. Go's sysmon looks at least every 10 ms."""

FRESH_NS: Final = 20_000_000
"""A look says nothing of what waits so long after it, unless nobody ran meanwhile."""

MANY: Final = 1 << 33
"""Stands for "any number" of goroutines that wait: more than three counts of 31 bits."""

NOBODY: Final = -1

# Where a P is; ``NOWHERE`` is not known.
NOWHERE: Final = 0
WITH: Final = 1
TRANSIT: Final = 2
IDLE: Final = 3
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

# Numbers of words (tracer/trace/words.py, schema.py); tests/unit/analysis/test_budget.py holds
# them to the declarations.
USE_SYSCALL: Final = 0
USE_RAW: Final = 1
USE_HANDED_OFF: Final = 2
RETAKE: Final = 0
HANDOFF: Final = 1
STARTM: Final = 2
ACQUIREP: Final = 3
RUN: Final = 4
PIDLE: Final = 5
EXIT_SLOW: Final = 6
STOPM: Final = 7
PREEMPT_REQUEST: Final = 8
PREEMPTED: Final = 9
STW_START: Final = 11
STW_STOPPED: Final = 12
STW_END: Final = 13
BY_STW: Final = 8
BY_EXITSYSCALL: Final = 21
SEEN_IDLE: Final = 0
SEEN_RUNNING: Final = 1
SEEN_SYSCALL: Final = 2
SEEN_GCSTOP: Final = 3
SEEN_DEAD: Final = 4
TASK_EXEC: Final = 2

POLLS: Final = (232, 281, 441)
"""epoll_wait, epoll_pwait, epoll_pwait2: where Go's M without work waits, and without its P."""

MAX_P: Final = 1 << 16
"""Go allows fewer Ps than this; a higher number is no P's."""


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


class _P:
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


class _Thread:
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


class _Process:
    """The Ps of a process, and the last look at what waits in it."""

    def __init__(self, pid: i64) -> None:
        self.pid: i64 = pid
        self.ps: list[_P] = []
        self.looked_ns: i64 = -1
        self.tail: Move | None = None
        self.procs: i64 = 0
        self.stopping: bool = False

    def p(self, number: i64) -> _P:
        """The P of that number; all below it are there then."""
        while len(self.ps) <= number:
            self.ps.append(_P(len(self.ps)))
        return self.ps[number]


class Owners:
    """Makes moves from rows.

    Args:
        tells_run: the runtime tells the first goroutine on a P (kind ``run``): P is on its way
            until then, not only until an M has it.
        tells_stops: it tells when the world is to stop; else looks show it (``gcwaiting``).
        has_looks: the trace has table waiting. Else rows of block and runtime are the looks.
        only_pid: the process of threads that no row of table task names; -1 for none.
    """

    def __init__(self, tells_run: bool, tells_stops: bool, has_looks: bool, only_pid: i64) -> None:
        self.tells_run: bool = tells_run
        self.tells_stops: bool = tells_stops
        self.has_looks: bool = has_looks
        self.only_pid: i64 = only_pid
        self.threads: dict[int, _Thread] = {}
        self.processes: dict[int, _Process] = {}
        self.moves: list[Move] = []
        self.now_ns: i64 = 0
        self.nonsense: i64 = 0
        """Rows about a P that cannot be."""

    # What the driver calls.

    def know(self, tid: i64, pid: i64) -> None:
        """A thread and its process, before the first row."""
        self.thread(tid).pid = pid

    def feed(self, tables: list[Rows]) -> None:
        """Take the rows of one window, all tables merged in the order of time.

        Args:
            tables: by :data:`analysis.ptime.engine.rows.COLUMNS`.
        """
        task, block, syscall = tables[TASK], tables[BLOCK], tables[SYSCALL]
        runtime, pstate, waiting = tables[RUNTIME], tables[PSTATE], tables[WAITING]
        edge = tables[EDGE]
        while True:
            ns = task.ts_ns
            first = task
            if block.ts_ns < ns:
                ns, first = block.ts_ns, block
            if syscall.ts_ns < ns:
                ns, first = syscall.ts_ns, syscall
            if runtime.ts_ns < ns:
                ns, first = runtime.ts_ns, runtime
            elif runtime.ts_ns == ns and first is syscall and runtime.get(5) == ACQUIREP:
                # An M that was given a P as it woke has it before its wait is over.
                first = runtime
            if pstate.ts_ns < ns:
                ns, first = pstate.ts_ns, pstate
            if waiting.ts_ns < ns:
                ns, first = waiting.ts_ns, waiting
            if edge.ts_ns < ns:
                ns, first = edge.ts_ns, edge
            if ns == NEVER:
                return
            if ns > self.now_ns:
                self.now_ns = ns
            if first is syscall:
                self.on_exit(syscall.get(2), syscall.get(3), syscall.get(4))
            elif first is block:
                self.on_block(block)
            elif first is runtime:
                self.on_runtime(runtime)
            elif first is pstate:
                self.on_pstate(pstate)
            elif first is waiting:
                self.on_waiting(waiting)
            elif first is edge:
                if edge.get(2) == LOSS_ENDS:
                    self.lost(edge.ts_ns)
            else:
                self.thread(task.get(1)).pid = task.get(2)
                if task.get(3) == TASK_EXEC:
                    self.on_exec(task.get(2))
            first.seek(first.at + 1)

    def lost(self, end_ns: i64) -> None:
        """Rows were lost up to here: nothing that was known before is known after."""
        for process in self.processes.values():
            for p in process.ps:
                p.where, p.tid, p.told_ns = NOWHERE, NOBODY, end_ns
                p.queue = None
                p.moves = []
            process.looked_ns = -1
            process.tail = None
        for thread in self.threads.values():
            thread.p, thread.told_ns, thread.in_call = NOBODY, end_ns, False

    def ready(self, until_ns: i64) -> list[Move]:
        """The moves up to a moment, in the order of time; they are forgotten here."""
        low = self.place(until_ns)
        done = [move for move in self.moves[:low] if not move.dead]
        self.moves = self.moves[low:]
        return done

    # Rows.

    def on_exec(self, pid: i64) -> None:
        """Another program: its Ps are not those of the one before."""
        process = self.processes.get(pid)
        if process is None:
            return
        for p in process.ps:
            self.set(process, p, self.now_ns, DEAD, NOBODY)
        process.ps = []
        process.looked_ns = -1
        process.tail = None
        process.procs = 0

    def on_exit(self, tid: i64, nr: i64, blocks: i64) -> None:
        """A thread returned from a call.

        Where it blocked without a row of table block it ran no goroutine. Go's M has then given
        up its P (stopm, netpoll) and is given one as it wakes (``acquirep``); but for a wait for
        a lock of the runtime's, through which it keeps the P that it has.
        """
        thread = self.thread(tid)
        if not self.tells_run and not thread.in_call and blocks != 0 and thread.p >= 0:
            process = self.process_of(thread)
            p = process.p(thread.p)
            if p.where == WITH and p.tid == tid and thread.acquired_ns <= thread.exit_ns:
                # Not when others told of it: they may have done so while it was blocked.
                since_ns = max(thread.exit_ns, thread.acquired_ns)
                if nr in POLLS:
                    # As it parked: the account has that already.
                    p.where, p.tid, p.told_ns = IDLE, NOBODY, since_ns
                    thread.p, thread.told_ns = NOBODY, since_ns
                else:
                    stays_ns = max(since_ns + 1, self.now_ns - REACH_NS)
                    self.put(Move(stays_ns, STAYS, process.pid, p.number, 0, tid))
        thread.exit_ns = self.now_ns
        thread.in_call = False

    def on_block(self, row: Rows) -> None:
        """A thread blocked, and its runtime's memory said whose P it has."""
        ns = self.now_ns
        thread = self.thread(row.get(2))
        number, use, nr = row.get(3), row.get(4), row.get(6)
        process = self.process_of(thread)
        if not self.has_looks:
            self.look_of_row(process, ns, row.get(9), row.get(10), row.get(11))
        if (use in (USE_SYSCALL, USE_RAW) or use == -1) and number >= 0:
            p = self.p_of(process, number)
            if p is not None:
                self.bind(process, p, ns, thread)
                self.queue_read(process, p, ns, row.get(8), row.get(10), row.get(11))
        elif use == USE_HANDED_OFF:
            enter_ns = row.get(1)
            self.has_none(process, thread, enter_ns if enter_ns >= 0 else ns)
        thread.in_call = nr >= 0 or use >= 0

    def on_runtime(self, row: Rows) -> None:
        """The runtime told a transition, or it was inferred and lies in (since_ns, ts_ns]."""
        ns, since_ns, tid = self.now_ns, row.get(1), row.get(2)
        number, target, kind, reason = row.get(3), row.get(4), row.get(5), row.get(6)
        thread = self.thread(tid)
        process = self.process_of(thread)
        if not self.has_looks:
            self.look_of_row(process, ns, row.get(8), row.get(9), row.get(10))
        p = self.p_of(process, number) if number >= 0 else None
        if kind in (EXIT_SLOW, STOPM):
            self.has_none(process, thread, ns)
        elif kind == STW_START:
            begins = Move(ns, STOP_BEGINS, process.pid, -1, 0, tid)
            begins.old = since_ns >= 0
            self.put(begins)
        elif kind == STW_STOPPED:
            self.put(Move(ns, STOP_STANDS, process.pid, -1, 0, tid))
        elif kind == STW_END:
            self.put(Move(ns, STOP_ENDS, process.pid, -1, 0, tid))
        elif p is None:
            return
        elif kind == RETAKE:
            self.on_retake(process, p, ns, since_ns, tid, target, reason, row.get(7))
        elif kind == HANDOFF:
            if p.where == WITH and p.tid == tid:
                self.bound_by(since_ns, process, p, ns)
            self.queue_end(process, p, ns, row.get(7))
            self.release(p)
            self.set(process, p, ns, TRANSIT, NOBODY)
        elif kind == STARTM:
            self.bound_by(since_ns, process, p, ns)
            if p.where == WITH:
                self.release(p)
            self.set(process, p, ns, TRANSIT, NOBODY)
        elif kind in (ACQUIREP, RUN):
            self.on_acquire(process, p, ns, since_ns, thread, kind)
        elif kind == PIDLE:
            # Told after P is on the list: somebody may have taken it from there already.
            if p.where != WITH or p.tid == tid or self.thread(p.tid).in_call:
                self.bound_by(since_ns, process, p, ns)
                self.release(p)
                self.set(process, p, ns, IDLE, NOBODY)
        elif kind == PREEMPT_REQUEST:
            if target >= 0:
                self.bind(process, p, ns, self.thread(target))
        elif kind == PREEMPTED:
            self.bind(process, p, ns, thread)

    def on_retake(
        self,
        process: _Process,
        p: _P,
        ns: i64,
        since_ns: i64,
        tid: i64,
        target: i64,
        reason: i64,
        runq: i64,
    ) -> None:
        """Somebody took P from a thread in a call."""
        if target < 0 and p.where == WITH:
            target = p.tid
        elif target >= 0 and (p.where != WITH or p.tid != target):
            self.bind(process, p, ns, self.thread(target))
        self.put(Move(ns, TAKEN, process.pid, p.number, reason, target))
        self.queue_end(process, p, ns, runq)
        self.bound_by(since_ns, process, p, ns)
        self.release(p)
        if reason == BY_EXITSYSCALL:
            taker = self.thread(tid)
            self.set(process, p, ns, WITH, tid)
            taker.p, taker.told_ns = p.number, ns
        else:
            self.set(process, p, ns, STW if reason == BY_STW else TRANSIT, NOBODY)

    def on_acquire(
        self, process: _Process, p: _P, ns: i64, since_ns: i64, thread: _Thread, kind: i64
    ) -> None:
        """An M has P, or runs the first goroutine on it."""
        if p.where == WITH and p.tid != thread.tid and self.thread(p.tid).in_call:
            # Taken from a call, and nobody told.
            self.doubt(process, p, p.told_ns)
        if p.where != WITH or p.tid != thread.tid:
            self.bound_by(since_ns, process, p, ns)
            self.release(p)
        self.lose_other(process, thread, p.number, ns)
        thread.p, thread.told_ns, thread.acquired_ns = p.number, ns, ns
        if kind == ACQUIREP and self.tells_run and p.where in (TRANSIT, NOWHERE):
            # On its way until a goroutine runs. Where it was before is not known after a loss:
            # then neither is whether one does.
            p.told_ns = ns
            return
        if kind == ACQUIREP and p.where == WITH and p.tid == thread.tid:
            # It parked meanwhile, and is given the same P again.
            p.where, p.tid = IDLE, NOBODY
        self.set(process, p, ns, WITH, thread.tid)

    def on_pstate(self, row: Rows) -> None:
        """A P was seen in another state than at the look before."""
        ns, since_ns, tid, status = self.now_ns, row.get(1), row.get(4), row.get(5)
        process = self.process(row.get(2))
        p = self.p_of(process, row.get(3)) if row.get(3) >= 0 else None
        if p is None:
            return
        if status == SEEN_DEAD:
            self.set(process, p, ns, DEAD, NOBODY)
        elif status in (SEEN_RUNNING, SEEN_SYSCALL):
            if tid >= 0:
                thread = self.thread(tid)
                if thread.pid < 0:
                    thread.pid = process.pid
                if not (p.where == TRANSIT and self.tells_run):
                    self.bind_since(process, p, ns, thread, since_ns)
        elif status in (SEEN_IDLE, SEEN_GCSTOP):
            where: i64 = IDLE if status == SEEN_IDLE else STW
            if p.where == where or (p.where == TRANSIT and status == SEEN_IDLE):
                # Go's P has the status idle, too, while it is handed from one M to another.
                p.told_ns = ns
                return
            if p.where == WITH and self.thread(p.tid).in_call:
                self.doubt(process, p, max(since_ns, p.told_ns))
            elif p.where == TRANSIT:
                # It found nothing to run at some moment since.
                self.doubt(process, p, max(since_ns, p.told_ns))
            self.release(p)
            self.set(process, p, ns, where, NOBODY)

    def on_waiting(self, row: Rows) -> None:
        """A look at what waits in all queues, and at who could take it."""
        ns, timer_ns = self.now_ns, row.get(2)
        process = self.process(row.get(3))
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
            self.put(move)
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
        self.look(process, look, max(timers, 0), timer_ns)
        wanted = row.get(12)
        if not self.tells_stops and wanted >= 0 and (wanted == 1) != process.stopping:
            process.stopping = wanted == 1
            kind: i64 = STOP_BEGINS if process.stopping else STOP_ENDS
            move = Move(ns, kind, process.pid, -1, 0, NOBODY)
            move.old = True
            self.put(move)

    # Looks.

    def look_of_row(
        self, process: _Process, ns: i64, queued: i64, idle: i64, spinning: i64
    ) -> None:
        """A row of a trace without table waiting: of the queues it tells the global one."""
        if queued < 0 or idle < 0 or spinning < 0:
            return
        look = Move(ns, LOOK, process.pid, -1, 0, NOBODY)
        look.least = look.most = look.read_least = queued
        look.spin_least = look.spin_most = spinning
        look.idle_least = look.idle_most = idle
        self.look(process, look, 0, -1)

    def look(self, process: _Process, look: Move, timers: i64, timer_ns: i64) -> None:
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
                self.put(due)
        look.old = True
        if timers > 0:
            look.most = MANY
        process.tail = look
        process.looked_ns = ns
        self.put(look)

    def queue_read(
        self, process: _Process, p: _P, ns: i64, runq: i64, idle: i64, spinning: i64
    ) -> None:
        """How much was in P's queue as its thread blocked; then others only take from it."""
        if self.has_looks or runq < 0:
            return
        move = Move(ns, HELD_QUEUE, process.pid, p.number, 0, NOBODY)
        move.most = runq
        # Who has nothing to run takes from the others: nobody was there to.
        move.least = runq if idle == 0 and spinning == 0 else 0
        p.queue = move
        self.put(move)

    def queue_end(self, process: _Process, p: _P, ns: i64, runq: i64) -> None:
        """How much is in it as it is taken: it was never less meanwhile."""
        read = p.queue
        p.queue = None
        if read is None or runq < 0:
            return
        if ns - read.ns > REACH_NS:
            read = Move(ns - REACH_NS, HELD_QUEUE, process.pid, p.number, 0, NOBODY)
            read.most = runq
            self.put(read)
        read.least = min(read.most, runq)
        read.old = True

    # Who has a P.

    def bind(self, process: _Process, p: _P, ns: i64, thread: _Thread) -> None:
        """A row shows P with this thread."""
        self.bind_since(process, p, ns, thread, -1)

    def bind_since(
        self, process: _Process, p: _P, ns: i64, thread: _Thread, since_ns: i64
    ) -> None:
        """A row shows P with this thread; at ``since_ns`` it was seen elsewhere, -1 if not."""
        if p.where == WITH and p.tid == thread.tid:
            p.told_ns = ns
            thread.p, thread.told_ns = p.number, ns
            return
        known_ns = max(p.told_ns, since_ns, ns - REACH_NS)
        back_ns = thread.exit_ns
        had = thread.p
        from_call = p.where == WITH and self.thread(p.tid).in_call
        if had == NOBODY and back_ns > known_ns and thread.told_ns <= back_ns:
            # It came back without a P, and found this one: from another's call, or idle.
            self.release(p)
            self.set(process, p, back_ns, WITH, thread.tid)
            p.told_ns = ns
        else:
            if from_call or (p.where != NOWHERE and had == NOBODY):
                self.doubt(process, p, known_ns)
            # Else the thread gave up a P, and took this one, while it ran: when changes no sum.
            self.release(p)
            self.set(process, p, ns, WITH, thread.tid)
        self.lose_other(process, thread, p.number, ns)
        thread.p, thread.told_ns = p.number, ns

    def has_none(self, process: _Process, thread: _Thread, since_ns: i64) -> None:
        """A row shows that this thread has no P; it had one at ``since_ns`` at the latest."""
        if thread.p >= 0 and thread.p < len(process.ps):
            p = process.ps[thread.p]
            if p.where == WITH and p.tid == thread.tid:
                self.doubt(process, p, max(p.told_ns, min(since_ns, self.now_ns)))
                p.where, p.tid = NOWHERE, NOBODY
        thread.p, thread.told_ns = NOBODY, self.now_ns

    def lose_other(self, process: _Process, thread: _Thread, number: i64, ns: i64) -> None:
        """The thread has this P, so whatever else it was thought to have is idle."""
        if thread.p == number or thread.p < 0 or thread.p >= len(process.ps):
            return
        other = process.ps[thread.p]
        if other.where == WITH and other.tid == thread.tid:
            self.set(process, other, ns, IDLE, NOBODY)

    def release(self, p: _P) -> None:
        """P is no longer with whom it was with."""
        if p.where == WITH and p.tid >= 0:
            thread = self.thread(p.tid)
            if thread.p == p.number:
                thread.p, thread.told_ns = NOBODY, self.now_ns

    def bound_by(self, since_ns: i64, process: _Process, p: _P, ns: i64) -> None:
        """The change at hand lies somewhere after ``since_ns``: what P was in is unknown there."""
        if since_ns >= 0 and since_ns < ns:
            self.doubt(process, p, max(since_ns, p.told_ns), True)

    def doubt(self, process: _Process, p: _P, since_ns: i64, bounded: bool = False) -> None:
        """After this moment P was no longer where it was thought to be, or may not have been."""
        ns = max(since_ns + 1, self.now_ns - REACH_NS, 0)
        if ns >= self.now_ns:
            return
        self.cancel(p, ns)
        move = Move(ns, DOUBT, process.pid, p.number, NOWHERE, NOBODY)
        move.old = bounded
        p.moves.append(move)
        self.put(move)

    def set(self, process: _Process, p: _P, ns: i64, where: i64, tid: i64) -> None:
        """P is there from this moment on."""
        if p.where == where and p.tid == tid and not (p.moves and p.moves[-1].kind == DOUBT):
            p.told_ns = max(p.told_ns, ns)
            return
        self.cancel(p, ns)
        move = Move(ns, OWN, process.pid, p.number, where, tid)
        p.moves.append(move)
        self.put(move)
        p.where, p.tid = where, tid
        p.told_ns = max(p.told_ns, ns)

    def cancel(self, p: _P, ns: i64) -> None:
        """Take back what was said of P from this moment on."""
        while p.moves and p.moves[-1].ns > ns:
            p.moves.pop().dead = True
        if len(p.moves) > 64:
            p.moves = p.moves[-32:]

    # Where things are kept.

    def put(self, move: Move) -> None:
        """Write a move down in its place: behind those of the same moment."""
        if not self.moves or self.moves[-1].ns <= move.ns:
            self.moves.append(move)
        else:
            self.moves.insert(self.place(move.ns), move)

    def place(self, ns: i64) -> i64:
        """How many moves are at or before this moment."""
        low: i64 = 0
        high: i64 = len(self.moves)
        while low < high:
            middle = (low + high) // 2
            if self.moves[middle].ns <= ns:
                low = middle + 1
            else:
                high = middle
        return low

    def thread(self, tid: i64) -> _Thread:
        """The thread of that number."""
        found = self.threads.get(tid)
        if found is None:
            found = _Thread(tid)
            found.pid = self.only_pid
            self.threads[tid] = found
        return found

    def process(self, pid: i64) -> _Process:
        """The process of that number."""
        found = self.processes.get(pid)
        if found is None:
            found = _Process(pid)
            self.processes[pid] = found
        return found

    def process_of(self, thread: _Thread) -> _Process:
        """The thread's process."""
        return self.process(thread.pid)

    def p_of(self, process: _Process, number: i64) -> _P | None:
        """The P of that number; None where there can be none, which is counted."""
        if number >= MAX_P:
            self.nonsense += 1
            return None
        return process.p(number)
