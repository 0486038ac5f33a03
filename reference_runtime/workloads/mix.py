"""Blocking calls of several kinds beside goroutines that want the CPU."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.goroutines import (
    BLOCK,
    RAW,
    Site,
    current_host,
    go,
    gosched,
    nanosleep,
    pread,
    read,
    sleep,
    spin,
    write,
)
from reference_runtime.latencies import Latencies
from reference_runtime.locks import Counter
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution
from tracer.errors import PretakeError

SHORT = Site("mix.short")
PIPE = Site("mix.pipe", BLOCK)
FILE = Site("mix.file")
SLEEP = Site("mix.nanosleep", BLOCK)
WAKE = Site("mix.wake", RAW)

FILE_BYTES = 1 << 20
PAGE = 4096


@dataclass(kw_only=True)
class Mix(Workload):
    """Short calls, file reads, pipe reads that block and nanosleeps, while others need the CPU.

    A round is one system call of one worker.
    """

    name: ClassVar[str] = "mix"
    not_zero = frozenset({"block_ns"})
    workers: int = 4
    cpu_goroutines: int = 2
    cpu_ns: int = 50_000
    """How long a CPU goroutine computes before it lets others run."""
    block_ns: int = 300_000
    """Mean length of a call that blocks."""

    def check(self, policy: str, procs: int) -> None:
        """With ``raw`` every worker may hold a P while its waker needs one."""
        if policy == "raw" and procs <= self.workers:
            raise PretakeError(
                f"mix under policy raw may wait for ever with {procs} Ps and "
                f"{self.workers} workers",
                f"give --procs {self.workers + 1}",
            )

    async def main(self) -> Result:
        """Run the workers to the end; the CPU goroutines are abandoned then."""
        host = current_host()
        self.calls_ns: dict[str, Latencies] = {
            kind: Latencies() for kind in ("short", "file", "pipe", "sleep")
        }
        self.stall_ns = Latencies()
        self.begin_ns = host.nanotime()
        self.done = Counter()
        for _ in range(self.cpu_goroutines):
            go(self.compute(), "cpu")
        with tempfile.TemporaryFile() as file:
            file.write(bytes(FILE_BYTES))
            file.flush()
            running = WaitGroup(self.workers)
            for worker in range(self.workers):
                go(self.work(worker, file.fileno(), running), f"worker {worker}")
            await running.wait()
        return {
            "rounds": self.done.value,
            "call_ns": {kind: distribution(times) for kind, times in self.calls_ns.items()},
            "stall_ns": distribution(self.stall_ns),
        }

    async def work(self, worker: int, file: int, running: WaitGroup) -> None:
        """One system call after another, of a kind that chance chooses."""
        host = current_host()
        chance = random.Random(f"{self.seed}/{worker}")
        ends = host.pipe()
        now_ns = host.nanotime()
        while self.begins(self.done, now_ns, self.begin_ns):
            kind = chance.choice(("short", "file", "pipe", "sleep"))
            length_ns = round(chance.expovariate(1 / self.block_ns)) + 1
            if kind == "pipe":
                go(wake(ends[1], length_ns), "waker")
            now_ns = host.nanotime()
            if kind == "short":
                await write(ends[1], b"", SHORT)
            elif kind == "file":
                await pread(file, PAGE, chance.randrange(FILE_BYTES // PAGE) * PAGE, FILE)
            elif kind == "pipe":
                await read(ends[0], 1, PIPE)
            else:
                await nanosleep(length_ns, SLEEP)
            end_ns = host.nanotime()
            self.calls_ns[kind].append(end_ns - now_ns)
            now_ns = end_ns
        for fd in ends:
            host.close_fd(fd)
        running.done()

    async def compute(self) -> None:
        """Use the CPU in slices, and note how long the next slice had to wait."""
        host = current_host()
        while True:
            await spin(self.cpu_ns)
            yielded_ns = host.nanotime()
            await gosched()
            self.stall_ns.append(host.nanotime() - yielded_ns)


async def wake(fd: int, after_ns: int) -> None:
    """End a pipe read."""
    await sleep(after_ns)
    await write(fd, b"x", WAKE)
