"""Random programs of goroutines, and how one is run under the checker.

A program is made from one list of steps in a global order. Each step is a goroutine's own (use
CPU, block in a call, sleep, yield …), or a message from one goroutine to another over a channel, a
pipe or a flag. Because both sides meet messages in the same order, no program can deadlock: if
one does, the scheduler has lost somebody.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st

from reference_runtime.gmp import G_RUNNING
from reference_runtime.sync import WaitGroup
from tests.unit.sim.packages import Package

OWN_STEPS = (
    *("spin", "block", "raw", "sleep", "yield", "nanosleep", "locked", "child", "block"),
    *("world", "suspend"),
)
MESSAGES = ("chan0", "chan1", "select", "pipe", "poll", "netpoll", "flag")
NS = (0, 2_000, 15_000, 80_000, 400_000, 3_000_000)
MAX_EVENTS = 60_000
MAX_STEPS = 100_000
"""An M that looks for work for ever is found out here, long before ``MAX_NS``."""
MAX_NS = 10_000_000_000
MONITOR_MIN_NS = 20_000
RETAKE_WITHIN_NS = 60_000_000
"""Twice the monitor's longest sleep, and slices of the CPU for others in between."""


@dataclass(frozen=True)
class Step:
    """``who`` does ``what``; a message goes to ``to``."""

    what: str
    who: int
    ns: int = 0
    to: int = -1


@dataclass(frozen=True)
class Setting:
    """The machine and the runtime."""

    policy: str
    procs: int
    cpus: int
    capacity: int
    seed: int
    chaos: dict[str, Any] = field(default_factory=dict)
    preempt: str = "async"
    slice_ns: int = 10_000_000
    like: str = "lean"


def steps(goroutines: int, messages: tuple[str, ...]) -> st.SearchStrategy[Step]:
    """One step of one of so many goroutines."""
    who = st.integers(0, goroutines - 1)
    own = st.builds(Step, st.sampled_from(OWN_STEPS), who, st.sampled_from(NS))
    message = st.builds(
        lambda what, who, by: Step(what, who, 0, (who + by) % goroutines),
        st.sampled_from(messages),
        who,
        st.integers(1, goroutines - 1),
    )
    return st.one_of(own, own, message)


def programs(policy: str) -> st.SearchStrategy[list[Step]]:
    """Programs that end under the policy.

    Raw, a read or poll of a pipe blocks with its P: if that was the last, the writer never runs.
    """
    messages = tuple(m for m in MESSAGES if policy != "raw" or m not in ("pipe", "poll"))
    return st.integers(2, 8).flatmap(
        lambda n: st.lists(steps(n, messages), min_size=20, max_size=60)
    )


CHAOS = (
    {},
    {"one_in": 4, "jitter": 40},
    {"one_in": 2, "away_ns": 300_000},
    {"one_in": 3, "jitter": 80, "anywhere": True},
)


def settings_of_run(policy: str, likes: tuple[str, ...] = ("lean",)) -> st.SearchStrategy[Setting]:
    """Small machines and runtimes."""
    return st.builds(
        Setting,
        policy=st.just(policy),
        procs=st.integers(1, 4),
        cpus=st.integers(1, 4),
        capacity=st.sampled_from((2, 4, 256)),
        seed=st.integers(0, 1_000),
        chaos=st.sampled_from(CHAOS),
        preempt=st.sampled_from(("async", "async", "cooperative", "off")),
        slice_ns=st.sampled_from((400_000, 10_000_000)),
        like=st.sampled_from(likes),
    )


def runs(
    policies: list[str], likes: tuple[str, ...] = ("lean",)
) -> st.SearchStrategy[tuple[list[Step], Setting]]:
    """A program and where it runs."""
    return st.sampled_from(policies).flatmap(
        lambda policy: st.tuples(programs(policy), settings_of_run(policy, likes))
    )


