"""A small runtime that knows the state of each P at each instant, and the trace it would leave.

Steps are drawn at random; each does something that threads and Ps may do, writes the rows that a
capture would have, and notes what every P is in from then on. It shares no code with the analysis.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.unit.analysis.scene import Scene
from tracer.trace.reader import Trace

PID = 7
MONITOR = 99
US = 1_000
GOING = ("syscall", "fault", "no_cpu", "stopped", "transit", "stw")


@dataclass
class Thread:
    tid: int
    p: int | None = None
    on_cpu: bool = True
    in_call: float | None = None
    why: str = ""
    lost_p: bool = False
    parked: bool = False


@dataclass
class Model:
    """``procs`` Ps, ``procs`` + 2 threads, one monitor.

    Attributes:
        truth: (time, P, state): from this moment on P is in that state.
        waits: (time, goroutines that wait) likewise.
    """

    procs: int
    random: Random
    losses: bool = False
    scene: Scene = field(default_factory=Scene)
    truth: list[tuple[int, int, str]] = field(default_factory=list)
    waits: list[tuple[int, int]] = field(default_factory=list)
    now: int = 10

    def __post_init__(self) -> None:
        self.threads = [Thread(tid) for tid in range(11, 13 + self.procs)]
        self.owner: dict[int, Thread | None] = dict.fromkeys(range(self.procs))
        self.state: dict[int, str] = {}
        self.first_told: dict[int, int] = {}
        self.queued = 0
        for tid in (*(thread.tid for thread in self.threads), MONITOR):
            self.scene.task(tid, PID)
        for thread in self.threads:
            self.scene.switch(self.now, 0, thread.tid)
        self.now += 1
        for p in range(self.procs):
            self.scene.runtime(self.now, "pidle", MONITOR, p)
            self.note(p, "idle")
        self.look()

    # What may happen.

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now += self.random.randint(1, 50)
            thread = self.random.choice(self.threads)
            choices = [
                name
                for name in dir(self)
                if name.startswith("may_") and self.allowed(name, thread)
            ]
            if choices:
                getattr(self, self.random.choice(sorted(choices)))(thread)
            if self.random.random() < 0.3:
                self.look()
        self.now += 10
        self.look()

    def allowed(self, name: str, thread: Thread) -> bool:
        on = thread.on_cpu and not thread.parked
        user = on and thread.in_call is None
        rules = {
            "may_start": user and thread.p is None and bool(self.idle()),
            "may_park": user and thread.p is not None,
            "may_block": user and thread.p is not None,
            "may_fault": user and thread.p is not None,
            "may_be_preempted": on,
            "may_be_stopped": on and thread.in_call is None,
            "may_come_on_cpu": not thread.on_cpu and not thread.parked,
            "may_return": on and thread.in_call is not None,
            "may_be_retaken": thread.in_call is not None and thread.p is not None,
        }
        return rules[name]

    def idle(self) -> list[int]:
        return [p for p, state in self.state.items() if state == "idle"]

    def may_start(self, thread: Thread) -> None:
        p = self.random.choice(self.idle())
        self.scene.runtime(self.now, "acquirep", thread.tid, p)
        self.scene.runtime(self.now, "run", thread.tid, p)
        self.give(p, thread)
        self.note(p, "running")

    def may_park(self, thread: Thread) -> None:
        p = self.leave(thread)
        self.scene.runtime(self.now, "pidle", thread.tid, p)
        self.note(p, "idle")

    def may_block(self, thread: Thread) -> None:
        thread.in_call = self.now - 1
        thread.why = "blocked"
        self.scene.block(self.now, thread.tid, self.now - 1, thread.p)
        self.off(thread, "blocked", "syscall")

    def may_fault(self, thread: Thread) -> None:
        thread.why = "blocked"
        self.scene.block(self.now, thread.tid, None, thread.p, why="fault", nr=None, p_use=None)
        self.off(thread, "blocked", "fault")

    def may_be_preempted(self, thread: Thread) -> None:
        thread.why = ""
        self.off(thread, "preempted", "no_cpu")

    def may_be_stopped(self, thread: Thread) -> None:
        thread.why = "stopped"
        self.off(thread, "stopped", "stopped")

    def may_come_on_cpu(self, thread: Thread) -> None:
        if thread.why:
            self.scene.wakeup(self.now, thread.tid)
            self.of(thread, "no_cpu")
            self.now += self.random.randint(1, 30)
        self.scene.switch(self.now, 0, thread.tid)
        thread.on_cpu, thread.why = True, ""
        self.of(thread, "running")

    def may_return(self, thread: Thread) -> None:
        self.scene.exit(self.now, thread.tid, thread.in_call)
        thread.in_call = None
        if thread.lost_p:
            self.now += 1
            self.scene.runtime(self.now, "exit_slow", thread.tid)
            thread.lost_p = False

    def may_be_retaken(self, thread: Thread) -> None:
        p = self.leave(thread)
        thread.lost_p = True
        self.scene.runtime(self.now, "retake", MONITOR, p, reason="sysmon", target_tid=thread.tid)
        self.note(p, "transit")
        self.now += self.random.randint(1, 20)
        takers = [t for t in self.threads if t.on_cpu and t.p is None and t.in_call is None]
        if takers and self.random.random() < 0.7:
            taker = self.random.choice(takers)
            self.scene.runtime(self.now, "startm", MONITOR, p)
            self.now += self.random.randint(1, 20)
            self.scene.runtime(self.now, "acquirep", taker.tid, p)
            self.now += self.random.randint(1, 20)
            self.scene.runtime(self.now, "run", taker.tid, p)
            self.give(p, taker)
            self.note(p, "running")
        else:
            self.scene.runtime(self.now, "pidle", MONITOR, p)
            self.note(p, "idle")

    # What is noted.

    def give(self, p: int, thread: Thread) -> None:
        thread.p, self.owner[p] = p, thread

    def leave(self, thread: Thread) -> int:
        p = thread.p
        assert p is not None
        thread.p, self.owner[p] = None, None
        return p

    def off(self, thread: Thread, why: str, state: str) -> None:
        thread.on_cpu = False
        self.scene.switch(self.now, thread.tid, 0, why)
        self.of(thread, state)

    def of(self, thread: Thread, state: str) -> None:
        if thread.p is not None:
            self.note(thread.p, state)

    def note(self, p: int, state: str) -> None:
        self.state[p] = state
        self.truth.append((self.now, p, state))

    def look(self) -> None:
        """Some wait from a moment since the last look on, and here it is read."""
        before = self.waits[-1][0] if self.waits else self.now - 1
        if self.now <= before + 1:
            return
        queued = self.random.randint(0, 2 * self.procs)
        self.waits.append((self.random.randint(before + 1, self.now - 1), queued))
        self.scene._add(
            "waiting",
            self.now,
            oldest_ns=self.now * US,
            tid=MONITOR,
            pid=PID,
            runq=queued,
            runq_least=queued,
            global_runq=0,
            timers_due=0,
            npidle=len(self.idle()),
            nmspinning=0,
            gomaxprocs=self.procs,
            unseen=0,
            gcwaiting=0,
        )

    # What it comes to.

    def write(self, folder: Path, name: str) -> Trace:
        self.scene.manifest["end_ns"] = self.now * US
        return self.scene.write(folder, name)

    def sums(self) -> tuple[dict[str, int], dict[str, float], float, dict[tuple[str, str], int]]:
        """Time by state, lost P time by state, goroutine wait, and stall time by kind and cause,
        by looking at every span."""
        stalls: defaultdict[tuple[str, str], int] = defaultdict(int)
        states: defaultdict[str, int] = defaultdict(int)
        lost: defaultdict[str, float] = defaultdict(float)
        wait = 0.0
        times = sorted({at for at, *_ in self.truth} | {at for at, _ in self.waits} | {self.now})
        at_p: dict[int, str] = {}
        changes, waits = list(self.truth), list(self.waits)
        queued = 0
        for begin, end in zip([0, *times], times, strict=False):
            while changes and changes[0][0] <= begin:
                _, p, state = changes.pop(0)
                at_p[p] = state
            while waits and waits[0][0] <= begin:
                queued = waits.pop(0)[1]
            ns = (end - begin) * US
            for p in range(self.procs):
                states[at_p.get(p, "unknown")] += ns
            going = [state for state in at_p.values() if state in GOING]
            idle = sum(state == "idle" for state in at_p.values())
            here = min(len(going), max(0, queued - idle))
            for state in going:
                lost[state] += ns * here / len(going)
            for cause in {"any", *going} if here else ():
                stalls["some", cause] += ns
                if "running" not in at_p.values():
                    stalls["full", cause] += ns
            wait += queued * ns
        return dict(states), dict(lost), wait, dict(stalls)
