"""The account of P time: the second half of the pass, one loop over rows and moves in time order.

**Concepts.** A *thread* is on a CPU, waits for a CPU, or is blocked, stopped or dead; the kernel's
rows say which. A *P* is with a thread, on its way to one, idle, stopped by a stop-the-world, or
unknown; the moves say which (:mod:`analysis.ptime.engine.owners`). Together they give the *state*
of P, and at each moment P has exactly one. When a state changes, the time since the last change is
*settled*: it is added to the states in which the Ps were. So the states add up to the number of
Ps x time, to the nanosecond, whatever the rows say.

    thread of P is ...   P is with it    P is on its way / idle / stopped / not known
    on a CPU             running         transit / idle / stw / unknown
    blocked in a call    syscall
    blocked elsewhere    fault
    without a CPU        no_cpu
    stopped              stopped
    not known            unknown

Three figures depend on the states, and each has a file: lost P time (``sums``), holds of Ps
(``holds``), and what a stop-the-world waits for (``stops``). This file decides what each row and
each move changes in them.

**Rejected.** *Adding up each episode's own waiting time*: with 8 readers the same goroutine's wait
is counted 8 times. *Sums by pandas over pieces of spans*: the pieces are many times the rows.
*C*: compiled by mypyc this loop is near enough, and interpreted it can be stepped through.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from analysis.ptime.engine.holds import HOLD, KEPT, LATENCY, Holds
from analysis.ptime.engine.moves import (
    DEAD,
    DOUBT,
    HELD_QUEUE,
    LOOK,
    NOWHERE,
    ON_LIST,
    OWN,
    PROCS,
    STAYS,
    STOP_BEGINS,
    STOP_STANDS,
    STW,
    TAKEN,
    WITH,
    Move,
    Moves,
)
from analysis.ptime.engine.places import SPAN, Places
from analysis.ptime.engine.rows import (
    BEGINS,
    BLOCK,
    EDGE,
    ENDS,
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
    THROTTLE_NS,
    WAKEUP,
    Out,
    Rows,
)
from analysis.ptime.engine.state import (
    FAULT,
    K_BLOCKED,
    K_DEAD,
    K_ON_CPU,
    K_RUNNABLE,
    K_STOPPED,
    K_UNKNOWN,
    NO_CPU,
    Census,
    Process,
)
from analysis.ptime.engine.stops import STOP, WAITED, Stops
from analysis.ptime.engine.sums import BIN, Sums
from analysis.ptime.engine.words import (
    PREV_BLOCKED,
    PREV_DEAD,
    PREV_PREEMPTED,
    PREV_STOPPED,
    SIGNAL_DELIVER,
    TASK_EXEC,
    TASK_FORK,
    USE_HANDED_OFF,
    USE_RAW,
    WHY_FAULT,
)

RESULTS: Final = {
    "holds": HOLD,
    "latencies": LATENCY,
    "stops": STOP,
    "waited": WAITED,
    "bins": BIN,
    "spans": SPAN,
}
"""Tables that come out, and the names of their columns."""


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
        self.census: Census = Census(needs_reach, only_pid, begin_ns, bin_ns)
        self.sums: Sums = Sums(self.census, has_looks)
        self.holds: Holds = Holds(self.census, self.sums)
        self.stops: Stops = Stops(self.census, tells_stands)
        self.places: Places = Places(
            self.census, self.sums, self.holds, self.stops, has_switches, spans
        )

    # What the driver calls.

    def know(self, tid: i64, pid: i64) -> None:
        """A thread and its process, before the first row."""
        self.census.know(tid, pid)

    def monitor(self, pid: i64, tid: i64) -> None:
        """The thread that takes Ps from calls in this process."""
        self.census.process(pid).monitor = self.census.thread(tid)

    def run(self, tables: list[Rows], moves: Moves, until_ns: i64) -> None:
        """Settle everything up to a moment.

        Args:
            tables: by :data:`COLUMNS` of ``rows``; rows up to ``until_ns`` are taken.
            moves: of the first half; those up to ``until_ns`` are taken, and forgotten there.
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
        census = self.census
        told = moves.moves
        count: i64 = len(told)
        next_move = self.alive(told, 0)
        move_ns: i64 = told[next_move].ns if next_move < count else NEVER
        while True:
            ns = switch.ts_ns
            first: i64 = SWITCH
            if wakeup.ts_ns < ns:
                ns = wakeup.ts_ns
                first = WAKEUP
            if signal.ts_ns < ns:
                ns = signal.ts_ns
                first = SIGNAL
            if runtime.ts_ns <= ns:
                ns = runtime.ts_ns
                first = RUNTIME
            if syscall.ts_ns <= ns:
                ns = syscall.ts_ns
                first = SYSCALL
            if block.ts_ns <= ns:
                ns = block.ts_ns
                first = BLOCK
            if task.ts_ns <= ns:
                ns = task.ts_ns
                first = TASK
            if edge.ts_ns <= ns:
                ns = edge.ts_ns
                first = EDGE
            if move_ns <= ns:
                if move_ns > until_ns or move_ns == NEVER:
                    break
                census.at(move_ns)
                self.on_move(told[next_move])
                next_move = self.alive(told, next_move + 1)
                move_ns = told[next_move].ns if next_move < count else NEVER
                continue
            if ns > until_ns or ns == NEVER:
                break
            census.at(ns)
            if first == SWITCH:
                self.on_switch(switch)
                switch.next()
            elif first == WAKEUP:
                self.on_wakeup(wakeup.get(1))
                wakeup.next()
            elif first == RUNTIME:
                self.on_running(runtime.get(2))
                runtime.next()
            elif first == SYSCALL:
                self.on_exit(syscall.get(2))
                syscall.next()
            elif first == BLOCK:
                self.on_block(block)
                block.next()
            elif first == SIGNAL:
                thread = census.thread(signal.get(1))
                if thread is not None:
                    if signal.get(3) == SIGNAL_DELIVER:
                        self.stops.signal_met(thread, signal.get(2))
                    else:
                        self.stops.signal_sent(thread)
                signal.next()
            elif first == TASK:
                self.on_task(task)
                task.next()
            else:
                self.on_edge(edge)
                edge.next()

        moves.forget(next_move)

    def alive(self, moves: list[Move], at: i64) -> i64:
        """The place of the next move, from ``at`` on, that no later row took back."""
        count: i64 = len(moves)
        while at < count and moves[at].dead:
            at += 1
        return at

    def settle_all(self, ns: i64) -> None:
        """Bring the sums of every process up to a moment, though it has no row there."""
        self.census.at(ns)
        for process in self.census.processes.values():
            self.sums.settle(process)

    def close(self, end_ns: i64) -> None:
        """The capture ends: what is open ends here."""
        self.census.at(end_ns)
        for process in self.census.processes.values():
            self.end(process)

    # Rows.

    def on_task(self, row: Rows) -> None:
        """A thread's life."""
        thread = self.census.thread(row.get(1))
        if thread is None:
            return
        kind = row.get(3)
        if kind == TASK_FORK:
            self.places.leave(thread)
            self.places.become(thread, K_UNKNOWN)
            thread.in_call, thread.block_ns = False, -1
        process = thread.process
        if process is None or process.pid != row.get(2):
            k = thread.k
            self.places.become(thread, K_UNKNOWN)
            process = self.census.process(row.get(2))
            thread.process = process
            self.places.become(thread, k)
        if kind == TASK_EXEC:
            self.sums.settle(process)
            for p in process.ps:
                self.places.place(p, DEAD, None)
            process.begin_ns = self.census.now_ns
            if process.p_ns == 0:
                process.first_ns = process.begin_ns
            process.procs_told = False
            process.looked = False

    def on_switch(self, row: Rows) -> None:
        """One thread leaves a CPU, another comes on it."""
        prev, enters = row.get(1), row.get(2)
        if prev > 0:
            thread = self.census.thread(prev)
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
                    and thread.block_ns != self.census.now_ns
                    and not thread.in_call
                ):
                    if self.exact or self.census.losses > 0 or thread.stays:
                        # The runtime's own wait, with P.
                        thread.fault, thread.nr, thread.stack_id = False, -1, -1
                    else:
                        # Go's M parks (stopm): it gave its P up before.
                        process = p.process
                        where: i64 = STW if process.stopping else ON_LIST
                        self.places.place(p, NOWHERE if p.doubt else where, None)
                self.places.become(thread, k)
        if enters > 0:
            thread = self.census.thread(enters)
            if thread is not None:
                self.places.become(thread, K_ON_CPU)
                p = thread.p
                if p is not None and p.hold_ns >= 0 and p.hold_state == FAULT:
                    self.holds.end(p, KEPT)

    def on_wakeup(self, tid: i64) -> None:
        """A thread could run."""
        thread = self.census.thread(tid)
        if thread is not None and thread.k != K_ON_CPU:
            self.places.become(thread, K_RUNNABLE)

    def on_running(self, tid: i64) -> None:
        """A thread did something, so it is on a CPU."""
        thread = self.census.thread(tid) if tid > 0 else None
        if thread is not None and thread.k != K_ON_CPU:
            self.places.become(thread, K_ON_CPU)

    def on_exit(self, tid: i64) -> None:
        """A thread returned from a call that had blocked."""
        thread = self.census.thread(tid)
        if thread is None:
            return
        thread.in_call = thread.stays = False
        p = thread.p
        if p is not None and p.hold_ns >= 0:
            self.holds.end(p, KEPT)
            p.without_ns = -1
        self.places.become(thread, K_ON_CPU)

    def on_block(self, row: Rows) -> None:
        """A thread blocks, in a call or in a fault."""
        thread = self.census.thread(row.get(2))
        if thread is None:
            return
        thread.block_ns = self.census.now_ns
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
                    self.places.place(p, WITH, thread)
        self.places.become(thread, K_BLOCKED)

    def on_edge(self, row: Rows) -> None:
        """Something about a process, or about all."""
        kind = row.get(2)
        if kind in (LOSS_BEGINS, LOSS_ENDS):
            self.on_loss(kind == LOSS_BEGINS)
            return
        process = self.census.process(row.get(1))
        if kind == BEGINS:
            if process.count == 0:
                process.begin_ns = max(process.begin_ns, self.census.now_ns)
                if process.p_ns == 0:
                    process.first_ns = process.begin_ns
                process.at_ns = max(process.at_ns, self.census.now_ns)
        elif kind == ENDS:
            self.end(process)
        elif kind in (REACHED, OUT_OF_REACH):
            process.reached = kind == REACHED
            for p in process.ps:
                self.places.renew(p)
        elif kind in (THROTTLE_BEGINS, THROTTLE_ENDS):
            self.sums.settle(process)
            waited = process.ns[NO_CPU] - process.no_cpu_mark_ns
            if kind == THROTTLE_ENDS and process.no_cpu_mark_ns >= 0:
                took = max(row.get(3), 0)
                own = min(waited, took)
                # The kernel counts what it took when that ends (unthrottle_cfs_rq): what is more
                # than was waited for in this span, was so in the one before.
                process.throttled_ns += own + min(took - own, process.no_cpu_left_ns)
                process.no_cpu_left_ns = min(waited - own, process.count * THROTTLE_NS)
            process.no_cpu_mark_ns = process.ns[NO_CPU]

    def on_loss(self, begins: bool) -> None:
        """Records are lost from here on, or none any more: then all is to be learned anew."""
        self.census.losses += 1 if begins else -1
        for process in self.census.processes.values():
            self.sums.settle(process)
            process.looked = False
            for p in process.ps:
                if not begins:
                    self.places.place(p, NOWHERE, None)
                self.places.renew(p)
        if begins:
            return
        for thread in self.census.threads:
            self.places.become(thread, K_UNKNOWN)
            thread.in_call = False

    # Moves.

    def on_move(self, move: Move) -> None:
        """What follows from rows, from here on."""
        process = self.census.process(move.pid)
        if process.ended:
            return
        kind = move.kind
        if kind == OWN:
            if move.where == DEAD and move.p >= len(process.ps):
                return
            p = self.places.p(process, move.p)
            owner = self.census.thread(move.tid) if move.where == WITH else None
            self.places.place(p, move.where, owner)
        elif kind == DOUBT:
            p = self.places.p(process, move.p)
            owner = p.thread
            p.doubt = True
            runs_on = (
                owner is not None
                and not owner.in_call
                and (owner.k == K_ON_CPU or owner.k == K_RUNNABLE)
            )
            if p.where == WITH and runs_on:
                return
            self.places.place(p, NOWHERE, None, move.old)
        elif kind == LOOK:
            self.sums.look(process, move)
        elif kind == HELD_QUEUE:
            self.places.set_queue(self.places.p(process, move.p), move)
        elif kind == TAKEN:
            loser = self.census.thread(move.tid)
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
            stayer = self.census.thread(move.tid)
            if stayer is not None:
                stayer.stays = True
        elif kind == PROCS:
            self.places.set_procs(process, move.least)
        else:
            self.on_stop(process, kind, move.tid, move.old)

    def on_stop(self, process: Process, kind: i64, tid: i64, late: bool) -> None:
        """The world is to stop, stands, or goes on; ``late``: it was so before, since when is
        not known."""
        places, stops = self.places, self.stops
        if kind == STOP_BEGINS:
            stops.begin(process, tid)
            # Those on the list are taken at once.
            for p in process.ps:
                if p.where == ON_LIST:
                    places.place(p, STW, None)
            stops.look_whether_it_stands(process)
            if late and process.stand_ns == self.census.now_ns:
                # It stood already: how long it took is not known.
                process.stand_ns = -1
        elif kind == STOP_STANDS:
            stops.stands(process)
        else:
            stops.end(process)
            for p in process.ps:
                if p.where == STW:
                    places.place(p, ON_LIST, None)

    def end(self, process: Process) -> None:
        """The process, or the capture, ends."""
        if process.ended:
            return
        self.sums.settle(process)
        self.stops.end(process)
        for p in process.ps:
            if p.hold_ns >= 0:
                self.holds.end(p, KEPT)
            if p.counted and self.places.wants_spans:
                self.places.put_span(p)
        if self.census.bin_ns > 0:
            self.sums.put_bin(process)
        process.ended = True

    def out(self, name: str) -> Out:
        """The rows of one table of :data:`RESULTS` since they were taken."""
        outs = {
            "holds": self.holds.holds,
            "latencies": self.holds.latencies,
            "stops": self.stops.stops,
            "waited": self.stops.waited,
            "bins": self.sums.bins,
            "spans": self.places.spans,
        }
        return outs[name]
