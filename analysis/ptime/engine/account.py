"""The account of P time: the second half of the pass, one loop over rows and moves in time order.

**Concepts.** A *thread* is on a CPU, could run and has none, is blocked, stopped or dead: the
kernel's rows say which. A *P* is with a thread, on its way, idle, stopped by a stop-the-world, or
nobody knows: the moves say which (:mod:`analysis.ptime.engine.owners`). The two together are P's
*state*, and at each moment it has exactly one. Whenever one changes, the time since the last
change is *settled*: added to the states that the Ps were in. So states add up to the number of
Ps x time, to the nanosecond, whatever the rows say.

    thread of P is ...   P is with it    P is on its way / idle / stopped / not known
    on a CPU             running         transit / idle / stw / unknown
    blocked in a call    syscall
    blocked elsewhere    fault
    without a CPU        no_cpu
    stopped              stopped
    not known            unknown

**Lost P time.** W goroutines are ready and do not run; idle Ps and spinning Ms take some of them.
With n Ps that neither run nor are idle, min(n, W - takers) of them are lost, in equal parts to
each of the n. W is an interval between two looks, so all of it is done twice, for the least and
the most that can have been. Example: 2 Ps, one blocked in read, one running, W = 3: one P is lost,
to read. Then the other P faults: two are lost, one to each.

The share of one P is an integral over time that all Ps of a process have in common, as if each
were among the n; a P's own share of a span is the difference of two readings. So a row costs the
same with 2 Ps and with 600. It is kept in units of 1/5040 ns: 1 to 10 Ps divide that without
rest.

**A hold** is the time from a block with P until P is released or the call returns. It is split:
the thread was blocked; it was awake again and had no CPU. Of the first, how long the monitor
wanted to run (it would have taken P) and had no CPU.

**Rejected.** *Adding up each episode's own waiting time*: with 8 readers the same goroutine's wait
is counted 8 times. *Sums by pandas over pieces of spans*: the pieces are many times the rows.
*C*: compiled by mypyc this loop is near enough, and interpreted it can be stepped through.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from analysis.ptime.engine.owners import (
    DEAD,
    DOUBT,
    FRESH_NS,
    HELD_QUEUE,
    LOOK,
    MANY,
    NOWHERE,
    OWN,
    PROCS,
    STAYS,
    STOP_BEGINS,
    STOP_STANDS,
    STW,
    TAKEN,
    TRANSIT,
    USE_HANDED_OFF,
    USE_RAW,
    WITH,
    Move,
)
from analysis.ptime.engine.owners import IDLE as ON_LIST
from analysis.ptime.engine.rows import (
    BEGINS,
    BLOCK,
    EDGE,
    ENDS,
    LARGEST,
    LOSS_BEGINS,
    LOSS_ENDS,
    NEVER,
    OUT_OF_REACH,
    REACHED,
    RUNTIME,
    SIGNAL,
    SWITCH,
    SYSCALL,
    TASK,
    THROTTLE_BEGINS,
    THROTTLE_ENDS,
    WAKEUP,
    Out,
    Rows,
    capped,
    capped_product,
)

__all__ = [
    "BIN",
    "HOLD",
    "LATENCY",
    "SCALE",
    "SPAN",
    "STALLS",
    "STATES",
    "STOP",
    "WAITED",
    "Account",
]

# States of a P.
RUNNING: Final = 0
ANY: Final = 0
"""Where sums are by cause, the place of all together: a P that runs is no cause."""
IN_SYSCALL: Final = 1
FAULT: Final = 2
NO_CPU: Final = 3
STOPPED: Final = 4
MOVING: Final = 5
STOPPED_WORLD: Final = 6
IDLE: Final = 7
UNKNOWN: Final = 8
STATES: Final = (
    "running",
    "syscall",
    "fault",
    "no_cpu",
    "stopped",
    "transit",
    "stw",
    "idle",
    "unknown",
)
"""What a P can be in, by number."""
N_STATES: Final = 9

# What a thread does.
K_UNKNOWN: Final = 0
K_ON_CPU: Final = 1
K_RUNNABLE: Final = 2
K_BLOCKED: Final = 3
K_STOPPED: Final = 4
K_DEAD: Final = 5

# Numbers of words of the schema.
PREV_PREEMPTED: Final = 0
PREV_BLOCKED: Final = 1
PREV_DEAD: Final = 2
PREV_STOPPED: Final = 3
WHY_FAULT: Final = 1
KIND_FORK: Final = 1
KIND_EXEC: Final = 2
SIGNAL_DELIVER: Final = 2
BY_STW: Final = 8

SCALE: Final = 5040
"""Shares of lost P time are kept in this part of a ns."""

# How a hold ended.
KEPT: Final = 0
RELEASED: Final = 1
UNTOLD: Final = 2

HOLD: Final = (
    *("pid", "p", "tid", "block_ns", "end_ns", "nr", "stack_id", "state", "end", "blocked_ns"),
    *("awake_ns", "least_ns", "most_ns", "awake_least_ns", "awake_most_ns", "monitor_ns"),
)
"""Columns of :attr:`Account.holds`. ``state`` is a number of STATES (syscall, fault), ``end`` 0
for kept, 1 for released, 2 for not known; ``least_ns`` and ``most_ns`` the share of lost P time
while the thread was blocked, ``awake_…`` while it was awake and had no CPU; ``monitor_ns`` how
much of ``blocked_ns`` the monitor wanted a CPU and had none."""

LATENCY: Final = ("pid", "p", "since_ns", "until_ns", "end")
"""Columns of :attr:`Account.latencies`: from when P had no goroutine that runs, until when.
``end`` is 1 where a goroutine ran, 0 where P went idle or stood still with the world, 2 where
nobody knows."""

STOP: Final = ("pid", "tid", "begin_ns", "stand_ns", "end_ns")
"""Columns of :attr:`Account.stops`; ``stand_ns`` is -1 where it is not known."""

WAITED: Final = ("pid", "begin_ns", "p", "tid", "state", "nr", "stack_id", "pc", "ns")
"""Columns of :attr:`Account.waited`: what a stop waited for, a P's piece of time in one state."""

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
"""Columns of :attr:`Account.bins`: all sums of a process from its begin up to ``ts_ns``."""

