"""The data of calls, threads and Ps that is kept until an episode can be decided.

The loop that fills it in is :mod:`analysis.ptime.engine.episodes`, whose head explains what an
episode and a way are.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

from analysis.ptime.engine.rows import NEVER, Out
from analysis.ptime.engine.words import BY_EXITSYSCALL, BY_SYSCALL_BLOCK, RETAKE

__all__ = [
    "EPISODE",
    "RETURN_RACE_NS",
    "CallingThread",
    "FollowedP",
    "OpenEpisode",
    "ProcessPs",
    "Way",
    "give_out",
]

RETURN_RACE_NS: Final = 1_000_000
"""How long after a call's return P may still be taken for that call.

The kernel's exit of a call comes before the runtime's (exitsyscall): in between the thread may
wait for a CPU, or for CPython's GIL, and whoever retakes P then takes it from this call. It
counts only if the row names this thread, or this thread then finds its P gone (exit_slow). A
thread that has P in its next call after all, and finds it gone there, lost it in that one.
"""

EPISODE: Final = (
    *("serial", "pid", "p", "p_key", "end_ns", "end_told", "exit_ns", "ret", "blocks"),
    *("blocked_ns", "release_ns", "reason", "taker_tid", "taken_ns", "handoff_ns", "startm_ns"),
    *("acquirep_ns", "run_ns", "pidle_ns", "runner_tid", "exit_slow_ns", "next_ns", "gone"),
    *("given", "notice_ns", "m_wake_ns", "m_oncpu_ns", "wake_ns"),
)
"""Columns of :attr:`analysis.ptime.engine.episodes.Episodes.done`, null as -1. ``serial`` counts
episodes as they begin; ``given`` is 1 where P was handed off for the call; ``next_ns`` is the
first retake or handoff of P after the block; ``gone`` 1 where P was used by others before the
call's end."""

P_KEY_SPAN: Final = 1 << 24
"""Ps are numbered below this in each process (:mod:`analysis.ptime.tasks`)."""


@mypyc_attr(acyclic=True)
class Way:
    """What happened to a P from a release on."""

    def __init__(self, release_ns: i64, p: i64) -> None:
        self.release_ns: i64 = release_ns
        self.p: i64 = p
        """Its number, -1 where it is not known."""
        self.handoff_ns: i64 = -1
        self.startm_ns: i64 = -1
        self.acquirep_ns: i64 = -1
        self.run_ns: i64 = -1
        self.pidle_ns: i64 = -1
        self.cut_ns: i64 = -1
        self.runner: i64 = -1
        self.oncpu_ns: i64 = -1
        self.wake_ns: i64 = -1
        self.stop_ns: i64 = NEVER
        """Nothing later belongs to it."""

    def stop(self, ns: i64) -> None:
        """It is over at this moment, if it was not before."""
        if ns < self.stop_ns:
            self.stop_ns = ns


class ProcessPs:
    """The Ps of a process by number."""

    def __init__(self, pid: i64) -> None:
        self.pid: i64 = pid
        self.ps: list[FollowedP] = []

    def p(self, number: i64) -> FollowedP:
        """The P of that number."""
        while len(self.ps) <= number:
            self.ps.append(FollowedP())
        return self.ps[number]


class FollowedP:
    """Who waits for rows of a P."""

    def __init__(self) -> None:
        self.watching: list[OpenEpisode] = []
        self.passed: list[OpenEpisode] = []
        """Those that have ended and been cut: what is still open is the first release of P. A busy
        P has a hundred of them, and every block with P would look at each."""
        self.most_passed: i64 = 0
        """With more of them, those about which nothing can come are taken out."""
        self.ways: list[Way] = []

    def pass_by(self, e: OpenEpisode, ns: i64) -> None:
        """Put an episode among :attr:`passed`."""
        self.passed.append(e)
        if len(self.passed) > self.most_passed:
            self.passed = [other for other in self.passed if other.is_watching(ns)]
            self.most_passed = 2 * len(self.passed) + 64

    def take_passed(self, ns: i64, tid: i64) -> list[OpenEpisode]:
        """Take a thread's episodes out of :attr:`passed`; -1 for every thread's."""
        taken: list[OpenEpisode] = []
        stays: list[OpenEpisode] = []
        for e in self.passed:
            if not e.is_watching(ns):
                continue
            if tid < 0 or e.thread.tid == tid:
                taken.append(e)
            else:
                stays.append(e)
        self.passed = stays
        return taken


