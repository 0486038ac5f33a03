"""Who has each P: the first half of the pass over a trace, which writes down *moves*.

**Concepts.** A *row* of the trace shows something at one moment. A *move* follows from rows: from
this moment on P 3 is with thread 512, or on its way to a thread, or idle. Most moves have a row
when they happen (``retake``, ``acquirep``, ``run``). Some become known only later. For example, in
Go an M that returns from a call may take P from another M's call, without a row. The next block of
its thread with P shows that this happened, and the thread's return from its own call shows when.
So a move may have a time up to :data:`REACH_NS` *before* the current row, and ``account``, which
reads the moves, stays as far behind. A *look* is a reading of how many goroutines wait. What
waited between two looks is known at the second look, and is written down with the time of the
first.

Example, with the times of rows in ms:

    1  block    thread 11 with P 0               P 0 is with 11 (that it is blocked: account)
    3  syscall  thread 12, without a P, returns  nothing follows yet
    5  block    thread 12 with P 0               so P 0 is with 12 since 3: written at 5

**Doubt.** If a row contradicts what was believed, and nothing shows since when it was wrong, the P
is in doubt from the last row that agreed. What is certain all the same (its thread ran on) stays;
the rest is unknown.

**Rejected.** *Searching time lines* ("the first retake of this P after that block") reads the same
rows many times, and the answers need not agree with each other: the holds of a server with two Ps
added up to twice the time that there was. *One loop without lag* has counted the time before it
learns of a takeback. *Reading windows backwards first* makes results depend on where the windows
end.
"""

from __future__ import annotations

from mypy_extensions import i64

