"""The state of each P: it follows from where P is, and from what P's thread does.

If one of the two changes (:meth:`Places.place`, :meth:`Places.become`), P's state may change.
:meth:`Places.renew` then settles the time up to this moment. It ends what depended on the old
state and begins what depends on the new one: the span, the hold, the part of a stop's wait.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from analysis.ptime.engine.holds import RELEASED, UNTOLD, Holds
from analysis.ptime.engine.moves import DEAD, NOWHERE, ON_LIST, STW, TRANSIT, WITH, Move
from analysis.ptime.engine.rows import Out
from analysis.ptime.engine.state import (
    FAULT,
    IDLE,
    IN_SYSCALL,
    K_BLOCKED,
    K_ON_CPU,
    K_RUNNABLE,
    K_STOPPED,
    MOVING,
    NO_CPU,
    RUNNING,
    STOPPED,
    STOPPED_WORLD,
    UNKNOWN,
    Census,
    P,
    Process,
    Thread,
)
from analysis.ptime.engine.stops import Stops
from analysis.ptime.engine.sums import Sums

SPAN: Final = ("pid", "p", "tid", "state", "begin_ns", "end_ns", "nr")
"""Columns of :attr:`Places.spans`; ``nr`` is that of the system call, in state syscall, and
-1 there for a call that the runtime was not told of (its own waits, and raw calls)."""


class Places:
    """Keeps the state of each P.

    Args:
        census: the processes and threads, and how late it is.
        sums, holds, stops: what hangs on a P's state.
        has_switches: the trace has table sched_switch; else nobody knows who is on a CPU.
        spans: whether to give a row for each span of each P.
    """

    def __init__(
        self,
        census: Census,
        sums: Sums,
        holds: Holds,
        stops: Stops,
        has_switches: bool,
        spans: bool,
    ) -> None:
        self.census: Census = census
        self.sums: Sums = sums
        self.holds: Holds = holds
        self.stops: Stops = stops
        self.has_switches: bool = has_switches
        self.wants_spans: bool = spans
        self.spans: Out = Out()

    def become(self, thread: Thread, k: i64) -> None:
        """A thread does something else from now on."""
        if thread.k == k and k != K_BLOCKED:
            return
        process = thread.process
        if process is not None and thread.k != k:
            if process.monitor is thread and (thread.k == K_RUNNABLE or k == K_RUNNABLE):
                self.sums.settle(process)
            if k == K_ON_CPU or thread.k == K_ON_CPU:
                if process.old and not process.ran:
                    self.sums.settle(process)
                process.on_cpu += 1 if k == K_ON_CPU else -1
                process.ran = True
        thread.k = k
        p = thread.p
        if p is not None:
            if p.doubt and k != K_ON_CPU and k != K_RUNNABLE:
                self.place(p, NOWHERE, None)
            else:
                self.renew(p)

    def leave(self, thread: Thread) -> None:
        """The thread is another's number from now on: what was with it is nowhere."""
        p = thread.p
        if p is not None:
            self.place(p, NOWHERE, None)

    def place(self, p: P, where: i64, thread: Thread | None, within: bool = False) -> None:
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
            self.holds.end(p, UNTOLD if where == NOWHERE and not bounded else RELEASED)
        before = p.where
        p.where = where
        if where == DEAD:
            self.uncount(p)
            return
        if where == TRANSIT and p.without_ns < 0:
            p.without_ns = self.census.now_ns
        elif where not in (TRANSIT, NOWHERE) and p.without_ns >= 0:
            if where == WITH:
                if before == NOWHERE:
                    self.holds.end_latency(p, 2)
                elif was is not thread:
                    self.holds.end_latency(p, 1)
            else:
                self.holds.end_latency(p, 0)
        self.renew(p)

    def state_of(self, p: P) -> i64:
        """P's state, as everything stands."""
        if self.census.losses > 0 or not p.process.reached:
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

    def renew(self, p: P) -> None:
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
        self.sums.settle(process)
        self.holds.end_piece(p)
        if process.stand_open:
            self.stops.waited_for(p)
        process.counts[p.state] -= 1
        process.counts[state] += 1
        if p.state in (RUNNING, MOVING, UNKNOWN) or state in (RUNNING, MOVING, UNKNOWN):
            process.changed_ns = self.census.now_ns
        if self.wants_spans:
            self.put_span(p)
        p.state = state
        p.since_ns = self.census.now_ns
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
                self.holds.end(p, UNTOLD)
            if p.hold_ns < 0 and thread is not None:
                self.holds.begin(p, thread, state)
        elif state == UNKNOWN and p.hold_ns >= 0:
            self.holds.end(p, UNTOLD)
        if process.stand_open:
            self.stops.look_whether_it_stands(process)

    def forget_queue(self, p: P) -> None:
        """P's queue is no longer that of a thread that blocked."""
        if not p.queue_set:
            return
        process = p.process
        process.held -= 1
        process.held_most -= p.queue_most
        process.held_least -= p.queue_least
        process.held_least_if_nobody -= p.queue_if
        p.queue_set = False

    def set_queue(self, p: P, move: Move) -> None:
        """What was read of P's queue when its thread blocked (HELD_QUEUE)."""
        process = p.process
        self.sums.settle(process)
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

    def put_span(self, p: P) -> None:
        """The span that ends now; a process that ended has its last one already."""
        if self.census.now_ns <= p.since_ns or p.process.ended:
            return
        out = self.spans
        out.put(p.process.pid)
        out.put(p.number)
        out.put(p.tid)
        out.put(p.state)
        out.put(p.since_ns)
        out.put(self.census.now_ns)
        out.put(p.nr)

    # How many Ps there are.

    def set_procs(self, process: Process, procs: i64) -> None:
        """GOMAXPROCS, as it was read."""
        self.sums.settle(process)
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

    def count(self, p: P, since_begin: bool) -> None:
        """P is one of the process's Ps from now on, or was since its begin."""
        process = p.process
        self.sums.settle(process)
        p.counted = True
        p.state, p.since_ns, p.tid, p.nr = UNKNOWN, self.census.now_ns, -1, -1
        process.counts[UNKNOWN] += 1
        process.count += 1
        ns = self.census.now_ns - process.begin_ns
        if since_begin and ns > 0:
            process.ns[UNKNOWN] += ns
            process.p_ns += ns
            p.since_ns = process.begin_ns
        self.renew(p)

    def uncount(self, p: P) -> None:
        """P is no more."""
        if not p.counted:
            return
        process = p.process
        self.sums.settle(process)
        self.forget_queue(p)
        if p.without_ns >= 0:
            self.holds.end_latency(p, 0)
        if self.wants_spans:
            self.put_span(p)
        process.counts[p.state] -= 1
        process.count -= 1
        p.counted = False

    def p(self, process: Process, number: i64) -> P:
        """The P of that number, counted; where GOMAXPROCS is not told, those below it too."""
        ps = process.ps
        while len(ps) <= number:
            ps.append(P(process, len(ps)))
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