SPAN: Final = ("pid", "p", "tid", "state", "begin_ns", "end_ns", "nr")
"""Columns of :attr:`Account.spans`; ``nr`` is that of the system call, in state syscall, and
-1 there for a call that the runtime was not told of (its own waits, and raw calls)."""

PAGE: Final = 1024
MAX_TID: Final = 1 << 23
"""The kernel numbers threads below 2^22."""


class _Process:
    """The sums of one process, up to ``at_ns``."""

    def __init__(self, pid: i64, begin_ns: i64) -> None:
        self.pid: i64 = pid
        self.begin_ns: i64 = begin_ns
        """Ps that are first heard of later were there since then, in a state that nobody knows."""
        self.at_ns: i64 = begin_ns
        self.bin_end_ns: i64 = NEVER
        self.ended: bool = False
        self.reached: bool = True
        self.ps: list[_P] = []
        self.count: i64 = 0
        self.counts: vec[i64] = vec[i64]([0] * N_STATES)
        self.ns: vec[i64] = vec[i64]([0] * N_STATES)
        self.p_ns: i64 = 0
        self.procs_told: bool = False
        # What waits, from the last look on.
        self.least: i64 = 0
        self.most: i64 = MANY
        self.spin_least: i64 = 0
        self.spin_most: i64 = 0
        self.idle_least: i64 = 0
        self.idle_most: i64 = 0
        self.looked: bool = False
        self.old: bool = True
        self.fresh_until_ns: i64 = 0
        self.ran: bool = True
        self.look_ns: i64 = 0
        self.read_least: i64 = 0
        self.timer_ns: i64 = -1
        self.changed_ns: i64 = 0
        """When a P last began or ceased to run, to be on its way or to be unknown: whoever takes
        work is one of these."""
        self.on_cpu: i64 = 0
        # Of held Ps, where only their queues were read.
        self.held: i64 = 0
        self.held_most: i64 = 0
        self.held_least: i64 = 0
        self.held_least_if_nobody: i64 = 0
        # Lost P time: what one of the n lost so far, in 1/SCALE ns, and sums by state.
        self.share_least: i64 = 0
        self.share_most: i64 = 0
        self.lost_least: vec[i64] = vec[i64]([0] * N_STATES)
        self.lost_most: vec[i64] = vec[i64]([0] * N_STATES)
        self.rest_least: vec[i64] = vec[i64]([0] * N_STATES)
        self.rest_most: vec[i64] = vec[i64]([0] * N_STATES)
        # The number 0 is any cause's; P's states are as in STATES.
        self.some_least: vec[i64] = vec[i64]([0] * N_STATES)
        self.some_most: vec[i64] = vec[i64]([0] * N_STATES)
        self.full_least: vec[i64] = vec[i64]([0] * N_STATES)
        self.full_most: vec[i64] = vec[i64]([0] * N_STATES)
        self.wait_least_ns: i64 = 0
        self.wait_most_ns: i64 = 0
        self.wait_unknown_ns: i64 = 0
        self.idle_beside_ns: i64 = 0
        # Throttling, the monitor, stops.
        self.throttled_ns: i64 = 0
        self.no_cpu_mark_ns: i64 = -1
        self.monitor: _Thread | None = None
        self.monitor_ns: i64 = 0
        self.stopping: bool = False
        self.stand_open: bool = False
        self.stop_begin_ns: i64 = 0
        self.stand_ns: i64 = -1
        self.stopper: i64 = -1
        self.taken: vec[i64] = vec[i64]([0] * 4)
        """From a blocked thread, from one on a CPU, from one without a CPU; not known."""


class _Thread:
    """What a thread does, and the P that is with it."""

    def __init__(self, tid: i64) -> None:
        self.tid: i64 = tid
        self.process: _Process | None = None
        self.k: i64 = K_UNKNOWN
        self.p: _P | None = None
        self.block_ns: i64 = -1
        self.in_call: bool = False
        self.raw: bool = False
        """It is in a call that its runtime was not told of."""
        self.stays: bool = False
        """Its next block is a wait of the runtime's own, through which it keeps its P."""
        self.fault: bool = False
        self.nr: i64 = -1
        self.stack_id: i64 = -1
        self.pc: i64 = -1
        """Where the last signal met it, at :attr:`pc_ns`."""
        self.pc_ns: i64 = -1