from analysis.ptime.engine.beliefs import Beliefs, P, Process, Thread
from analysis.ptime.engine.looks import Looks
from analysis.ptime.engine.moves import (
    DEAD,
    NOBODY,
    NOWHERE,
    ON_LIST,
    REACH_NS,
    STAYS,
    STOP_BEGINS,
    STOP_ENDS,
    STOP_STANDS,
    STW,
    TAKEN,
    TRANSIT,
    WITH,
    Move,
    Moves,
)
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
from analysis.ptime.engine.words import (
    ACQUIREP,
    BY_EXITSYSCALL,
    BY_STW,
    EXIT_SLOW,
    HANDOFF,
    PIDLE,
    POLLS,
    PREEMPT_REQUEST,
    PREEMPTED,
    RETAKE,
    RUN,
    SEEN_DEAD,
    SEEN_GCSTOP,
    SEEN_IDLE,
    SEEN_RUNNING,
    SEEN_SYSCALL,
    STARTM,
    STOPM,
    STW_END,
    STW_START,
    STW_STOPPED,
    TASK_EXEC,
    USE_HANDED_OFF,
    USE_RAW,
    USE_SYSCALL,
)


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
        self.moves: Moves = Moves()
        self.beliefs: Beliefs = Beliefs(self.moves, only_pid)
        self.looks: Looks = Looks(self.moves, tells_stops, has_looks)

    # What the driver calls.

    def know(self, tid: i64, pid: i64) -> None:
        """A thread and its process, before the first row."""
        self.beliefs.thread(tid).pid = pid

    def forget(self, pid: i64) -> None:
        """Let go of a process of which no row will tell."""
        self.beliefs.processes.pop(pid, None)
        self.beliefs.last = None

    def feed(self, tables: list[Rows]) -> None:
        """Take the rows of one window, all tables merged in the order of time.

        Args:
            tables: by :data:`analysis.ptime.engine.rows.COLUMNS`.
        """
        task, block, syscall = tables[TASK], tables[BLOCK], tables[SYSCALL]
        runtime, pstate, waiting = tables[RUNTIME], tables[PSTATE], tables[WAITING]
        edge = tables[EDGE]
        beliefs, looks = self.beliefs, self.looks
        while True:
            ns = task.ts_ns
            first: i64 = TASK
            if block.ts_ns < ns:
                ns = block.ts_ns
                first = BLOCK
            if syscall.ts_ns < ns:
                ns = syscall.ts_ns
                first = SYSCALL
            if runtime.ts_ns < ns:
                ns = runtime.ts_ns
                first = RUNTIME
            elif runtime.ts_ns == ns and first == SYSCALL and runtime.get(5) == ACQUIREP:
                # An M that was given a P as it woke has it before its wait is over.
                first = RUNTIME
            if pstate.ts_ns < ns:
                ns = pstate.ts_ns
                first = PSTATE
            if waiting.ts_ns < ns:
                ns = waiting.ts_ns
                first = WAITING
            if edge.ts_ns < ns:
                ns = edge.ts_ns
                first = EDGE
            if ns == NEVER:
                return
            if ns > beliefs.now_ns:
                beliefs.now_ns = ns
            if first == RUNTIME:
                self.on_runtime(runtime)
                runtime.next()
            elif first == SYSCALL:
                self.on_exit(syscall.get(2), syscall.get(3), syscall.get(4), syscall.get(1))
                syscall.next()
            elif first == BLOCK:
                self.on_block(block)
                block.next()
            elif first == PSTATE:
                self.on_pstate(pstate)
                pstate.next()
            elif first == WAITING:
                seen = beliefs.process(waiting.get(3))
                procs = seen.procs
                looks.of_waiting(seen, beliefs.now_ns, waiting)
                if seen.procs < procs:
                    beliefs.end_beyond(seen)
                waiting.next()
            elif first == EDGE:
                if edge.get(2) == LOSS_ENDS:
                    self.lost(edge.ts_ns)
                edge.next()
            else:
                beliefs.thread(task.get(1)).pid = task.get(2)
                if task.get(3) == TASK_EXEC:
                    self.on_exec(task.get(2))
                task.next()

    def lost(self, end_ns: i64) -> None:
        """Rows were lost up to here: nothing that was known before is known after."""
        for process in self.beliefs.processes.values():
            for p in process.ps:
                p.where, p.tid, p.told_ns = NOWHERE, NOBODY, end_ns
                p.queue = None
                p.moves = []
            process.looked_ns = -1
            process.tail = None
        for thread in self.beliefs.threads:
            thread.p, thread.told_ns, thread.in_call = NOBODY, end_ns, False

    # Rows.

    def on_exec(self, pid: i64) -> None:
        """Another program: its Ps are not those of the one before."""
        process = self.beliefs.processes.get(pid)
        if process is None:
            return
        for p in process.ps:
            self.beliefs.set(process, p, self.beliefs.now_ns, DEAD, NOBODY)
        process.ps = []
        process.looked_ns = -1
        process.tail = None
        process.procs = 0

    def on_exit(self, tid: i64, nr: i64, blocks: i64, enter_ns: i64) -> None:
        """A thread returned from a call.

        Where it blocked without a row of table block it ran no goroutine. Go's M has then given
        up its P (stopm, netpoll) and is given one as it wakes (``acquirep``); but for a wait for
        a lock of the runtime's, through which it keeps the P that it has.
        """
        thread = self.beliefs.thread(tid)
        if not self.tells_run and not thread.in_call and blocks != 0 and thread.p >= 0:
            process = self.beliefs.process_of(thread)
            p = process.p(thread.p)
            # Not when others told of it since: they may have done so while it was blocked. A new
            # M returned from nothing before, and had its P before it entered.
            before_ns = max(thread.exit_ns, enter_ns)
            if p.where == WITH and p.tid == tid and thread.acquired_ns <= before_ns:
                since_ns = max(thread.exit_ns, thread.acquired_ns)
                if nr in POLLS:
                    # As it parked: the account has that already.
                    p.where, p.tid, p.told_ns = ON_LIST, NOBODY, since_ns
                    thread.p, thread.told_ns = NOBODY, since_ns
                else:
                    stays_ns = max(since_ns + 1, self.beliefs.now_ns - REACH_NS)
                    self.moves.put(Move(stays_ns, STAYS, process.pid, p.number, 0, tid))
        thread.exit_ns = self.beliefs.now_ns
        thread.in_call = False

    def on_block(self, row: Rows) -> None:
        """A thread blocked, and its runtime's memory said whose P it has."""
        ns = self.beliefs.now_ns
        thread = self.beliefs.thread(row.get(2))
        number, use, nr = row.get(3), row.get(4), row.get(6)
        process = self.beliefs.process_of(thread)
        if not self.looks.has_looks:
            self.looks.of_row(process, ns, row.get(9), row.get(10), row.get(11))
        if (use in (USE_SYSCALL, USE_RAW) or use == -1) and number >= 0:
            p = self.beliefs.p_of(process, number)
            if p is not None:
                self.beliefs.bind(process, p, ns, thread)
                self.looks.queue_read(process, p, ns, row.get(8), row.get(10), row.get(11))
        elif use == USE_HANDED_OFF:
            enter_ns = row.get(1)
            self.beliefs.has_none(process, thread, enter_ns if enter_ns >= 0 else ns)
        thread.in_call = nr >= 0 or use >= 0

    def on_runtime(self, row: Rows) -> None:
        """The runtime told a transition, or it was inferred and lies in (since_ns, ts_ns]."""
        ns, since_ns, tid = self.beliefs.now_ns, row.get(1), row.get(2)
        number, target, kind, reason = row.get(3), row.get(4), row.get(5), row.get(6)
        thread = self.beliefs.thread(tid)
        process = self.beliefs.process_of(thread)
        if not self.looks.has_looks:
            self.looks.of_row(process, ns, row.get(8), row.get(9), row.get(10))
        p = self.beliefs.p_of(process, number) if number >= 0 else None
        if kind in (EXIT_SLOW, STOPM):
            self.beliefs.has_none(process, thread, ns)
        elif kind == STW_START:
            begins = Move(ns, STOP_BEGINS, process.pid, -1, 0, tid)
            begins.old = since_ns >= 0
            self.moves.put(begins)
        elif kind == STW_STOPPED:
            self.moves.put(Move(ns, STOP_STANDS, process.pid, -1, 0, tid))
        elif kind == STW_END:
            self.moves.put(Move(ns, STOP_ENDS, process.pid, -1, 0, tid))
        elif p is None:
            return
        elif kind == RETAKE:
            self.on_retake(process, p, ns, since_ns, tid, target, reason, row.get(7))
        elif kind == HANDOFF:
            if p.where == WITH and p.tid == tid:
                self.beliefs.bound_by(since_ns, process, p, ns)
            self.looks.queue_end(process, p, ns, row.get(7))
            self.beliefs.release(p)
            self.beliefs.set(process, p, ns, TRANSIT, NOBODY)
        elif kind == STARTM:
            self.beliefs.bound_by(since_ns, process, p, ns)
            if p.where == WITH:
                self.beliefs.release(p)
            self.beliefs.set(process, p, ns, TRANSIT, NOBODY)
        elif kind in (ACQUIREP, RUN):
            self.on_acquire(process, p, ns, since_ns, thread, kind)
        elif kind == PIDLE:
            # Told after P is on the list: somebody may have taken it from there already.
            if p.where != WITH or p.tid == tid or self.beliefs.thread(p.tid).in_call:
                self.beliefs.bound_by(since_ns, process, p, ns)
                self.beliefs.release(p)
                self.beliefs.set(process, p, ns, ON_LIST, NOBODY)
        elif kind == PREEMPT_REQUEST:
            if target >= 0:
                self.beliefs.bind(process, p, ns, self.beliefs.thread(target))
        elif kind == PREEMPTED:
            self.beliefs.bind(process, p, ns, thread)

    def on_retake(
        self,
        process: Process,
        p: P,
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
            self.beliefs.bind(process, p, ns, self.beliefs.thread(target))
        self.moves.put(Move(ns, TAKEN, process.pid, p.number, reason, target))
        self.looks.queue_end(process, p, ns, runq)
        self.beliefs.bound_by(since_ns, process, p, ns)
        self.beliefs.release(p)
        if reason == BY_EXITSYSCALL:
            taker = self.beliefs.thread(tid)
            self.beliefs.set(process, p, ns, WITH, tid)
            taker.p, taker.told_ns = p.number, ns
        else:
            self.beliefs.set(process, p, ns, STW if reason == BY_STW else TRANSIT, NOBODY)

    def on_acquire(
        self, process: Process, p: P, ns: i64, since_ns: i64, thread: Thread, kind: i64
    ) -> None:
        """An M has P, or runs the first goroutine on it."""
        if p.where == WITH and p.tid != thread.tid and self.beliefs.thread(p.tid).in_call:
            # Taken from a call, and nobody told.
            self.beliefs.doubt(process, p, p.told_ns)
        if p.where != WITH or p.tid != thread.tid:
            self.beliefs.bound_by(since_ns, process, p, ns)
            self.beliefs.release(p)
        self.beliefs.lose_other(process, thread, p.number, ns)
        thread.p, thread.told_ns, thread.acquired_ns = p.number, ns, ns
        if kind == ACQUIREP and self.tells_run and p.where in (TRANSIT, NOWHERE):
            # On its way until a goroutine runs. Where it was before is not known after a loss:
            # then neither is whether one does.
            p.told_ns = ns
            return
        if kind == ACQUIREP and p.where == WITH and p.tid == thread.tid:
            # It parked meanwhile, and is given the same P again.
            p.where, p.tid = ON_LIST, NOBODY
        self.beliefs.set(process, p, ns, WITH, thread.tid)

    def on_pstate(self, row: Rows) -> None:
        """A P was seen in another state than at the look before."""
        ns, since_ns, tid, status = self.beliefs.now_ns, row.get(1), row.get(4), row.get(5)
        process = self.beliefs.process(row.get(2))
        p = self.beliefs.p_of(process, row.get(3)) if row.get(3) >= 0 else None
        if p is None:
            return
        if status == SEEN_DEAD:
            self.beliefs.set(process, p, ns, DEAD, NOBODY)
        elif status in (SEEN_RUNNING, SEEN_SYSCALL):
            if tid >= 0:
                thread = self.beliefs.thread(tid)
                if thread.pid < 0:
                    thread.pid = process.pid
                if not (p.where == TRANSIT and self.tells_run):
                    self.beliefs.bind_since(process, p, ns, thread, since_ns)
        elif status in (SEEN_IDLE, SEEN_GCSTOP):
            where: i64 = ON_LIST if status == SEEN_IDLE else STW
            if p.where == where or (p.where == TRANSIT and status == SEEN_IDLE):
                # Go's P has the status idle, too, while it is handed from one M to another.
                p.told_ns = ns
                return
            if p.where == WITH and self.beliefs.thread(p.tid).in_call:
                self.beliefs.doubt(process, p, max(since_ns, p.told_ns))
            elif p.where == TRANSIT:
                # It found nothing to run at some moment since.
                self.beliefs.doubt(process, p, max(since_ns, p.told_ns))
            self.beliefs.release(p)
            self.beliefs.set(process, p, ns, where, NOBODY)
