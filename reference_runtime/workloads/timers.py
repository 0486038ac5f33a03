"""Many sleeping goroutines: how late each wakes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.goroutines import current_host, go, sleep
from reference_runtime.latencies import Latencies
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution


@dataclass(kw_only=True)
class Timers(Workload):
    """Goroutines that sleep again and again; a round is one sleep.

    ``late_ns`` is from the time that a goroutine asked for to the time at which it ran.
    """

    name: ClassVar[str] = "timers"
    not_zero = frozenset({"sleep_ns"})
    sleepers: int = 100
    sleep_ns: int = 1_000_000
    """Longest sleep; each is a random part of it."""

    async def main(self) -> Result:
        """Start the sleepers and wait for them."""
        self.late_ns = Latencies()
        self.begin_ns = current_host().nanotime()
        running = WaitGroup(self.sleepers)
        for sleeper in range(self.sleepers):
            go(self.doze(sleeper, running), f"sleeper {sleeper}")
        await running.wait()
        return {"rounds": len(self.late_ns), "late_ns": distribution(self.late_ns)}

    async def doze(self, sleeper: int, running: WaitGroup) -> None:
        """Sleep, and see how late it is."""
        host = current_host()
        chance = random.Random(f"{self.seed}/{sleeper}")
        now_ns = host.nanotime()
        while not self.over(len(self.late_ns), now_ns, self.begin_ns):
            length_ns = chance.randrange(1, self.sleep_ns)
            begin_ns = host.nanotime()
            await sleep(length_ns)
            now_ns = host.nanotime()
            self.late_ns.append(now_ns - begin_ns - length_ns)
        running.done()
