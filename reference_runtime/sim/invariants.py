"""What must hold at every step of a simulated run, checked from outside the scheduler.

The checker stands on the machine's ``on_step``, so it looks whenever a thread is about to use
time or to wait. It knows the scheduler's data (``gmp.py``), and of its code only when an M is in a
system call.

Two kinds of rule:

- *always*: each object is in one place. The exception is the time in which a lock is held, because
  a thread is then changing what the lock guards.
- *at rest*: when every thread of the runtime waits in the kernel or computes for the program, no
  thread will correct anything. So nothing may be wrong: work beside an idle P is a lost wake-up,
  and not a late one. The rules are exact and need no timeout.

At the end of a run :meth:`Invariants.finish` checks once more: every block in a system call
ended in a retake, a handoff or the return of the call, and the runtime's own record has the same
retakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reference_runtime.current import get_current
from reference_runtime.gmp import (
    G_DEAD,
    G_PREEMPTED,
    G_RUNNABLE,
    G_RUNNING,
    G_SYSCALL,
    G_WAITING,
    NO_G,
    NO_P,
    P_GCSTOP,
    P_IDLE,
    P_RUNNING,
    P_SYSCALL,
    G,
    M,
    P,
)
from reference_runtime.processors import in_syscall
from reference_runtime.sim.locks import A_NOTE
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import A_LOCK, A_SLEEP, BLOCKED

if TYPE_CHECKING:
    from reference_runtime.gmp import Sched

__all__ = ["InvariantError", "Invariants"]


class InvariantError(AssertionError):
    """The scheduler did what it must never do."""


class Invariants:
    """Watches one run on a machine.

    Args:
        machine: whose steps; its ``on_step`` and ``on_switch_out`` are set.
        retake_within_ns: how long a blocked thread may keep its P while work waits that no idle
            P could take; -1 for a policy that never retakes.
        max_steps: so many steps are too many; 0 for no bound. An M that looks for work for ever
            takes hardly any virtual time with each.

    Example:
        >>> host = SimHost()
        >>> checker = Invariants(host.machine)
        >>> Runtime(policy="sysmon", host=host).run(main)
        >>> checker.finish()
    """

    def __init__(self, machine: Machine, retake_within_ns: int = -1, max_steps: int = 0) -> None:
        self.max_steps = max_steps
        self.machine = machine
        self.retake_within_ns = retake_within_ns
        self.sched: Sched | None = None
        self.steps = 0
        self.rests = 0
        """Steps at which the runtime was at rest."""
        self.held: dict[int, tuple[P, int]] = {}
        """By M: the P with which it is in a system call, and when the call began."""
        self.harmed_since: dict[int, int] = {}
        """By P: since when its thread has been blocked with work waiting for a P."""
        self.taken: list[tuple[int, int]] = []
        """(tid, P) of each P that left an M in a system call."""
        self.failure: InvariantError | None = None
        machine.on_step = self.check

    def check(self) -> None:
        """Look at everything; called by the machine.

        Raises:
            InvariantError: with the rule, the objects and the virtual time.
        """
        if self.failure is not None:
            return
        m = get_current()
        if m is not None:
            self.sched = cast("M", m).sched
        sched = self.sched
        if sched is None or sched.stopping:
            return
        self.steps += 1
        if 0 < self.max_steps < self.steps:
            self.failure = InvariantError(f"{self.steps} steps and no end")
            raise self.failure
        if any(thread.locks for thread in self.machine.threads.values()):
            return
        try:
            places = self.check_places(sched)
            self.check_ps(sched)
            self.follow_calls(sched)
            if self.at_rest(sched):
                self.rests += 1
                self.check_rest(sched, places)
        except InvariantError as failure:
            self.failure = failure
            raise

    def finish(self) -> None:
        """The run is over: every retake was seen from outside too, and no other loss of a P."""
        if self.failure is not None:
            raise self.failure
        sched = self.sched
        if sched is None:
            return
        recorded = sorted((retake.tid, retake.p) for retake in sched.record.retakes)
        seen = sorted(self.taken)
        # The last of each may lie on either side of the end of the run.
        if len(recorded) < len(seen) or len(recorded) > len(seen) + len(sched.allp):
            self.fail(f"{len(seen)} Ps were taken from system calls, {len(recorded)} recorded")

    # Always.

    def check_places(self, sched: Sched) -> dict[int, str]:
        """No G in two places; where each is."""
        places: dict[int, str] = {}
        for p in sched.allp:
            length = p.runqtail - p.runqhead
            if not 0 <= length <= p.capacity + p.has_next:
                self.fail(f"P{p.id}'s queue has {length} of {p.capacity}")
            self.check_queue(places, p.runq_first, int(length), f"P{p.id}'s queue")
        self.check_queue(places, sched.runq_first, int(sched.runqsize), "the global queue")
        running = 0
        for m in sched.allm:
            g = m.curg
            if g is NO_G:
                continue
            if g.goid in places:
                self.fail(f"G{g.goid} is on M{m.id} and on {places[g.goid]}")
            places[g.goid] = f"M{m.id}"
            if g.status == G_RUNNING:
                running += 1
                if m.p is NO_P:
                    self.fail(f"G{g.goid} runs on M{m.id}, which has no P")
        if sched.gcwaiting and not sched.stopwait and running > 1:
            self.fail(f"{running} Gs run while the world is stopped")
        if running > len(sched.allp):
            self.fail(f"{running} Gs run on {len(sched.allp)} Ps")
        return places

    def check_queue(
        self, places: dict[int, str], first: G | None, length: int, where: str
    ) -> None:
        """A queue holds as many as it says, each runnable and in no other queue."""
        count = 0
        g = first
        while g is not None:
            if g.status != G_RUNNABLE:
                self.fail(f"G{g.goid} is on {where} with status {g.status}")
            if int(g.goid) in places:
                self.fail(f"G{g.goid} is on {where} and on {places[int(g.goid)]}")
            places[int(g.goid)] = where
            count += 1
            g = g.schedlink
        if count != length:
            self.fail(f"{where} has {count}, and says {length}")

    def check_ps(self, sched: Sched) -> None:
        """An M at most one P, a P at most one M, an idle P on the list once and without work."""
        owners: dict[int, M] = {}
        for m in sched.allm:
            p = m.p
            if p is NO_P:
                continue
            if p.id in owners:
                self.fail(f"P{p.id} belongs to M{owners[p.id].id} and to M{m.id}")
            owners[p.id] = m
            if p.status not in (P_RUNNING, P_SYSCALL):
                self.fail(f"M{m.id} has P{p.id} with status {p.status}")
            if p.m is not m:
                self.fail(f"M{m.id} has P{p.id}, which does not know it")
            if p.has_next and not sched.runnext:
                self.fail(f"P{p.id} has a runnext")
            if not sched.rules.psyscall and p.status == P_SYSCALL:
                self.fail(f"P{p.id} has a status that Go 1.27 has not")
            if p.status == P_SYSCALL and m.curg.status not in (G_SYSCALL, G_RUNNING):
                self.fail(f"P{p.id} is in a system call that M{m.id} does not make")
        idle: set[int] = set()
        idle_p = sched.pidle
        while idle_p is not None:
            if idle_p.id in idle:
                self.fail(f"P{idle_p.id} is on the idle list twice")
            if idle_p.id in owners:
                self.fail(f"P{idle_p.id} is idle and belongs to M{owners[idle_p.id].id}")
            if idle_p.status != P_IDLE:
                self.fail(f"P{idle_p.id} is on the idle list with status {idle_p.status}")
            if idle_p.runqhead != idle_p.runqtail:
                self.fail(f"P{idle_p.id} is idle with work in its queue")
            idle.add(int(idle_p.id))
            idle_p = idle_p.link
        if len(idle) != sched.npidle:
            self.fail(f"{len(idle)} Ps are idle, and {sched.npidle} are counted")

    def follow_calls(self, sched: Sched) -> None:
        """Which M lost its P in a system call, and which keeps one that others wait for."""
        queued = sched.runqsize > 0 or any(p.runqhead != p.runqtail for p in sched.allp)
        now_ns = int(self.machine.clock())
        for m in sched.allm:
            before = self.held.get(int(m.id))
            p = m.p
            in_call = p is not NO_P and in_syscall(sched, p)
            if before is not None and (p is not before[0] or not in_call):
                if p is NO_P and m.curg.status == G_SYSCALL and m.enter_ns == before[1]:
                    self.taken.append((int(m.tid), int(before[0].id)))
                del self.held[int(m.id)]
            if in_call and m.curg.status == G_SYSCALL:
                self.held[int(m.id)] = (p, int(m.enter_ns))
            thread = self.machine.threads.get(int(m.tid))
            if (
                queued
                and sched.npidle == 0
                and in_call
                and thread is not None
                and thread.state == BLOCKED
            ):
                since = self.harmed_since.setdefault(int(p.id), now_ns)
                if 0 <= self.retake_within_ns < now_ns - since:
                    self.fail(f"P{p.id} was held by a blocked thread for {now_ns - since} ns")
            elif p is not NO_P:
                self.harmed_since.pop(int(p.id), None)

    # At rest.

    def at_rest(self, sched: Sched) -> bool:
        """Whether every thread waits in the kernel or computes for the program."""
        machine = self.machine
        for m in sched.allm:
            # A thief that leaves another P its runnext for a while looks on after that.
            if m.spinning and m.p is not NO_P and self.waits_for(m) == A_SLEEP:
                return False
        for thread in machine.threads.values():
            if thread.state == BLOCKED:
                if thread.waiting_for == A_LOCK:
                    return False
            elif not thread.in_program and thread is not machine.main:
                return False
        return True

    def waits_for(self, m: M) -> str:
        """What M's thread waits for; empty where it does not wait."""
        thread = self.machine.threads.get(int(m.tid))
        return thread.waiting_for if thread is not None and thread.state == BLOCKED else ""

    def check_rest(self, sched: Sched, places: dict[int, str]) -> None:
        """Nothing is left to be put right."""
        g = sched.allg
        while g is not None:
            self.check_resting_g(g, places)
            g = g.all_next
        queued = [where for where in places.values() if not where.startswith("M")]
        if queued and sched.npidle:
            self.fail(f"work waits on {queued[0]} while {sched.npidle} Ps are idle")
        if sched.nmspinning:
            self.fail(f"{sched.nmspinning} spinning Ms are counted and none is")
        owned = sum(m.p is not NO_P for m in sched.allm)
        stopped = sum(p.status == P_GCSTOP for p in sched.allp)
        if owned + sched.npidle + stopped != len(sched.allp):
            self.fail(f"of {len(sched.allp)} Ps {owned} are in use, {sched.npidle} are idle")
        if stopped and not sched.gcwaiting:
            self.fail(f"{stopped} Ps are stopped and the world is not")
        stopper = sched.stopper
        for m in sched.allm:
            stands = stopper is not None and m.slot and stopper.stopped(m.slot)
            # One that stops at this very step has not left its CPU: nobody could know of it.
            if stands and m.p is not NO_P and m.tid != self.machine.running.tid:
                self.fail(f"M{m.id} was stopped by a signal and keeps P{m.p.id}")
        for m in sched.allm:
            if m.p is not NO_P and m.curg is NO_G:
                self.fail(f"M{m.id} rests with P{m.p.id} and no goroutine")
            if m.nextp is not NO_P:
                self.fail(f"M{m.id} was given P{m.nextp.id} and did not wake")
        if owned and sched.monitor is not None:
            monitor = self.machine.threads.get(int(sched.monitor.tid))
            if monitor is not None and monitor.waiting_for == A_NOTE:
                self.fail("the monitor is at rest while a P is in use")
        if sched.npidle == len(sched.allp):
            if sched.poller is None and (sched.timers.count or sched.netpoll_waiters):
                self.fail("timers or descriptors are waited for by nobody")
            until_ns = sched.poll_until_ns
            if sched.timers.count:
                due_ns = min(when for when, _, timer in sched.timers.heap if timer.live)
                if until_ns < 0 or until_ns > due_ns:
                    self.fail(f"the poller waits until {until_ns}, a timer is due at {due_ns}")

    def check_resting_g(self, g: G, places: dict[int, str]) -> None:
        """A G is where its status says."""
        where = places.get(int(g.goid), "")
        if g.status == G_RUNNABLE and not where:
            self.fail(f"G{g.goid} is runnable and on no queue")
        if g.status in (G_RUNNING, G_SYSCALL) and not where.startswith("M"):
            self.fail(f"G{g.goid} has status {g.status} and is on no M")
        if g.status == G_PREEMPTED and (where or not g.suspended):
            self.fail(f"G{g.goid} stands still, suspended: {g.suspended}, on {where or 'nothing'}")
        if g.bound is not None and g.bound.curg is g:
            self.fail(f"G{g.goid} runs, and is bound to M{g.bound.id} as if it were stopped")
        if g.status == G_WAITING and g.token:
            self.fail(f"G{g.goid} waits, and was readied")
        if g.status == G_DEAD:
            self.fail(f"G{g.goid} is dead and listed")

    def fail(self, rule: str) -> None:
        """Raise."""
        raise InvariantError(f"at {self.machine.clock()} ns, step {self.steps}: {rule}")
