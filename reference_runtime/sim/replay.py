"""Replay a captured run from its times, under any policy on any simulated machine.

A script is what one goroutine did in a captured run, for example: 50 µs of CPU, a call that
blocked for 3 ms, a wait for another goroutine. The replay runs the same scripts under another
policy, with other numbers of Ps or CPUs, or with another cost of a system call. Block times and
CPU times stay as captured. Everything else (who waits for a P, who is woken, what that costs) is
decided by the scheduler.

Example:
    >>> scripts = [Script([Call("read", 3_000_000), Cpu(50_000)]), Script([Cpu(2_000_000)])]
    >>> replay(scripts, "block", procs=1).handoffs
    1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reference_runtime import goroutines
from reference_runtime.channels import Channel, ChannelClosed
from reference_runtime.policies import make_policy
from reference_runtime.policies.base import NORMAL, Site
from reference_runtime.runtime import DEFAULT_QUEUE_CAPACITY, Runtime
from reference_runtime.sim.costs import Costs
from reference_runtime.sim.cpus import BEGIN_NS
from reference_runtime.sim.files import Event
from reference_runtime.sim.observe import Episode, Observer
from reference_runtime.sim.oracle import OraclePolicy, oracle_site
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.sync import WaitGroup
from reference_runtime.transitions import ACQUIREP
from tracer.errors import PretakeError

__all__ = ["Call", "Cpu", "Fire", "Replayed", "Script", "Sleep", "Step", "Wait", "Yield", "replay"]


@dataclass(frozen=True, slots=True)
class Cpu:
    """Use a CPU for ``ns``."""

    ns: int


@dataclass(frozen=True, slots=True)
class Call:
    """A system call at ``site`` (its system call, or call site) that blocks for ``block_ns``.

    Args:
        site: where calls of one kind are known by; policies that learn do so by site.
        block_ns: how long it blocks; None if it does not.
        cpu_ns: CPU time that the kernel uses for it, besides the machine's price of any call.
        until: an event: it blocks until that has happened, and not at all if it has already;
            ``block_ns`` is not looked at, and the oracle holds such a call for a blocking one.
        after_ns: CPU time that it uses after it was woken, up to where the runtime is told.
    """

    site: str
    block_ns: int | None
    cpu_ns: int = 0
    until: int | None = None
    after_ns: int = 0


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for ``ns`` without a thread (a timer)."""

    ns: int


@dataclass(frozen=True, slots=True)
class Yield:
    """Let others run first (``gosched``)."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait without a thread until the event has happened."""

    event: int


@dataclass(frozen=True, slots=True)
class Fire:
    """The event happens now, once and for all: whoever waits goes on."""

    event: int


Step = Cpu | Call | Sleep | Yield | Wait | Fire


@dataclass(frozen=True, slots=True)
class Script:
    """One goroutine.

    Args:
        steps: what it does, in order.
        start_ns: when it begins.
        name: what reports call it.
    """

    steps: Sequence[Step]
    start_ns: int = 0
    name: str = "goroutine"


@dataclass
class Replayed:
    """What came out; times in ns of virtual time."""

    policy: str
    procs: int
    cpus: int
    syscall_scale: float
    elapsed_ns: int
    """From the beginning to the end of the last script."""
    calls: int
    """System calls made."""
    episodes: list[Episode] = field(repr=False)
    """Blocked calls that had a P (:class:`~reference_runtime.sim.observe.Episode`)."""
    unblocked: int
    """Calls whose P was given away or taken, and which did not block."""
    counters: dict[str, int]
    """The runtime's own counters, see :meth:`reference_runtime.record.Record.counters`."""

    @property
    def retake_ns(self) -> list[int]:
        """P-retake latencies (block to P running again), of those episodes that have one."""
        return [ns for ns in (episode.retake_ns() for episode in self.episodes) if ns is not None]

    @property
    def hold_ns(self) -> list[int]:
        """Hold of each episode."""
        return [int(episode.hold_ns()) for episode in self.episodes]

    @property
    def harm_ns(self) -> int:
        """All harm together."""
        return sum(int(episode.harm_ns) for episode in self.episodes)

    @property
    def handoffs(self) -> int:
        """Ps given away before a call."""
        return self.counters["handoffs"]

    @property
    def needless(self) -> int:
        """Retakes and handoffs for calls that returned sooner than they paid for."""
        return self.counters["needless"]

    @property
    def calls_per_s(self) -> float:
        """Throughput, by virtual time."""
        return self.calls * 1e9 / self.elapsed_ns if self.elapsed_ns else 0.0