class CallingThread:
    """What is remembered of a thread."""

    def __init__(self, tid: i64, process: ProcessPs) -> None:
        self.tid: i64 = tid
        self.process: ProcessPs = process
        self.exit_ns: i64 = -1
        self.exit_enter_ns: i64 = -1
        self.exit_ret: i64 = -1
        self.exit_blocks: i64 = -1
        self.exit_blocked_ns: i64 = -1
        self.block_ns: i64 = -1
        self.taken_ns: i64 = -1
        """The last retake that names it as who lost P."""
        # The last calls that blocked: by their entry, and by the return before where that is not
        # told.
        self.call_enter_ns: i64 = -1
        self.call_since_ns: i64 = -2
        self.switch_ns: i64 = -1
        self.wake_ns: i64 = -1
        self.last: OpenEpisode | None = None
        self.returned: list[OpenEpisode] = []
        """Those that may still hear of an ``exit_slow``."""
        self.own: Way | None = None
        """Of the P that the thread handed off for a call."""
        self.unreturned: list[OpenEpisode] = []
        """Those since whose block the thread has not returned from any call."""


class OpenEpisode:
    """What was noted of an episode."""

    def __init__(self, serial: i64, thread: CallingThread, ns: i64, enter_ns: i64) -> None:
        self.serial: i64 = serial
        self.thread: CallingThread = thread
        self.pid: i64 = thread.process.pid
        self.block_ns: i64 = ns
        self.enter_ns: i64 = enter_ns
        self.number: i64 = -1
        self.p: FollowedP | None = None
        self.given: bool = False
        self.own: bool = False
        """P was handed off by a row that is known."""
        self.end_ns: i64 = -1
        self.end_told: i64 = -1
        self.waits: bool = True
        """The thread's first return from a call since the block may still come, and tell more."""
        self.exit_ns: i64 = -1
        self.ret: i64 = -1
        self.blocks: i64 = -1
        self.blocked_ns: i64 = -1
        self.wake_ns: i64 = -1
        self.is_later: bool = False
        """The retake after its return was from the thread's next call."""
        self.slow_ns: i64 = -1
        self.slows: vec[i64] = vec[i64]()
        """Every exit_slow of the thread while the end is not known."""
        self.next_ns: i64 = -1
        self.next_kind: i64 = -1
        self.next_reason: i64 = -1
        self.next_tid: i64 = -1
        self.next_target: i64 = -1
        self.notice_ns: i64 = -1
        self.way: Way | None = None
        self.cut_ns: i64 = -1
        self.used_ns: i64 = -1
        self.back_ns: i64 = -1
        self.back_tid: i64 = -1
        self.back_switch_ns: i64 = -1
        self.back_wake_ns: i64 = -1
        self.gone: i64 = -1
        # The release, as it was decided.
        self.release_ns: i64 = -1
        self.reason: i64 = -1
        self.taker: i64 = -1
        self.taken_ns: i64 = -1

    def is_watching(self, ns: i64) -> bool:
        """Whether a row of its P can still matter."""
        return self.end_ns < 0 or (self.next_ns < 0 and ns <= self.end_ns + RETURN_RACE_NS)

    def is_passed(self) -> bool:
        """Whether it has ended, and another thread has blocked with its P since."""
        return self.end_ns >= 0 and self.cut_ns >= 0

    def end(self, ns: i64, told: bool) -> None:
        """The call was over at this moment, at the latest."""
        self.end_ns = ns
        self.end_told = 1 if told else 0
        if self.wake_ns > ns:
            self.wake_ns = -1
        at: i64 = 0
        while at < len(self.slows):
            slow_ns = self.slows[at]
            if ns <= slow_ns <= ns + RETURN_RACE_NS:
                self.slow_ns = slow_ns
                break
            at += 1
        if self.slow_ns < 0:
            returned = self.thread.returned
            if len(returned) >= 32:
                del returned[:16]
            returned.append(self)

    def lost_later(self) -> None:
        """The thread blocks in its next call, in which P was taken: by the last retake of it."""
        if 0 <= self.end_ns < self.next_ns == self.thread.taken_ns and self.slow_ns < self.next_ns:
            self.is_later = True

    def settle(self, tells_run: bool) -> None:
        """Decide whose release it was."""
        way = self.way
        if self.own and way is not None:
            self.release_ns = way.release_ns
            self.reason, self.taker = BY_SYSCALL_BLOCK, self.thread.tid
            return
        ns, end_ns = self.next_ns, self.end_ns
        ours = (
            ns >= 0
            # A block of P in between says that somebody ran on it: then the call had kept it, or
            # lost it before. So does a handoff by the thread itself, which is not blocked then.
            and not 0 <= self.cut_ns < ns
            and self.next_tid != self.thread.tid
            and (
                end_ns < 0
                or ns <= end_ns
                or (
                    ns <= end_ns + RETURN_RACE_NS
                    and not self.is_later
                    and (self.next_target == self.thread.tid or self.slow_ns >= ns)
                )
            )
        )
        if ours:
            self.release_ns, self.reason, self.taker = ns, self.next_reason, self.next_tid
            if self.next_kind == RETAKE:
                self.taken_ns = ns
            return
        self.way = None
        self.notice_ns = -1
        if self.used_ns >= 0 and (end_ns < 0 or self.used_ns < end_ns):
            self.gone = 1
            if 0 <= self.back_ns <= self.used_ns:
                self.take_back(tells_run)

    def take_back(self, tells_run: bool) -> None:
        """A thread that returned from its own call took P."""
        ns = self.back_ns
        self.release_ns = self.taken_ns = ns
        self.reason, self.taker = BY_EXITSYSCALL, self.back_tid
        if self.back_switch_ns >= self.block_ns:
            self.notice_ns = self.back_switch_ns
        way = Way(ns, self.number)
        way.runner = self.back_tid
        way.acquirep_ns = ns
        if tells_run:
            way.run_ns = ns
        if self.back_switch_ns == ns:
            way.oncpu_ns = ns
        if self.back_wake_ns == ns:
            way.wake_ns = ns
        way.stop(ns)
        self.way = way