class _P:
    """Where a P is, its state since when, and the hold it is in."""

    def __init__(self, process: _Process, number: i64) -> None:
        self.process: _Process = process
        self.number: i64 = number
        self.where: i64 = NOWHERE
        self.thread: _Thread | None = None
        self.doubt: bool = False
        self.counted: bool = False
        self.state: i64 = UNKNOWN
        self.since_ns: i64 = 0
        self.tid: i64 = -1
        """The thread that it was with then."""
        self.nr: i64 = -1
        """The call that it was blocked in then."""
        self.cut_ns: i64 = 0
        """Since when the open piece of a stop's wait is, if later than the state and the stop."""
        self.mark_least: i64 = 0
        self.mark_most: i64 = 0
        self.mark_monitor: i64 = 0
        self.without_ns: i64 = -1
        # The hold.
        self.hold_ns: i64 = -1
        self.hold_tid: i64 = -1
        self.hold_nr: i64 = -1
        self.hold_stack: i64 = -1
        self.hold_state: i64 = 0
        self.blocked_ns: i64 = 0
        self.awake_ns: i64 = 0
        self.least: i64 = 0
        self.most: i64 = 0
        self.awake_least: i64 = 0
        self.awake_most: i64 = 0
        self.monitor_ns: i64 = 0
        # Its queue as its thread blocked.
        self.queue_set: bool = False
        self.queue_least: i64 = 0
        self.queue_most: i64 = 0
        self.queue_if: i64 = 0


