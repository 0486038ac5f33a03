"""The states of a P, and what the account keeps of each P, thread and process.

:class:`Census` has all of them by number, and the current moment of the pass.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from analysis.ptime.engine.moves import MANY, NOWHERE
from analysis.ptime.engine.rows import NEVER
from analysis.ptime.engine.tids import MAX_TID, Tids

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


class Process:
    """The sums of one process, up to ``at_ns``."""

    def __init__(self, pid: i64, begin_ns: i64) -> None:
        self.pid: i64 = pid
        self.begin_ns: i64 = begin_ns
        """Ps that are first heard of later were there since then, in a state that nobody knows. An
        exec begins anew."""
        self.first_ns: i64 = begin_ns
        """Since when the sums are: those of the program before an exec are among them."""
        self.at_ns: i64 = begin_ns
        self.bin_end_ns: i64 = NEVER
        self.ended: bool = False
        self.reached: bool = True
        self.ps: list[P] = []
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
        self.no_cpu_left_ns: i64 = 0
        """Without a CPU in the span before, beyond what quotas were said to have taken in it."""
        self.monitor: Thread | None = None
        self.monitor_ns: i64 = 0
        self.stopping: bool = False
        self.stand_open: bool = False
        self.stop_begin_ns: i64 = 0
        self.stand_ns: i64 = -1
        self.stopper: i64 = -1
        self.waits_ns: i64 = -1
        """The last sign that the stop still waited: a signal to one of its threads."""
        self.pieces: list[Piece] = []
        """What the stop that waits has waited for so far."""
        self.taken: vec[i64] = vec[i64]([0] * 4)
        """From a blocked thread, from one on a CPU, from one without a CPU; not known."""


class Piece:
    """A P's piece of time that a stop waited for, in one state; -1 for what is not told."""

    def __init__(self, p: i64, tid: i64, state: i64, ns: i64) -> None:
        self.p: i64 = p
        self.tid: i64 = tid
        self.state: i64 = state
        self.ns: i64 = ns
        self.nr: i64 = -1
        self.stack_id: i64 = -1
        self.pc: i64 = -1


class Thread:
    """What a thread does, and the P that is with it."""

    def __init__(self, tid: i64) -> None:
        self.tid: i64 = tid
        self.process: Process | None = None
        self.k: i64 = K_UNKNOWN
        self.p: P | None = None
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
        self.sent_ns: i64 = -1
        """Since when a signal is on its way to it; -1 for none."""
        self.unplaced: list[Piece] = []
        """Pieces since then: the signal tells where it was."""


class P:
    """Where a P is, its state since when, and the hold it is in."""

    def __init__(self, process: Process, number: i64) -> None:
        self.process: Process = process
        self.number: i64 = number
        self.where: i64 = NOWHERE
        self.thread: Thread | None = None
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
        self.hold_raw: bool = False
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


class Census:
    """Processes and threads by number, at one moment.

    Args:
        needs_reach: no P is known before an edge says that its process can be read.
        only_pid: the process of threads that no row of table task names; -1 for none.
        begin_ns: begin of the capture.
        bin_ns: how far apart the rows of ``bins`` are; 0 for none.
    """

    def __init__(self, needs_reach: bool, only_pid: i64, begin_ns: i64, bin_ns: i64) -> None:
        self.needs_reach: bool = needs_reach
        self.only_pid: i64 = only_pid
        self.begin_ns: i64 = begin_ns
        self.bin_ns: i64 = bin_ns
        self.now_ns: i64 = begin_ns
        self.losses: i64 = 0
        """Of how many tables records are lost at this moment."""
        self.tids: Tids = Tids()
        self.threads: list[Thread] = []
        """By the places of ``tids``."""
        self.processes: dict[int, Process] = {}
        self.last: Process | None = None
        """The one that was asked for last: of most traces the only one, and asked at each move."""

    def at(self, ns: i64) -> None:
        """It is that late; never earlier than it was."""
        if ns > self.now_ns:
            self.now_ns = ns

    def process(self, pid: i64) -> Process:
        """The process of that number."""
        last = self.last
        if last is not None and last.pid == pid:
            return last
        found = self.processes.get(pid)
        if found is None:
            found = Process(pid, self.begin_ns)
            found.reached = not self.needs_reach
            if self.bin_ns > 0:
                found.bin_end_ns = self.begin_ns + self.bin_ns
            self.processes[pid] = found
        self.last = found
        return found

    def know(self, tid: i64, pid: i64) -> None:
        """A thread and its process, before the first row of either."""
        if pid not in self.processes and self.bin_ns > 0:
            # Of one that comes late there is nothing to tell before: as many bins as there were.
            bins = (self.now_ns - self.begin_ns) // self.bin_ns
            self.process(pid).bin_end_ns = self.begin_ns + (bins + 1) * self.bin_ns
        thread = self.thread(tid)
        if thread is not None:
            thread.process = self.process(pid)

    def forget_ended(self, before_ns: i64) -> list[int]:
        """Let go of the processes that ended before a moment, and tell which these were.

        No row and no move may tell of them any more. Their numbers may be other processes' then.
        """
        gone = [
            int(process.pid)
            for process in self.processes.values()
            if process.ended and process.at_ns < before_ns
        ]
        if not gone:
            return gone
        for thread in self.threads:
            process = thread.process
            if process is not None and process.ended and process.at_ns < before_ns:
                thread.process = None
                thread.p = None
        for pid in gone:
            del self.processes[pid]
        self.last = None
        return gone

    def thread(self, tid: i64) -> Thread | None:
        """The thread of that number; None for one that can be no thread's."""
        if tid <= 0 or tid >= MAX_TID:
            return None
        place = self.tids.place(tid)
        if place < len(self.threads):
            return self.threads[place]
        made = Thread(tid)
        if self.only_pid >= 0:
            made.process = self.process(self.only_pid)
        self.threads.append(made)
        return made
