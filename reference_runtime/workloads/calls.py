"""One kind of system call, short, long or both, beside goroutines that want the CPU."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.goroutines import (
    BLOCK,
    Site,
    current_host,
    go,
    gosched,
    nanosleep,
    spin,
    write,
)
from reference_runtime.latencies import Latencies
from reference_runtime.locks import Counter
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution
from tracer.errors import PretakeError

SHORT = Site("calls.short")
LONG = Site("calls.long", BLOCK)
ONE = Site("calls.one")

KINDS = {"short": 0.0, "bimodal": 0.1, "long": 1.0}


@dataclass(kw_only=True)
class Calls(Workload):
    """Short calls, long calls, or a mix of both, while other goroutines need the CPU.

    A round is one system call of one worker. ``kind`` is ``short``, ``long`` or ``bimodal``;
    ``long_share`` says it exactly.
    """

    name: ClassVar[str] = "calls"
    kind: str = "bimodal"
    long_share: float | None = None
    """The part of the calls that are long, 0 to 1."""
    workers: int = 4
    cpu_goroutines: int = 1
    cpu_ns: int = 20_000
    """How long a CPU goroutine computes before it lets others run."""
    think_ns: int = 5_000
    """How long a worker computes between two calls."""
    long_ns: int = 200_000
    one_site: bool = False
    """Short and long calls come from one place of the program, where nothing can tell them."""

    def check(self, policy: str, procs: int) -> None:  # noqa: ARG002
        """Refuse kinds that do not exist."""
        if self.kind not in KINDS:
            raise PretakeError(
                f"calls has no kind {self.kind!r}", f"choose one of {', '.join(KINDS)}"
            )
        if self.long_share is not None and not 0 <= self.long_share <= 1:
            raise PretakeError(f"{self.long_share} is no share", "give 0 to 1")

    async def main(self) -> Result:
        """Run the workers to the end; the CPU goroutines are abandoned then."""
        host = current_host()
        self.share = KINDS[self.kind] if self.long_share is None else self.long_share
        self.short_ns = Latencies()
        self.long_call_ns = Latencies()
        self.slices = Counter()
        self.done = Counter()
        self.begin_ns = host.nanotime()
        for _ in range(self.cpu_goroutines):
            go(self.compute(), "cpu")
        running = WaitGroup(self.workers)
        for worker in range(self.workers):
            go(self.work(worker, running), f"worker {worker}")
        await running.wait()
        return {
            "rounds": self.done.value,
            "short_ns": distribution(self.short_ns),
            "long_ns": distribution(self.long_call_ns),
            "cpu_slices": self.slices.value,
        }

    async def work(self, worker: int, running: WaitGroup) -> None:
        """One call after the other."""
        host = current_host()
        chance = random.Random(f"{self.seed}/{worker}")
        ends = host.pipe()
        now_ns = host.nanotime()
        while self.begins(self.done, now_ns, self.begin_ns):
            if self.think_ns:
                await spin(self.think_ns)
            if self.done.value % 16 == 0:
                await gosched()
            begin_ns = host.nanotime()
            if chance.random() < self.share:
                await nanosleep(self.long_ns, ONE if self.one_site else LONG)
                now_ns = host.nanotime()
                self.long_call_ns.append(now_ns - begin_ns)
            else:
                await write(ends[1], b"", ONE if self.one_site else SHORT)
                now_ns = host.nanotime()
                self.short_ns.append(now_ns - begin_ns)
        for fd in ends:
            host.close_fd(fd)
        running.done()

    async def compute(self) -> None:
        """Use the CPU in slices."""
        while True:
            await spin(self.cpu_ns)
            self.slices.add(1)
            await gosched()
