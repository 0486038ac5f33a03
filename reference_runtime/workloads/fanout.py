"""Work handed to many goroutines over channels, and their answers gathered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from reference_runtime.channels import Channel
from reference_runtime.goroutines import current_host, go, spin
from reference_runtime.latencies import Latencies
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution


@dataclass(kw_only=True)
class Fanout(Workload):
    """One goroutine gives a piece of work to each of many, and waits for all their answers.

    A round is one such fan-out; ``fan_out_ns`` is from the first piece to the last answer.
    """

    name: ClassVar[str] = "fanout"
    width: int = 32
    buffer: int = 0
    """Capacity of the channels."""
    work_ns: int = 0
    """CPU time that each piece takes."""

    async def main(self) -> Result:
        """Play the one that gives and gathers."""
        host = current_host()
        work = Channel(self.buffer)
        answers = Channel(self.buffer)
        for worker in range(self.width):
            go(self.serve(work, answers), f"worker {worker}")
        times_ns = Latencies()
        begin_ns = sent_ns = host.nanotime()
        while not self.over(len(times_ns), sent_ns, begin_ns):
            go(give(work, self.width), "giver")
            total = 0
            for _ in range(self.width):
                total += cast("int", await answers.recv())
            if total != self.width * (self.width - 1) // 2:
                raise RuntimeError(f"answers add up to {total}")
            now_ns = host.nanotime()
            times_ns.append(now_ns - sent_ns)
            sent_ns = now_ns
        work.close()
        return {"rounds": len(times_ns), "fan_out_ns": distribution(times_ns)}

    async def serve(self, work: Channel, answers: Channel) -> None:
        """Answer with what came."""
        async for piece in work:
            if self.work_ns:
                await spin(self.work_ns)
            await answers.send(piece)


async def give(work: Channel, width: int) -> None:
    """Hand out numbers."""
    for number in range(width):
        await work.send(number)