class Account:
    """Settles P time.

    Args:
        exact: the runtime tells when a P goes idle; else a thread that parks gave its P up.
        has_switches: the trace has table sched_switch; else nobody knows who is on a CPU.
        has_looks: it has table waiting.
        tells_stands: the runtime tells when the world stands.
        needs_reach: no P is known before an edge says that its process can be read.
        only_pid: the process of threads that no row of table task names; -1 for none.
        begin_ns: begin of the capture.
        bin_ns: how far apart rows of ``bins`` are; 0 for none.
        spans: whether to give a row for each span of each P.
    """

    def __init__(
        self,
        exact: bool,
        has_switches: bool,
        has_looks: bool,
        tells_stands: bool,
        needs_reach: bool,
        only_pid: i64,
        begin_ns: i64,
        bin_ns: i64,
        spans: bool,
    ) -> None:
        self.exact: bool = exact
        self.has_switches: bool = has_switches
        self.has_looks: bool = has_looks
        self.tells_stands: bool = tells_stands
        self.needs_reach: bool = needs_reach
        self.only_pid: i64 = only_pid
        self.begin_ns: i64 = begin_ns
        self.bin_ns: i64 = bin_ns
        self.wants_spans: bool = spans
        self.now_ns: i64 = begin_ns
        self.losses: i64 = 0
        self.pages: list[list[_Thread | None]] = []
        self.processes: dict[int, _Process] = {}
        self.holds: list[Out] = [Out() for _ in HOLD]
        self.latencies: list[Out] = [Out() for _ in LATENCY]
        self.stops: list[Out] = [Out() for _ in STOP]
        self.waited: list[Out] = [Out() for _ in WAITED]
        self.bins: list[Out] = [Out() for _ in BIN]
        self.spans: list[Out] = [Out() for _ in SPAN]

    # What the driver calls.

    def know(self, tid: i64, pid: i64) -> None:
        """A thread and its process, before the first row."""
        thread = self.thread(tid)
        if thread is not None:
            thread.process = self.process(pid)

    def monitor(self, pid: i64, tid: i64) -> None:
        """The thread that takes Ps from calls in this process."""
        self.process(pid).monitor = self.thread(tid)

    def run(self, tables: list[Rows], moves: list[Move], until_ns: i64) -> None:
        """Settle everything up to a moment.

        Args:
            tables: by :data:`COLUMNS` of ``rows``; rows up to ``until_ns`` are taken.
            moves: from :meth:`Owners.ready` for the same moment.
            until_ns: all rows up to it are here, or were before.
        """
        task, block, syscall, runtime = (
            tables[TASK],
            tables[BLOCK],
            tables[SYSCALL],
            tables[RUNTIME],
        )
        switch, wakeup, signal = tables[SWITCH], tables[WAKEUP], tables[SIGNAL]
        edge = tables[EDGE]
        next_move: i64 = 0
        count: i64 = len(moves)
        move_ns: i64 = moves[0].ns if count > 0 else NEVER
        while True:
            ns = switch.ts_ns
            first = switch
            if wakeup.ts_ns < ns:
                ns, first = wakeup.ts_ns, wakeup
            if signal.ts_ns < ns:
                ns, first = signal.ts_ns, signal
            if runtime.ts_ns <= ns:
                ns, first = runtime.ts_ns, runtime
            if syscall.ts_ns <= ns:
                ns, first = syscall.ts_ns, syscall
            if block.ts_ns <= ns:
                ns, first = block.ts_ns, block
            if task.ts_ns <= ns:
                ns, first = task.ts_ns, task
            if edge.ts_ns <= ns:
                ns, first = edge.ts_ns, edge
            if move_ns <= ns:
                if move_ns > until_ns or move_ns == NEVER:
                    return
                self.at(move_ns)
                self.on_move(moves[next_move])
                next_move += 1
                move_ns = moves[next_move].ns if next_move < count else NEVER
                continue
            if ns > until_ns or ns == NEVER:
                return
            self.at(ns)
            if first is switch:
                self.on_switch(switch)
            elif first is wakeup:
                self.on_wakeup(wakeup.get(1))
            elif first is runtime:
                self.on_running(runtime.get(2))
            elif first is syscall:
                self.on_exit(syscall.get(2))
            elif first is block:
                self.on_block(block)
            elif first is signal:
                if signal.get(3) == SIGNAL_DELIVER:
                    thread = self.thread(signal.get(1))
                    if thread is not None:
                        self.on_deliver(thread, signal.get(2))
            elif first is task:
                self.on_task(task)
            else:
                self.on_edge(edge)
            first.seek(first.at + 1)

    def close(self, end_ns: i64) -> None:
        """The capture ends: what is open ends here."""
        self.at(end_ns)
        for process in self.processes.values():
            self.end(process)

    def at(self, ns: i64) -> None:
        """It is that late; never earlier than it was."""
        if ns > self.now_ns:
            self.now_ns = ns

    # Rows.

    def on_task(self, row: Rows) -> None:
        """A thread's life."""
        thread = self.thread(row.get(1))
        if thread is None:
            return
        kind = row.get(3)
        if kind == KIND_FORK:
            self.leave(thread)
            self.become(thread, K_UNKNOWN)
            thread.in_call, thread.block_ns = False, -1
        process = thread.process
        if process is None or process.pid != row.get(2):
            k = thread.k
            self.become(thread, K_UNKNOWN)
            process = self.process(row.get(2))
            thread.process = process
            self.become(thread, k)
        if kind == KIND_EXEC:
            self.settle(process)
            for p in process.ps:
                self.place(p, DEAD, None)
            process.begin_ns = self.now_ns
            process.procs_told = False
            process.looked = False

    def on_switch(self, row: Rows) -> None:
        """One thread leaves a CPU, another comes on it."""
        prev, enters = row.get(1), row.get(2)
        if prev > 0:
            thread = self.thread(prev)
            if thread is not None:
                why = row.get(3)
                k: i64 = K_UNKNOWN
                if why == PREV_BLOCKED:
                    k = K_BLOCKED
                elif why == PREV_PREEMPTED:
                    k = K_RUNNABLE
                elif why == PREV_STOPPED:
                    k = K_STOPPED
                elif why == PREV_DEAD:
                    k = K_DEAD
                p = thread.p
                if (
                    k == K_BLOCKED
                    and p is not None
                    and thread.block_ns != self.now_ns
                    and not thread.in_call
                ):
                    if self.exact or self.losses > 0 or thread.stays:
                        # The runtime's own wait, with P.
                        thread.fault, thread.nr, thread.stack_id = False, -1, -1
                    else:
                        # Go's M parks (stopm): it gave its P up before.
                        process = p.process
                        where: i64 = STW if process.stopping else ON_LIST
                        self.place(p, NOWHERE if p.doubt else where, None)
                self.become(thread, k)
        if enters > 0:
            thread = self.thread(enters)
            if thread is not None:
                self.become(thread, K_ON_CPU)
                p = thread.p
                if p is not None and p.hold_ns >= 0 and p.hold_state == FAULT:
                    self.end_hold(p, KEPT)

    def on_wakeup(self, tid: i64) -> None:
        """A thread could run."""
        thread = self.thread(tid)
        if thread is not None and thread.k != K_ON_CPU:
            self.become(thread, K_RUNNABLE)

    def on_running(self, tid: i64) -> None:
        """A thread did something, so it is on a CPU."""
        thread = self.thread(tid) if tid > 0 else None
        if thread is not None and thread.k != K_ON_CPU:
            self.become(thread, K_ON_CPU)

    def on_exit(self, tid: i64) -> None:
        """A thread returned from a call that had blocked."""
        thread = self.thread(tid)
        if thread is None:
            return
        thread.in_call = thread.stays = False
        p = thread.p
        if p is not None and p.hold_ns >= 0:
            self.end_hold(p, KEPT)
            p.without_ns = -1
        self.become(thread, K_ON_CPU)

    def on_block(self, row: Rows) -> None:
        """A thread blocks, in a call or in a fault."""
        thread = self.thread(row.get(2))
        if thread is None:
            return
        thread.block_ns = self.now_ns
        thread.fault = row.get(5) == WHY_FAULT
        thread.in_call = not thread.fault
        thread.nr = row.get(6)
        thread.raw = row.get(4) == USE_RAW
        thread.stack_id = row.get(7)
        number, use = row.get(3), row.get(4)
        held = thread.p
        if number >= 0 and use != USE_HANDED_OFF and (held is None or held.number != number):
            # It was thought to have parked.
            process = thread.process
            if process is not None and number < len(process.ps) and not process.ended:
                p = process.ps[number]
                if p.where == ON_LIST:
                    self.place(p, WITH, thread)
        self.become(thread, K_BLOCKED)

    def on_edge(self, row: Rows) -> None:
        """Something about a process, or about all."""
        kind = row.get(2)
        if kind in (LOSS_BEGINS, LOSS_ENDS):
            self.on_loss(kind == LOSS_BEGINS)
            return
        process = self.process(row.get(1))
        if kind == BEGINS:
            if process.count == 0:
                process.begin_ns = max(process.begin_ns, self.now_ns)
                process.at_ns = max(process.at_ns, self.now_ns)
        elif kind == ENDS:
            self.end(process)
        elif kind in (REACHED, OUT_OF_REACH):
            process.reached = kind == REACHED
            for p in process.ps:
                self.renew(p)
        elif kind in (THROTTLE_BEGINS, THROTTLE_ENDS):
            self.settle(process)
            waited = process.ns[NO_CPU] - process.no_cpu_mark_ns
            if kind == THROTTLE_ENDS and process.no_cpu_mark_ns >= 0:
                process.throttled_ns += min(waited, max(row.get(3), 0))
            process.no_cpu_mark_ns = process.ns[NO_CPU]

    def on_loss(self, begins: bool) -> None:
        """Records are lost from here on, or none any more: then all is to be learned anew."""
        self.losses += 1 if begins else -1
        for process in self.processes.values():
            self.settle(process)
            process.looked = False
            for p in process.ps:
                if not begins:
                    self.place(p, NOWHERE, None)
                self.renew(p)
        if begins:
            return
        for page in self.pages:
            for thread in page:
                if thread is not None:
                    self.become(thread, K_UNKNOWN)
                    thread.in_call = False

    # Moves.

    def on_move(self, move: Move) -> None:
        """What follows from rows, from here on."""
        process = self.process(move.pid)
        if process.ended:
            return
        kind = move.kind
        if kind == OWN:
            if move.where == DEAD and move.p >= len(process.ps):
                return
            p = self.p(process, move.p)
            self.place(p, move.where, self.thread(move.tid) if move.where == WITH else None)
        elif kind == DOUBT:
            p = self.p(process, move.p)
            owner = p.thread
            p.doubt = True
            runs_on = (
                owner is not None
                and not owner.in_call
                and (owner.k == K_ON_CPU or owner.k == K_RUNNABLE)
            )
            if p.where == WITH and runs_on:
                return
            self.place(p, NOWHERE, None, move.old)
        elif kind == LOOK:
            self.settle(process)
            process.least, process.most = move.least, move.most
            process.spin_least, process.spin_most = move.spin_least, move.spin_most
            process.idle_least, process.idle_most = move.idle_least, move.idle_most
            if move.read_least >= 0:
                process.look_ns = self.now_ns
                process.read_least, process.timer_ns = move.read_least, move.timer_ns
            process.looked = True
            process.old = move.old
            process.fresh_until_ns = self.now_ns + FRESH_NS
            process.ran = process.on_cpu > 0
        elif kind == HELD_QUEUE:
            p = self.p(process, move.p)
            self.settle(process)
            self.forget_queue(p)
            p.queue_set = True
            p.queue_most = move.most
            if move.old:
                p.queue_least, p.queue_if = move.least, 0
            else:
                p.queue_least, p.queue_if = 0, move.least
            process.held += 1
            process.held_most += p.queue_most
            process.held_least += p.queue_least
            process.held_least_if_nobody += p.queue_if
        elif kind == TAKEN:
            loser = self.thread(move.tid)
            k: i64 = K_UNKNOWN if loser is None else loser.k
            if k == K_BLOCKED:
                process.taken[0] += 1
            elif k == K_ON_CPU:
                process.taken[1] += 1
            elif k == K_RUNNABLE:
                process.taken[2] += 1
            else:
                process.taken[3] += 1
        elif kind == STAYS:
            stayer = self.thread(move.tid)
            if stayer is not None:
                stayer.stays = True
        elif kind == PROCS:
            self.set_procs(process, move.least)
        else:
            self.on_stop(process, kind, move.tid, move.old)

    def on_stop(self, process: _Process, kind: i64, tid: i64, late: bool) -> None:
        """The world is to stop, stands, or goes on; ``late``: it was so before, since when is
        not known."""
        if kind == STOP_BEGINS:
            self.end_stop(process)
            process.stopping = process.stand_open = True
            process.stop_begin_ns, process.stand_ns, process.stopper = self.now_ns, -1, tid
            # Those on the list are taken at once.
            for p in process.ps:
                if p.where == ON_LIST:
                    self.place(p, STW, None)
            self.look_whether_it_stands(process)
            if late and process.stand_ns == self.now_ns:
                # It stood already: how long it took is not known.
                process.stand_ns = -1
        elif kind == STOP_STANDS:
            if process.stopping:
                process.stand_ns = self.now_ns
                self.end_waiting(process)
        else:
            self.end_stop(process)
            for p in process.ps:
                if p.where == STW:
                    self.place(p, ON_LIST, None)

    def end_stop(self, process: _Process) -> None:
        """The stop is over."""
        if not process.stopping:
            return
        self.end_waiting(process)
        process.stopping = False
        out = self.stops
        out[0].put(process.pid)
        out[1].put(process.stopper)
        out[2].put(process.stop_begin_ns)
        out[3].put(process.stand_ns)
        out[4].put(self.now_ns)

    def end_waiting(self, process: _Process) -> None:
        """Nobody is waited for any more: pieces that are open are cut here."""
        if not process.stand_open:
            return
        for p in process.ps:
            if p.counted:
                self.waited_for(p)
        process.stand_open = False

    def look_whether_it_stands(self, process: _Process) -> None:
        """The world stands when nobody runs but who stopped it."""
        if not process.stand_open or self.tells_stands:
            return
        counts = process.counts
        going = counts[RUNNING] + counts[FAULT] + counts[NO_CPU] + counts[STOPPED] + counts[MOVING]
        stopper = self.thread(process.stopper) if process.stopper > 0 else None
        own: i64 = 0
        if stopper is None:
            own = min(going, 1)
        else:
            p = stopper.p
            if p is not None and (p.state == RUNNING or p.state == NO_CPU or p.state == FAULT):
                own = 1
        if going - own == 0 and counts[UNKNOWN] == 0:
            process.stand_ns = self.now_ns
            process.stand_open = False

    def on_deliver(self, thread: _Thread, pc: i64) -> None:
        """A signal met a thread: a stop that waits for it waits for another place from here on."""
        p = thread.p
        process = thread.process
        if (
            p is not None
            and process is not None
            and process.stand_open
            and p.counted
            and (pc != thread.pc or thread.pc_ns < process.stop_begin_ns)
        ):
            self.waited_for(p)
            p.cut_ns = self.now_ns
        thread.pc, thread.pc_ns = pc, self.now_ns

    def waited_for(self, p: _P) -> None:
        """A piece of a P's time, that ends now, in a stop that waits."""
        process = p.process
        # The piece is of the thread that had P in it, and not of who has P from now on.
        thread = self.thread(p.tid) if p.tid >= 0 else None
        state = p.state
        ns = self.now_ns - max(p.since_ns, max(process.stop_begin_ns, p.cut_ns))
        if ns <= 0 or state >= STOPPED_WORLD:
            return
        if thread is not None and thread.tid == process.stopper:
            return
        out = self.waited
        in_kernel = state in (IN_SYSCALL, FAULT)
        out[0].put(process.pid)
        out[1].put(process.stop_begin_ns)
        out[2].put(p.number)
        out[3].put(-1 if thread is None else thread.tid)
        out[4].put(state)
        out[5].put(-1 if thread is None or state != IN_SYSCALL else thread.nr)
        out[6].put(-1 if thread is None or not in_kernel else thread.stack_id)
        # Where it was before the stop asked for it says nothing of what it waits for.
        placed = thread is not None and not in_kernel and thread.pc_ns >= process.stop_begin_ns
        out[7].put(thread.pc if placed and thread is not None else -1)
        out[8].put(ns)

    # Threads and Ps.

    def become(self, thread: _Thread, k: i64) -> None:
        """A thread does something else from now on."""
        if thread.k == k and k != K_BLOCKED:
            return
        process = thread.process
        if process is not None and thread.k != k:
            if process.monitor is thread and (thread.k == K_RUNNABLE or k == K_RUNNABLE):
                self.settle(process)
            if k == K_ON_CPU or thread.k == K_ON_CPU:
                if process.old and not process.ran:
                    self.settle(process)
                process.on_cpu += 1 if k == K_ON_CPU else -1
                process.ran = True
        thread.k = k
        p = thread.p
        if p is not None:
            if p.doubt and k != K_ON_CPU and k != K_RUNNABLE:
                self.place(p, NOWHERE, None)
            else:
                self.renew(p)

    def leave(self, thread: _Thread) -> None:
        """The thread is another's number from now on: what was with it is nowhere."""
        p = thread.p
        if p is not None:
            self.place(p, NOWHERE, None)

    def place(self, p: _P, where: i64, thread: _Thread | None, within: bool = False) -> None:
        """P is there from now on; ``within``: it leaves its thread at some moment soon after."""
        p.doubt = False
        was = p.thread
        if was is not thread:
            if was is not None and was.p is p:
                was.p = None
            if thread is not None:
                other = thread.p
                if other is not None and other is not p:
                    # One thread has one P: nobody told what became of the other.
                    thread.p = None
                    self.place(other, NOWHERE, None)
                thread.p = p
            p.thread = thread
        if p.hold_ns >= 0 and (where != WITH or was is not thread):
            bounded = where == NOWHERE and within
            self.end_hold(p, UNTOLD if where == NOWHERE and not bounded else RELEASED)
        before = p.where
        p.where = where
        if where == DEAD:
            self.uncount(p)
            return
        if where == TRANSIT and p.without_ns < 0:
            p.without_ns = self.now_ns
        elif where not in (TRANSIT, NOWHERE) and p.without_ns >= 0:
            if where == WITH:
                if before == NOWHERE:
                    self.end_latency(p, 2)
                elif was is not thread:
                    self.end_latency(p, 1)
            else:
                self.end_latency(p, 0)
        self.renew(p)

    def state_of(self, p: _P) -> i64:
        """P's state, as everything stands."""
        if self.losses > 0 or not p.process.reached:
            return UNKNOWN
        where = p.where
        if where == WITH:
            thread = p.thread
            if thread is None:
                return UNKNOWN
            k = thread.k
            if k == K_ON_CPU:
                return RUNNING if self.has_switches else UNKNOWN
            if k == K_BLOCKED:
                return FAULT if thread.fault else IN_SYSCALL
            if k == K_RUNNABLE:
                return NO_CPU
            if k == K_STOPPED:
                return STOPPED
            return UNKNOWN
        if where == TRANSIT:
            return MOVING
        if where == ON_LIST:
            return IDLE
        if where == STW:
            return STOPPED_WORLD
        return UNKNOWN

    def renew(self, p: _P) -> None:
        """P's state may be another: if it is, the time up to now is settled."""
        if not p.counted:
            return
        state = self.state_of(p)
        thread = p.thread
        # A second block in a row (in another call, the first one's end was lost) is another hold.
        tid = -1 if thread is None else thread.tid
        if (
            state == p.state
            and tid == p.tid
            and not (
                p.hold_ns >= 0
                and state == IN_SYSCALL
                and thread is not None
                and thread.nr != p.hold_nr
            )
        ):
            return
        process = p.process
        self.settle(process)
        self.end_piece(p)
        if process.stand_open:
            self.waited_for(p)
        process.counts[p.state] -= 1
        process.counts[state] += 1
        if p.state in (RUNNING, MOVING, UNKNOWN) or state in (RUNNING, MOVING, UNKNOWN):
            process.changed_ns = self.now_ns
        if self.wants_spans:
            self.put_span(p)
        p.state = state
        p.since_ns = self.now_ns
        p.tid = tid
        told = state == IN_SYSCALL and thread is not None and not thread.raw
        p.nr = thread.nr if told and thread is not None else -1
        if p.queue_set and state != IN_SYSCALL and state != NO_CPU:
            self.forget_queue(p)
        p.mark_least, p.mark_most = process.share_least, process.share_most
        p.mark_monitor = process.monitor_ns
        if state in (IN_SYSCALL, FAULT):
            if p.hold_ns >= 0 and (
                p.hold_state != state or (thread is not None and thread.nr != p.hold_nr)
            ):
                self.end_hold(p, UNTOLD)
            if p.hold_ns < 0 and thread is not None:
                self.begin_hold(p, thread, state)
        elif state == UNKNOWN and p.hold_ns >= 0:
            self.end_hold(p, UNTOLD)
        if process.stand_open:
            self.look_whether_it_stands(process)

    def forget_queue(self, p: _P) -> None:
        """P's queue is no longer that of a thread that blocked."""
        if not p.queue_set:
            return
        process = p.process
        process.held -= 1
        process.held_most -= p.queue_most
        process.held_least -= p.queue_least
        process.held_least_if_nobody -= p.queue_if
        p.queue_set = False

    def put_span(self, p: _P) -> None:
        """The span that ends now; a process that ended has its last one already."""
        if self.now_ns <= p.since_ns or p.process.ended:
            return
        out = self.spans
        out[0].put(p.process.pid)
        out[1].put(p.number)
        out[2].put(p.tid)
        out[3].put(p.state)
        out[4].put(p.since_ns)
        out[5].put(self.now_ns)
        out[6].put(p.nr)

    # Holds.

    def begin_hold(self, p: _P, thread: _Thread, state: i64) -> None:
        """The thread that has P blocks."""
        p.hold_ns, p.hold_tid, p.hold_state = self.now_ns, thread.tid, state
        p.hold_nr, p.hold_stack = thread.nr, thread.stack_id
        p.blocked_ns = p.awake_ns = p.monitor_ns = 0
        p.least = p.most = p.awake_least = p.awake_most = 0
        if p.without_ns < 0:
            p.without_ns = self.now_ns

    def end_piece(self, p: _P) -> None:
        """A piece of a hold, in one state, ends now; the process is settled."""
        if p.hold_ns < 0:
            return
        process = p.process
        ns = self.now_ns - p.since_ns
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

    def end_hold(self, p: _P, how: i64) -> None:
        """P is released, or its thread goes on with it."""
        process = p.process
        self.settle(process)
        self.end_piece(p)
        p.mark_least, p.mark_most = process.share_least, process.share_most
        p.mark_monitor = process.monitor_ns
        out = self.holds
        out[0].put(process.pid)
        out[1].put(p.number)
        out[2].put(p.hold_tid)
        out[3].put(p.hold_ns)
        out[4].put(self.now_ns)
        out[5].put(p.hold_nr)
        out[6].put(p.hold_stack)
        out[7].put(p.hold_state)
        out[8].put(how)
        out[9].put(p.blocked_ns)
        out[10].put(p.awake_ns)
        out[11].put(p.least // SCALE)
        out[12].put(p.most // SCALE)
        out[13].put(p.awake_least // SCALE)
        out[14].put(p.awake_most // SCALE)
        out[15].put(p.monitor_ns)
        p.hold_ns = -1
        if how == KEPT:
            p.without_ns = -1

    def end_latency(self, p: _P, how: i64) -> None:
        """A goroutine runs on P again, or none will, or nobody knows."""
        out = self.latencies
        out[0].put(p.process.pid)
        out[1].put(p.number)
        out[2].put(p.without_ns)
        out[3].put(self.now_ns)
        out[4].put(how)
        p.without_ns = -1

    # Sums.

    def settle(self, process: _Process) -> None:
        """Add the time since the last change to what everything was in."""
        now_ns = self.now_ns
        if process.ended:
            return
        while process.bin_end_ns <= now_ns:
            self.settle_to(process, process.bin_end_ns)
            self.put_bin(process)
            process.bin_end_ns += self.bin_ns
        self.settle_to(process, now_ns)

    def settle_to(self, process: _Process, now_ns: i64) -> None:
        """The same, within one bin."""
        fresh_until_ns = process.fresh_until_ns
        if process.old and process.at_ns < fresh_until_ns < now_ns:
            self.settle_to(process, fresh_until_ns)
        if process.at_ns < process.timer_ns < now_ns:
            self.settle_to(process, process.timer_ns)
        # So that no share of lost time, which is counted in SCALE, exceeds an i64: days, mostly.
        step_ns = LARGEST // (SCALE * (process.count + 1))
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
        going: i64 = 0
        state: i64 = 0
        while state < N_STATES:
            n = counts[state]
            if n > 0:
                sums[state] += n * ns
                if state >= IN_SYSCALL and state <= STOPPED_WORLD:
                    going += n
            state += 1
        process.p_ns += process.count * ns
        monitor = process.monitor
        if monitor is not None and monitor.k == K_RUNNABLE:
            process.monitor_ns += ns
        idle = counts[IDLE]
        idle_most = idle if counts[UNKNOWN] == 0 else max(idle, process.idle_most)
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
            none_most = counts[RUNNING] == 0
            none_least = none_most and counts[UNKNOWN] == 0 and lost_least > 0
            process.some_most[ANY] += ns
            if none_most:
                process.full_most[ANY] += ns
            if lost_least > 0:
                process.some_least[ANY] += ns
            if none_least:
                process.full_least[ANY] += ns
            share_least = ns * lost_least * SCALE // going
            share_most = ns * lost_most * SCALE // going
            process.share_least += share_least
            process.share_most += share_most
            state = IN_SYSCALL
            while state <= STOPPED_WORLD:
                n = counts[state]
                if n > 0:
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

    def put_bin(self, process: _Process) -> None:
        """All sums so far."""
        out = self.bins
        out[0].put(process.pid)
        out[1].put(process.at_ns)
        out[2].put(process.p_ns)
        at: i64 = 3
        state: i64 = 0
        while state < N_STATES:
            out[at].put(process.ns[state])
            at += 1
            state += 1
        state = IN_SYSCALL
        while state <= STOPPED_WORLD:
            out[at].put(process.lost_least[state])
            out[at + 6].put(process.lost_most[state])
            at += 1
            state += 1
        at += 6
        out[at].put(process.wait_least_ns)
        out[at + 1].put(process.wait_most_ns)
        out[at + 2].put(process.wait_unknown_ns)
        at += 3
        for sums in (
            process.some_least,
            process.some_most,
            process.full_least,
            process.full_most,
        ):
            state = ANY
            while state <= STOPPED_WORLD:
                out[at].put(sums[state])
                at += 1
                state += 1

    def end(self, process: _Process) -> None:
        """The process, or the capture, ends."""
        if process.ended:
            return
        self.settle(process)
        self.end_stop(process)
        for p in process.ps:
            if p.hold_ns >= 0:
                self.end_hold(p, KEPT)
            if p.counted and self.wants_spans:
                self.put_span(p)
        if self.bin_ns > 0:
            self.put_bin(process)
        process.ended = True

    def set_procs(self, process: _Process, procs: i64) -> None:
        """GOMAXPROCS, as it was read."""
        self.settle(process)
        first = not process.procs_told
        number: i64 = 0
        while number < procs:
            p = self.p(process, number)
            if not p.counted:
                self.count(p, first)
            number += 1
        for p in process.ps:
            if p.number >= procs:
                self.place(p, DEAD, None)
        process.procs_told = True

    def count(self, p: _P, since_begin: bool) -> None:
        """P is one of the process's Ps from now on, or was since its begin."""
        process = p.process
        self.settle(process)
        p.counted = True
        p.state, p.since_ns, p.tid, p.nr = UNKNOWN, self.now_ns, -1, -1
        process.counts[UNKNOWN] += 1
        process.count += 1
        ns = self.now_ns - process.begin_ns
        if since_begin and ns > 0:
            process.ns[UNKNOWN] += ns
            process.p_ns += ns
            p.since_ns = process.begin_ns
        self.renew(p)

    def uncount(self, p: _P) -> None:
        """P is no more."""
        if not p.counted:
            return
        process = p.process
        self.settle(process)
        self.forget_queue(p)
        if p.without_ns >= 0:
            self.end_latency(p, 0)
        if self.wants_spans:
            self.put_span(p)
        process.counts[p.state] -= 1
        process.count -= 1
        p.counted = False

    # Where things are kept.

    def p(self, process: _Process, number: i64) -> _P:
        """The P of that number, counted; where GOMAXPROCS is not told, those below it too."""
        ps = process.ps
        while len(ps) <= number:
            ps.append(_P(process, len(ps)))
        p = ps[number]
        if not p.counted and not process.ended:
            if process.procs_told:
                self.count(p, False)
            else:
                below: i64 = 0
                while below <= number:
                    if not ps[below].counted:
                        self.count(ps[below], True)
                    below += 1
        return p

    def process(self, pid: i64) -> _Process:
        """The process of that number."""
        found = self.processes.get(pid)
        if found is None:
            found = _Process(pid, self.begin_ns)
            found.reached = not self.needs_reach
            if self.bin_ns > 0:
                found.bin_end_ns = self.begin_ns + self.bin_ns
            self.processes[pid] = found
        return found

    def thread(self, tid: i64) -> _Thread | None:
        """The thread of that number; None for one that can be no thread's."""
        if tid <= 0 or tid >= MAX_TID:
            return None
        page = tid // PAGE
        while len(self.pages) <= page:
            self.pages.append([])
        threads = self.pages[page]
        if not threads:
            threads.extend([None] * PAGE)
        found = threads[tid % PAGE]
        if found is None:
            found = _Thread(tid)
            if self.only_pid >= 0:
                found.process = self.process(self.only_pid)
            threads[tid % PAGE] = found
        return found