class Run:
    """One run of a program; what each goroutine did is in ``done``."""

    def __init__(
        self, package: Package, program: list[Step], setting: Setting, max_ns: int = MAX_NS
    ) -> None:
        self.package = package
        self.program = program
        self.setting = setting
        self.done: list[tuple[int, int]] = []
        """(goroutine, number of the step), in the order in which they were finished."""
        self.host = package.sim_host.SimHost(
            setting.cpus,
            seed=setting.seed,
            chaos=package.costs.Chaos(**setting.chaos),
            max_events=MAX_EVENTS,
            max_ns=max_ns,
        )
        self.host.machine.log = []
        self.checker = package.invariants.Invariants(
            self.host.machine,
            -1 if setting.policy == "raw" else RETAKE_WITHIN_NS,
            MAX_STEPS,
        )
        self.runtime = package.runtime.Runtime(
            setting.procs,
            setting.policy,
            host=self.host,
            queue_capacity=setting.capacity,
            preempt=setting.preempt,
            time_slice_ns=setting.slice_ns,
            like=setting.like,
        )

    def go(self) -> Run:
        """Run it under the checker; raises what is wrong."""
        self.runtime.run(self.main)
        self.checker.finish()
        if self.setting.policy == "sysmon" and not self.setting.chaos:
            # A call is retaken at its second sighting, so not before one sleep of the monitor.
            # (With chaos, the P may come back and be in the next call when it is taken, as in Go.)
            retakes = [r for r in self.runtime.record.retakes if r.reason == "sysmon"]
            ages = [retake.ts_ns - retake.enter_ns for retake in retakes]
            assert all(age >= MONITOR_MIN_NS for age in ages), ages
        wanted = []
        for number, step in enumerate(self.program):
            wanted.append((step.who, number))
            if step.to >= 0:
                wanted.append((step.to, number))
        assert sorted(self.done) == sorted(wanted)
        return self

    async def main(self) -> None:
        package = self.package
        self.mutex = package.sync.Mutex()
        self.children = package.sync.WaitGroup()
        self.pipes = {
            number: self.host.pipe()
            for number, step in enumerate(self.program)
            if step.what in ("pipe", "poll", "netpoll")
        }
        for step in self.pipes:
            if self.program[step].what != "pipe":
                self.host.set_blocking(self.pipes[step][0], False)
        self.channels = {
            number: package.channels.Channel(1 if step.what == "chan1" else 0)
            for number, step in enumerate(self.program)
        }
        self.flags: set[int] = set()
        self.gs: list[Any] = []
        count = 1 + max(max(step.who, step.to) for step in self.program)
        finished = package.sync.WaitGroup(count)
        for who in range(count):
            package.goroutines.go(self.goroutine(who, finished), f"script {who}")
        await finished.wait()
        await self.children.wait()

    async def goroutine(self, who: int, finished: WaitGroup) -> None:
        self.gs.append(self.package.goroutines.getg())
        for number, step in enumerate(self.program):
            if step.who == who:
                await (self.send(number, step) if step.to >= 0 else self.own(number, step))
                self.done.append((who, number))
            elif step.to == who:
                await self.receive(number, step)
                self.done.append((who, number))
        finished.done()

    async def own(self, number: int, step: Step) -> None:
        g = self.package.goroutines
        if step.what == "spin":
            await g.spin(step.ns)
        elif step.what in ("block", "raw"):
            site = g.Site(f"step {number}", g.RAW if step.what == "raw" else g.NORMAL)
            await g.syscall(site, self.host.call, (step.ns // 8, step.ns or -1))
        elif step.what == "sleep":
            await g.sleep(step.ns)
        elif step.what == "nanosleep":
            await g.nanosleep(step.ns)
        elif step.what == "locked":
            await self.mutex.lock()
            await g.spin(step.ns)
            self.mutex.unlock()
        elif step.what == "world":
            async with self.package.stopping.stopped_world():
                await g.spin(step.ns)
        elif step.what == "suspend":
            other = self.gs[(step.who + 1) % len(self.gs)]
            if other is not g.getg():
                async with self.package.stopping.suspended(other) as still:
                    await g.spin(step.ns)
                    ms = g.getm().sched.allm
                    runs = other.status == G_RUNNING and any(m.curg is other for m in ms)
                    assert not (still and runs), "it runs, and is suspended"
        elif step.what == "child":
            self.children.add(1)
            g.go(self.child(step.ns), f"child of step {number}")
        else:
            await g.gosched()

    async def child(self, ns: int) -> None:
        await self.package.goroutines.spin(ns)
        self.children.done()

    async def send(self, number: int, step: Step) -> None:
        g = self.package.goroutines
        if step.what == "flag":
            self.flags.add(number)
        elif number in self.pipes:
            await g.write(self.pipes[number][1], b"x")
        else:
            await self.channels[number].send(number)

    async def receive(self, number: int, step: Step) -> None:
        g = self.package.goroutines
        if step.what == "flag":
            while number not in self.flags:
                await g.spin(20_000)
                await g.gosched()
        elif step.what == "pipe":
            assert await g.read(self.pipes[number][0], 1) == b"x"
        elif step.what == "poll":
            fd = self.pipes[number][0]
            data = g.try_read(fd, 1)
            while data is None:
                await g.poll(fd, timeout_ns=500_000)
                data = g.try_read(fd, 1)
            assert data == b"x"
        elif step.what == "netpoll":
            fd = self.pipes[number][0]
            data = g.try_read(fd, 1)
            if data is None:
                await g.wait_readable(fd)
                data = g.try_read(fd, 1)
            assert data == b"x"
        elif step.what == "select":
            channels = self.package.channels
            never = channels.Channel(0)
            cases = [channels.recv_case(never), channels.recv_case(self.channels[number])]
            assert await channels.select(cases) == (1, number, True)
        else:
            assert await self.channels[number].recv() == number


def deadlocks(package: Package, setting: Setting, count: int) -> None:
    """So many goroutines that wait for ever: the run must end and tell all of them."""
    run = Run(package, [Step("yield", 0)], setting)
    channel = package.channels.Channel(0)

    async def main() -> None:
        for _ in range(count):
            package.goroutines.go(receive(), "receiver")
        await package.sync.WaitGroup(1).wait()

    async def receive() -> None:
        await package.goroutines.spin(10_000)
        await channel.recv()

    with pytest.raises(package.deadlock.Deadlock) as told:
        run.runtime.run(main)
    assert str(told.value).count("chan receive") == count
    assert str(told.value).count("wait group") == 1
    run.checker.finish()


def starves_nobody(package: Package, setting: Setting, max_ns: int = 5_000_000) -> None:
    """Two goroutines that only ready each other, until a third comes out of a call and ends it.

    With a CPU for each thread, so that it is the runtime that would keep the third waiting.
    """
    run = Run(package, [Step("yield", 0)], replace(setting, cpus=8, chaos={}), max_ns=max_ns)
    there = package.channels.Channel(0)
    back = package.channels.Channel(0)
    ended: list[int] = []

    async def main() -> None:
        package.goroutines.go(caller(), "caller")
        package.goroutines.go(echo(), "echo")
        while not ended:
            await there.send(0)
            await back.recv()
        there.close()

    async def caller() -> None:
        await package.goroutines.nanosleep(100_000)
        ended.append(1)

    async def echo() -> None:
        async for value in there:
            await back.send(value)

    run.runtime.run(main)
    run.checker.finish()
