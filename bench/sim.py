"""How many scheduling events a second the simulated host gets through.

A scheduling event is a decision: a goroutine is put on a P, or a thread is put on a CPU, leaves
it, or is woken. (Ends of payments and timers that found nothing to do are not counted.)

    python -m bench.sim
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from reference_runtime import goroutines
from reference_runtime.channels import Channel
from reference_runtime.runtime import Runtime
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.sync import WaitGroup

WANTED_PER_S = 300_000


@dataclass(frozen=True)
class Case:
    """One program on one simulated machine."""

    name: str
    goroutines: int
    rounds: int
    procs: int
    cpus: int
    policy: str


CASES = (
    Case("calls", 20, 4_000, 2, 2, "sysmon"),
    Case("calls", 20, 4_000, 2, 2, "block"),
    Case("calls", 200, 400, 64, 128, "sysmon"),
    Case("calls", 200, 400, 64, 128, "block"),
    Case("channel", 100, 2_000, 4, 4, "sysmon"),
    Case("gosched", 100, 5_000, 4, 4, "sysmon"),
)


async def calls(rounds: int, finished: WaitGroup, _: Channel, __: Channel) -> None:
    for _round in range(rounds):
        await goroutines.nanosleep(50_000)
        await goroutines.spin(2_000)
    finished.done()


async def ping(rounds: int, finished: WaitGroup, there: Channel, back: Channel) -> None:
    for _ in range(rounds):
        await there.send(0)
        await back.recv()
    finished.done()


async def pong(rounds: int, finished: WaitGroup, there: Channel, back: Channel) -> None:
    for _ in range(rounds):
        await there.recv()
        await back.send(0)
    finished.done()


async def gosched(rounds: int, finished: WaitGroup, _: Channel, __: Channel) -> None:
    for _round in range(rounds):
        await goroutines.gosched()
    finished.done()


PAIRS = {"calls": (calls, calls), "channel": (ping, pong), "gosched": (gosched, gosched)}


async def main(case: Case) -> int:
    """Run the case's goroutines; how many turns its Ps gave."""
    finished = WaitGroup(case.goroutines)
    for _ in range(case.goroutines // 2):
        there, back = Channel(), Channel()
        for body in PAIRS[case.name]:
            goroutines.go(body(case.rounds, finished, there, back))
    await finished.wait()
    allp = goroutines.getm().sched.allp
    return sum(int(p.schedtick) for p in allp)


def events_per_s(case: Case) -> float:
    """Scheduling events a second of this process's CPU time: it has one thread."""
    host = SimHost(case.cpus)
    runtime = Runtime(case.procs, case.policy, host=host)
    begin = time.process_time()
    turns = runtime.run(main, case)
    seconds = time.process_time() - begin
    assert isinstance(turns, int)
    return (turns + int(host.machine.scheduled)) / seconds


def measure() -> dict[str, float]:
    """Events a second by case; ``sim_events_per_s`` is the slowest of them."""
    rates = {
        f"{case.name}, {case.policy}, {case.procs} Ps on {case.cpus} CPUs": events_per_s(case)
        for case in CASES
    }
    return {**rates, "sim_events_per_s": min(rates.values())}


if __name__ == "__main__":
    for name, rate in measure().items():
        print(f"{name:40} {rate:12,.0f}/s  {rate / WANTED_PER_S:5.2f} of what is wanted")