def replay(
    scripts: Sequence[Script],
    policy: str,
    *,
    procs: int,
    cpus: int = 2,
    costs: Costs | None = None,
    seed: int = 0,
    queue_capacity: int = DEFAULT_QUEUE_CAPACITY,
    max_ns: int = 0,
) -> Replayed:
    """Run scripts under a policy on a simulated machine.

    Args:
        scripts: the goroutines.
        policy: name of a retake policy, or ``oracle``: the one that knows each call's future.
        procs: number of Ps.
        cpus: number of virtual CPUs.
        costs: prices of the machine; ``Costs().scaled(2.5)`` for dearer system calls.
        seed: of all chance.
        queue_capacity: of each P's queue.
        max_ns: bound on its virtual time; 0 for none. Goroutines that wait for each other in calls
            that keep every P never end, while the monitor goes on looking.

    Raises:
        PretakeError: no such policy, a bad count, or a wait for an event that nobody fires.
        LivelockError: no end within ``max_ns``.
    """
    _check(scripts, cpus)
    host = SimHost(cpus, costs, seed, max_ns=max_ns)
    observer = Observer(host.machine)
    oracle = policy == OraclePolicy.name
    runtime = Runtime(
        procs,
        OraclePolicy() if oracle else make_policy(policy),
        host=host,
        queue_capacity=queue_capacity,
    )
    player = _Player(scripts, host, oracle, observer)
    runtime.run(player.main)
    return Replayed(
        policy=policy,
        procs=procs,
        cpus=cpus,
        syscall_scale=host.costs.syscall_scale,
        elapsed_ns=player.end_ns - BEGIN_NS,
        calls=player.calls,
        episodes=observer.episodes,
        unblocked=int(observer.unblocked),
        counters=runtime.record.counters(),
    )


def _check(scripts: Sequence[Script], cpus: int) -> None:
    if cpus < 1:
        raise PretakeError(f"{cpus} is no number of CPUs", "give 1 or more (--cpus)")
    fired: set[int] = set()
    waited: set[int] = set()
    for script in scripts:
        for step in script.steps:
            if isinstance(step, Fire):
                fired.add(step.event)
            elif isinstance(step, Wait):
                waited.add(step.event)
            elif isinstance(step, Call) and step.until is not None:
                waited.add(step.until)
    if waited - fired:
        raise PretakeError(
            f"a script waits for event {min(waited - fired)}, which no script fires",
            "leave the wait out, or fire it at the time it happened",
        )


class _Player:
    """The goroutines of one replay."""

    def __init__(
        self, scripts: Sequence[Script], host: SimHost, oracle: bool, observer: Observer
    ) -> None:
        self.scripts = scripts
        self.host = host
        self.oracle = oracle
        self.observer = observer
        self.sites: dict[str, Site] = {}
        self.events: dict[int, tuple[Event, Channel]] = {}
        self.calls = 0
        self.end_ns = BEGIN_NS

    async def main(self) -> None:
        sched = goroutines.getm().sched
        sched.toll = self.pass_transition
        sched.tolled = 1
        finished = WaitGroup(len(self.scripts))
        for script in self.scripts:
            goroutines.go(self.play(script, finished), script.name)
        await finished.wait()

    def pass_transition(self, kind: int) -> None:
        """A transition, which a tracer sees before its probe has taken its time."""
        self.observer.look()
        costs = self.host.costs
        self.host.machine.owe(costs.probe_ns + (costs.find_ns if kind == ACQUIREP else 0))

    async def play(self, script: Script, finished: WaitGroup) -> None:
        host = self.host
        early_ns = BEGIN_NS + script.start_ns - host.nanotime()
        if early_ns > 0:
            await goroutines.sleep(early_ns)
        for step in script.steps:
            if isinstance(step, Cpu):
                await goroutines.spin(step.ns)
            elif isinstance(step, Call):
                await self.call(step)
            elif isinstance(step, Sleep):
                await goroutines.sleep(step.ns)
            elif isinstance(step, Yield):
                await goroutines.gosched()
            elif isinstance(step, Wait):
                await self.wait(step.event)
            else:
                kernel, channel = self.event(step.event)
                if not kernel.happened:
                    host.fire(kernel)
                    channel.close()
        self.end_ns = max(self.end_ns, host.nanotime())
        finished.done()

    async def call(self, call: Call) -> None:
        self.calls += 1
        if call.until is not None:
            kernel, _ = self.event(call.until)
            site = self.site(call.site, None if kernel.happened else 1 << 62)
            times = (call.cpu_ns, kernel, call.after_ns)
            await goroutines.syscall(site, self.host.call_until, times)
            return
        block_ns = -1 if call.block_ns is None else call.block_ns
        site = self.site(call.site, call.block_ns)
        await goroutines.syscall(site, self.host.call, (call.cpu_ns, block_ns, call.after_ns))

    async def wait(self, number: int) -> None:
        kernel, channel = self.event(number)
        if not kernel.happened:
            try:
                await channel.recv()
            except ChannelClosed:
                return

    def site(self, name: str, block_ns: int | None) -> Site:
        if self.oracle:
            return oracle_site(name, block_ns, self.host.costs)
        site = self.sites.get(name)
        if site is None:
            site = self.sites[name] = Site(name, NORMAL)
        return site

    def event(self, number: int) -> tuple[Event, Channel]:
        known = self.events.get(number)
        if known is None:
            known = self.events[number] = (Event(), Channel())
        return known
