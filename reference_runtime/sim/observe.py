"""Episodes of a simulated run, by the same rules as the analysis of a trace finds them.

The simulated kernel tells each switch, and the machine stops before time passes. So what a tracer
has to catch with probes can be read here directly, without a probe. Definitions (``hold``,
``retake``, ``harm``) are those of ``docs/design.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from reference_runtime.current import get_current
from reference_runtime.gmp import G_SYSCALL, NO_G, NO_P, P_IDLE, M, P
from reference_runtime.processors import queues_hold_work
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import BLOCKED

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import Sched

UNKNOWN: Final = -1
"""A time that was not seen, or does not exist."""


class Episode:
    """One system call in which a thread blocked while it held a P, or gave it away before."""

    def __init__(self, m: M, p: P, raw: bool) -> None:
        self.tid: i64 = m.tid
        self.goid: i64 = m.curg.goid
        self.p: i64 = p.id
        self.raw: bool = raw
        """The runtime was not told of the call."""
        self.enter_ns: i64 = UNKNOWN if raw else m.enter_ns
        self.block_ns: i64 = UNKNOWN
        self.release_ns: i64 = UNKNOWN
        self.run_ns: i64 = UNKNOWN
        """When P ran a goroutine again; unknown if it went idle or was kept."""
        self.exit_ns: i64 = UNKNOWN
        self.harm_ns: i64 = 0
        self.m: M = m
        self.held: P = p

    def outcome(self) -> str:
        """``handed_off`` before the block, ``retaken`` after it, or ``kept``."""
        if self.release_ns == UNKNOWN:
            return "kept"
        return "handed_off" if self.release_ns <= self.block_ns else "retaken"

    def hold_ns(self) -> i64:
        """Block to release; to the call's exit if P was kept; 0 if handed off before."""
        end_ns = self.exit_ns if self.release_ns == UNKNOWN else self.release_ns
        return max(end_ns - self.block_ns, 0)

    def retake_ns(self) -> int | None:
        """Block to P running again; 0 if it ran before the block; None if it did not run."""
        if self.release_ns == UNKNOWN or self.run_ns == UNKNOWN:
            return None
        return int(max(self.run_ns - self.block_ns, 0))


class Observer:
    """Collects the episodes of one run on a machine; takes its ``on_step``.

    Args:
        machine: on which a runtime is about to run.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.episodes: list[Episode] = []
        """Those that are over, in the order of their ends."""
        self.unblocked: i64 = 0
        """Calls for which P was given away or taken and which did not block at all."""
        self.sched: Sched | None = None
        self.calls: dict[int, Episode] = {}
        """Calls that are under way, by tid."""
        self.waiting: dict[int, Episode] = {}
        """Episodes whose P has not run again, by P."""
        self.last_ns: i64 = 0
        self.harmful: bool = False
        """Since the last look, work waited that no other P or M could take."""
        machine.on_step = self.look
        machine.on_switch_out.append(self.switched_out)

    def look(self) -> None:
        """What has changed since the last look; time passes only after it."""
        if self.sched is None:
            m = get_current()
            if m is None:
                return
            self.sched = cast("M", m).sched
        sched = self.sched
        now_ns = self.machine.clock()
        if self.harmful and now_ns > self.last_ns:
            self.add_harm(now_ns)
        self.last_ns = now_ns
        if self.calls:
            for episode in list(self.calls.values()):
                self.follow(episode, now_ns)
        for m in sched.allm:
            if m.curg.status == G_SYSCALL and m.p is not NO_P and int(m.tid) not in self.calls:
                self.calls[int(m.tid)] = Episode(m, m.p, False)
        if self.waiting:
            for episode in list(self.waiting.values()):
                self.follow_p(episode, now_ns)
        self.harmful = sched.npidle == 0 and sched.nmspinning == 0 and queues_hold_work(sched)

    def add_harm(self, now_ns: i64) -> None:
        """Work has waited since the last look, for each P that a blocked thread held."""
        for episode in self.calls.values():
            if episode.block_ns != UNKNOWN and episode.release_ns == UNKNOWN:
                begin_ns = max(self.last_ns, episode.block_ns)
                episode.harm_ns += max(now_ns - begin_ns, 0)

    def follow(self, episode: Episode, now_ns: i64) -> None:
        """Whether the call's P has left, and whether the call is over."""
        m = episode.m
        if episode.release_ns == UNKNOWN and m.p is not episode.held:
            episode.release_ns = now_ns
            self.waiting[int(episode.p)] = episode
        if episode.raw:
            thread = self.machine.threads.get(int(episode.tid))
            over = thread is None or thread.state != BLOCKED
        else:
            over = (
                m.curg.status != G_SYSCALL
                or m.curg.goid != episode.goid
                or m.enter_ns != episode.enter_ns
            )
        if over:
            self.end(episode, now_ns)

    def end(self, episode: Episode, now_ns: i64) -> None:
        """The call has returned."""
        episode.exit_ns = now_ns
        del self.calls[int(episode.tid)]
        if episode.block_ns != UNKNOWN:
            self.episodes.append(episode)
        elif episode.release_ns != UNKNOWN:
            self.unblocked += 1
            if self.waiting.get(int(episode.p)) is episode:
                del self.waiting[int(episode.p)]

    def follow_p(self, episode: Episode, now_ns: i64) -> None:
        """Whether the P that left runs a goroutine again, or has gone idle."""
        p = episode.held
        m = p.m
        if m is not None:
            if m.curg is not NO_G and not p.changed_hands:
                episode.run_ns = now_ns
                del self.waiting[int(episode.p)]
        elif p.status == P_IDLE and p.lost_enter_ns == 0:
            del self.waiting[int(episode.p)]

    def switched_out(self, tid: int, time_ns: int, blocked: bool) -> None:
        """The kernel tells that a thread left its CPU."""
        if not blocked:
            return
        episode = self.calls.get(tid)
        if episode is None:
            sched = self.sched
            if sched is None:
                return
            for m in sched.allm:
                if m.tid == tid and m.curg is not NO_G and m.p is not NO_P:
                    episode = Episode(m, m.p, True)
                    self.calls[tid] = episode
        if episode is not None and episode.block_ns == UNKNOWN:
            episode.block_ns = time_ns