def give_out(out: Out, e: OpenEpisode, tells_run: bool) -> None:
    """Put a settled episode into columns of :data:`EPISODE`."""
    row = out.values
    row = append(row, e.serial)
    row = append(row, e.pid)
    row = append(row, e.number)
    row = append(row, e.pid * P_KEY_SPAN + e.number if e.number >= 0 else -1)
    row = append(row, e.end_ns)
    row = append(row, e.end_told)
    row = append(row, e.exit_ns)
    row = append(row, e.ret)
    row = append(row, e.blocks)
    row = append(row, e.blocked_ns)
    row = append(row, e.release_ns)
    row = append(row, e.reason)
    row = append(row, e.taker)
    row = append(row, e.taken_ns)
    way = e.way
    if way is None:
        at: i64 = 0
        while at < 6:
            row = append(row, -1)
            at += 1
    else:
        went_on_ns = way.run_ns if tells_run else way.acquirep_ns
        idle = way.pidle_ns >= 0 and (went_on_ns < 0 or way.pidle_ns < went_on_ns)
        row = append(row, way.handoff_ns)
        row = append(row, way.startm_ns)
        row = append(row, way.acquirep_ns)
        row = append(row, way.run_ns)
        row = append(row, way.pidle_ns)
        row = append(row, -1 if idle else way.runner)
        if idle:
            way.wake_ns = way.oncpu_ns = -1
    row = append(row, e.slow_ns)
    row = append(row, e.next_ns)
    row = append(row, e.gone)
    row = append(row, 1 if e.given else 0)
    row = append(row, e.notice_ns)
    row = append(row, -1 if way is None else way.wake_ns)
    row = append(row, -1 if way is None else way.oncpu_ns)
    row = append(row, e.wake_ns)
    out.values = row
