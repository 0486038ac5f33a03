"""Stop-the-worlds: when one was requested, when the world stood, and what it waited for.

After the request the stop *waits* until only the M that requested it runs; then the world stands.
During the wait, the time that each P spends in a state counts as what the stop waited for. A P
whose M is in a system call is taken at once, unless the runtime was not told of the call (a raw
one): for that the stop waits as for an M that runs.

Where an M is waited for, its signal tells. A thread that is in the kernel, or has no CPU, gets
the signal only when it is back in user code. So the place that the signal finds is where the
thread was ever since the signal was sent.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from analysis.ptime.engine.rows import Out
from analysis.ptime.engine.state import (
    FAULT,
    IN_SYSCALL,
    MOVING,
    NO_CPU,
    RUNNING,
    STOPPED,
    STOPPED_WORLD,
    UNKNOWN,
    Census,
    P,
    Piece,
    Process,
    Thread,
)

STOP: Final = ("pid", "tid", "begin_ns", "stand_ns", "end_ns")
"""Columns of :attr:`Stops.stops`; ``stand_ns`` is -1 where it is not known.

Who stops the world sends signals until it stands. Where the world went on before any row told that
it stood, it stood at some time between the last signal and the end. The end is taken for it if
that is a tenth of the stop or less.
"""

_NEAR: Final = 10
"""One part in so many."""

WAITED: Final = ("pid", "begin_ns", "p", "tid", "state", "nr", "stack_id", "pc", "ns")
"""Columns of :attr:`Stops.waited`: what a stop waited for, a P's piece of time in one state."""


class Stops:
    """Writes down each stop, and what it waited for.

    Args:
        census: the threads, and how late it is.
        tells_stands: the runtime tells when the world stands.
    """

    def __init__(self, census: Census, tells_stands: bool) -> None:
        self.census: Census = census
        self.tells_stands: bool = tells_stands
        self.stops: Out = Out()
        self.waited: Out = Out()

    def begin(self, process: Process, tid: i64) -> None:
        """This thread wants the world to stop; -1 where nobody told who does."""
        self.end(process)
        process.stopping = process.stand_open = True
        process.stop_begin_ns, process.stand_ns = self.census.now_ns, -1
        process.stopper, process.waits_ns = tid, -1

    def stands(self, process: Process) -> None:
        """The runtime told that the world stands."""
        if process.stopping:
            process.stand_ns = self.census.now_ns
            self.end_waiting(process)

    def end(self, process: Process) -> None:
        """The stop is over."""
        if not process.stopping:
            return
        now_ns = self.census.now_ns
        unseen = process.stand_open and process.waits_ns >= 0 and not self.tells_stands
        if unseen and (now_ns - process.waits_ns) * _NEAR <= now_ns - process.stop_begin_ns:
            process.stand_ns = now_ns
        self.end_waiting(process)
        process.stopping = False
        out = self.stops
        out.put(process.pid)
        out.put(process.stopper)
        out.put(process.stop_begin_ns)
        out.put(process.stand_ns)
        out.put(now_ns)

    def end_waiting(self, process: Process) -> None:
        """Nobody is waited for any more: pieces that are open are cut here."""
        if not process.stand_open:
            return
        for p in process.ps:
            if p.counted:
                self.waited_for(p)
        process.stand_open = False
        self.give_out(process)

    def look_whether_it_stands(self, process: Process) -> None:
        """The world stands when nobody runs but who stopped it."""
        if not process.stand_open or self.tells_stands:
            return
        counts = process.counts
        going = counts[RUNNING] + counts[FAULT] + counts[NO_CPU] + counts[STOPPED] + counts[MOVING]
        stopper = self.census.thread(process.stopper) if process.stopper > 0 else None
        own: i64 = 0
        if stopper is None:
            own = min(going, 1)
        else:
            p = stopper.p
            if p is not None and (p.state == RUNNING or p.state == NO_CPU or p.state == FAULT):
                own = 1
        if going - own == 0 and counts[UNKNOWN] == 0 and not self.in_raw_calls(process, own):
            process.stand_ns = self.census.now_ns
            process.stand_open = False
            self.give_out(process)

    def in_raw_calls(self, process: Process, own: i64) -> bool:
        """Whether an M that is blocked keeps its P, as the runtime was not told of its call.

        Who stopped the world waits so itself, with its P; ``own`` is 1 where that one was seen
        elsewhere.
        """
        if process.counts[IN_SYSCALL] == 0:
            return False
        raw: i64 = 0
        for p in process.ps:
            thread = p.thread
            if p.counted and p.state == IN_SYSCALL and thread is not None and thread.raw:
                if thread.tid == process.stopper:
                    continue
                raw += 1
        # Where nobody told who stopped it, one of them may be that one.
        if process.stopper <= 0 and own == 0:
            raw -= 1
        return raw > 0

    def signal_sent(self, thread: Thread) -> None:
        """A signal is on its way to a thread: until it meets it, the thread is at one place."""
        process = thread.process
        if process is not None and process.stand_open:
            process.waits_ns = self.census.now_ns
        if thread.sent_ns >= 0:
            return
        p = thread.p
        if p is not None and process is not None and process.stand_open and p.counted:
            self.waited_for(p)
            p.cut_ns = self.census.now_ns
        thread.sent_ns = self.census.now_ns
        thread.unplaced = []

    def signal_met(self, thread: Thread, pc: i64) -> None:
        """A signal met a thread: a stop that waits for it waits for another place from here on."""
        p = thread.p
        process = thread.process
        if (
            p is not None
            and process is not None
            and process.stand_open
            and p.counted
            and (pc != thread.pc or thread.pc_ns < process.stop_begin_ns or thread.sent_ns >= 0)
        ):
            self.waited_for(p)
            p.cut_ns = self.census.now_ns
        for piece in thread.unplaced:
            piece.pc = pc
        thread.unplaced = []
        thread.sent_ns = -1
        thread.pc, thread.pc_ns = pc, self.census.now_ns

    def waited_for(self, p: P) -> None:
        """A piece of a P's time, that ends now, in a stop that waits."""
        process = p.process
        # The piece is of the thread that had P in it, and not of who has P from now on.
        thread = self.census.thread(p.tid) if p.tid >= 0 else None
        state = p.state
        begin_ns = max(p.since_ns, max(process.stop_begin_ns, p.cut_ns))
        ns = self.census.now_ns - begin_ns
        if ns <= 0 or state >= STOPPED_WORLD:
            return
        if thread is not None and thread.tid == process.stopper:
            return
        if state == IN_SYSCALL and p.nr >= 0:
            # The runtime was told of the call, and took P at once.
            return
        piece = Piece(p.number, -1 if thread is None else thread.tid, state, ns)
        if thread is not None:
            if state == IN_SYSCALL:
                piece.nr = thread.nr
            if state in (IN_SYSCALL, FAULT):
                piece.stack_id = thread.stack_id
            elif 0 <= thread.sent_ns <= begin_ns:
                thread.unplaced.append(piece)
            elif thread.pc_ns >= process.stop_begin_ns:
                # Where it was before the stop asked for it says nothing of what it waits for.
                piece.pc = thread.pc
        process.pieces.append(piece)

    def give_out(self, process: Process) -> None:
        """What the stop waited for, now that signals told where."""
        out = self.waited
        for piece in process.pieces:
            out.put(process.pid)
            out.put(process.stop_begin_ns)
            out.put(piece.p)
            out.put(piece.tid)
            out.put(piece.state)
            out.put(piece.nr)
            out.put(piece.stack_id)
            out.put(piece.pc)
            out.put(piece.ns)
        process.pieces = []
