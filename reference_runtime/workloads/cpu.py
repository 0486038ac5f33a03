"""Programs about preemption: loops that end, starve or stop others.

There are three kinds of loop. ``checks`` calls functions all the time and can be stopped at each
entry. ``tight`` has no calls, so only a signal stops it. ``nosplit`` is tight and never at a safe
point, so nothing stops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.gmp import G
from reference_runtime.goroutines import current_host, endless_loop, getg, go, sleep, spin
from reference_runtime.latencies import Latencies
from reference_runtime.stopping import stopped_world, suspended
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution
from tracer.errors import PretakeError

KINDS = ("checks", "tight", "nosplit")
CHECK_NS = 10_000
"""How much a ``checks`` loop computes between two function entries."""


@dataclass(kw_only=True)
class Loops(Workload):
    """Base of the workloads here: so many loops of a kind, ended at a time limit at the latest."""

    kind: str = "tight"
    loops: int = 1
    limit_s: float = 5.0
    """Bounds loops that cannot be stopped; the result tells if it was needed."""

    def check(self, policy: str, procs: int) -> None:  # noqa: ARG002
        """Refuse other kinds."""
        if self.kind not in KINDS:
            raise PretakeError(
                f"no kind of loop is called {self.kind!r}", f"choose one of {', '.join(KINDS)}"
            )

    def limit_ns(self) -> int:
        """The time limit."""
        return round(self.limit_s * 1e9)

    def start_loops(self) -> None:
        """Start the loops; they are abandoned at the end."""
        self.limit_reached = False
        self.gs: list[G] = []
        for number in range(self.loops):
            go(self.loop(), f"{self.kind} {number}")

    async def loop(self) -> None:
        """Use the CPU."""
        self.gs.append(getg())
        if self.kind == "checks":
            while True:
                await spin(CHECK_NS)
        await endless_loop(self.kind == "nosplit")
        # Nothing but the time limit ends the loop and not the run.
        self.limit_reached = True

    def ended_by(self) -> str:
        """How the main goroutine came to run again."""
        return "time_limit" if self.limit_reached else "preemption"


@dataclass(kw_only=True)
class Endless(Loops):
    """An endless loop, beside a main goroutine that wants to end the program.

    With one P it ends only by asynchronous preemption, and with ``kind`` nosplit not even so.
    """

    name: ClassVar[str] = "endless"
    sleep_ns: int = 5_000_000
    limit_s: float = 1.0

    async def main(self) -> Result:
        """Start the loop, sleep, and return: ``late_ns`` is how much longer it was than asked."""
        host = current_host()
        self.start_loops()
        begin_ns = host.nanotime()
        await sleep(self.sleep_ns)
        late_ns = host.nanotime() - begin_ns - self.sleep_ns
        return {"rounds": 1, "ended_by": self.ended_by(), "late_ns": distribution([late_ns])}


@dataclass(kw_only=True)
class Cpu(Loops):
    """Loops of one kind beside a goroutine that sleeps; a round is one sleep."""

    name: ClassVar[str] = "cpu"
    sleep_ns: int = 1_000_000

    async def main(self) -> Result:
        """Sleep again and again: ``late_ns`` is how late each sleep ended."""
        host = current_host()
        self.start_loops()
        late_ns = Latencies()
        begin_ns = now_ns = host.nanotime()
        while not self.over(len(late_ns), now_ns, begin_ns):
            await sleep(self.sleep_ns)
            end_ns = host.nanotime()
            late_ns.append(end_ns - now_ns - self.sleep_ns)
            now_ns = end_ns
        return {
            "rounds": len(late_ns),
            "ended_by": self.ended_by(),
            "late_ns": distribution(late_ns),
        }


@dataclass(kw_only=True)
class Stw(Loops):
    """Stops the world, and each loop on its own, as a collector does; a round is one of both.

    ``stop_ns`` is the time to stop the world, ``suspend_ns`` to stop one goroutine.
    """

    name: ClassVar[str] = "stw"
    interval_ns: int = 2_000_000
    pause_ns: int = 20_000
    """How long the world stands."""

    def check(self, policy: str, procs: int) -> None:
        """With fewer Ps than it takes, nobody would run when the world is to be stopped."""
        super().check(policy, procs)
        if procs < 2:
            raise PretakeError("stw needs somebody to stop beside itself", "give --procs 2")

    async def main(self) -> Result:
        """Play the collector."""
        host = current_host()
        self.start_loops()
        stopped_ns = Latencies()
        begin_ns = now_ns = host.nanotime()
        while not self.over(len(stopped_ns), now_ns, begin_ns):
            await sleep(self.interval_ns)
            asked_ns = host.nanotime()
            async with stopped_world("gc"):
                stopped_ns.append(host.nanotime() - asked_ns)
                await spin(self.pause_ns)
            for g in self.gs:
                async with suspended(g):
                    pass
            now_ns = host.nanotime()
        return {
            "rounds": len(stopped_ns),
            "ended_by": self.ended_by(),
            "world_ns": distribution(stopped_ns),
        }
