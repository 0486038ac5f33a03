"""Each retake policy by its own rule, on the simulated host where order matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reference_runtime import goroutines
from reference_runtime.deadlock import Deadlock
from reference_runtime.policies import make_policy
from reference_runtime.policies.adaptive import AdaptivePolicy, Memory
from reference_runtime.policies.base import BLOCK, NORMAL, RAW, Site
from reference_runtime.record import Record, Retake, Run
from reference_runtime.runtime import Runtime
from reference_runtime.sim.costs import Costs
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.switch_watch import NATIVE
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads import run_workload
from tracer.errors import PretakeError
from tracer.kernel.perf_events import paranoid

US = 1_000
MS = 1_000_000
COSTS = Costs()


def simulate(
    policy: str, main: Callable[[SimHost], Awaitable[None]], procs: int = 1, cpus: int = 2
) -> tuple[Record, SimHost]:
    host = SimHost(cpus)
    host.machine.log = []
    runtime = Runtime(procs, policy, host=host)

    async def first() -> None:
        await main(host)

    runtime.run(first)
    return runtime.record, host


async def one_call_and_work(host: SimHost, block_ns: int = 5 * MS, cpu_ns: int = 0) -> None:
    """A goroutine in one long call, beside one that has work for as long."""
    finished = WaitGroup(2)

    async def call() -> None:
        await goroutines.syscall(Site("call"), host.call, (cpu_ns, block_ns))
        finished.done()

    async def work() -> None:
        await goroutines.spin(MS)
        finished.done()

    goroutines.go(call(), "call")
    goroutines.go(work(), "work")
    await finished.wait()


def age_of_only_retake(policy: str) -> int:
    record, _ = simulate(policy, one_call_and_work)
    (retake,) = record.retakes
    assert retake.reason == policy
    return retake.ts_ns - retake.enter_ns


def test_sched_out_retakes_at_the_block() -> None:
    # The call enters the kernel, blocks; the reader is woken, takes locks and looks at the clock.
    wake_ns = COSTS.wakeup_ns + COSTS.context_switch_ns + COSTS.switch_record_ns
    assert age_of_only_retake("sched_out") < COSTS.syscall_ns + wake_ns + US


def test_ums_is_told_before_anybody_is_woken() -> None:
    age_ns = age_of_only_retake("ums")
    assert age_ns < COSTS.syscall_ns + COSTS.context_switch_ns + US
    assert age_ns < age_of_only_retake("sched_out")


def test_upcall_wakes_one_thread_where_sched_out_wakes_two() -> None:
    """From the block to the next goroutine: one wake-up less, and one wait for the interpreter."""
    told = {}
    for policy in ("upcall", "sched_out"):
        record, _ = simulate(policy, one_call_and_work)
        retake, run = record.rows()
        assert isinstance(retake, Retake)
        assert isinstance(run, Run)
        assert retake.reason == policy
        told[policy] = run.run_ns - run.enter_ns
    # The reader of the events takes P and wakes its M.
    assert told["upcall"] + COSTS.wakeup_ns <= told["sched_out"]


def test_a_deadlock_is_told_although_an_m_is_on_call() -> None:
    async def main(_: SimHost) -> None:
        await goroutines.gopark("nobody")

    with pytest.raises(Deadlock):
        simulate("upcall", main, procs=2)


def test_thread_state_retakes_at_the_first_sighting() -> None:
    # sysmon's second sighting comes one sleep later: 20 µs, and the kernel's slack.
    sleep_ns = 20 * US + COSTS.timer_slack_ns
    first = age_of_only_retake("thread_state")
    second = age_of_only_retake("sysmon")
    assert first < sleep_ns + 2 * COSTS.thread_state_ns + 5 * US
    assert sleep_ns < second - first + 2 * COSTS.thread_state_ns
    assert second - first < sleep_ns + 5 * US


def test_thread_state_leaves_a_call_that_computes_to_the_second_sighting() -> None:
    async def main(host: SimHost) -> None:
        await one_call_and_work(host, -1, 5 * MS)

    record, _ = simulate("thread_state", main)
    assert [retake.reason for retake in record.retakes] == ["sysmon"]


def test_sched_out_does_nothing_at_a_preemption() -> None:
    """Calls that use the CPU for longer than a slice, on a CPU that they share."""
    seen: list[bool] = []

    async def main(host: SimHost) -> None:
        host.machine.on_switch_out.append(lambda _tid, _ns, blocked: seen.append(blocked))
        finished = WaitGroup(3)

        async def call() -> None:
            await goroutines.syscall(Site("busy"), host.call, (20 * MS, -1))
            finished.done()

        for _ in range(3):
            goroutines.go(call(), "busy")
        await finished.wait()

    record, _ = simulate("sched_out", main, procs=3, cpus=1)
    assert seen.count(False) >= 3  # it was put to the test
    assert record.retakes == []


def test_sched_out_still_looks_at_the_network_after_10_ms() -> None:
    """As the monitor does for Ps that never run out of work, whatever its net's period."""
    waited_ns: list[int] = []

    async def main(host: SimHost) -> None:
        reader, writer = host.pipe()
        begin_ns = int(host.nanotime())

        async def wait() -> None:
            await goroutines.wait_readable(reader)
            waited_ns.append(int(host.nanotime()) - begin_ns)

        goroutines.go(wait(), "waits")
        await goroutines.gosched()
        await goroutines.write(writer, b"x", Site("raw", RAW))
        while not waited_ns:
            await goroutines.spin(100 * US)
            await goroutines.gosched()

    simulate("sched_out", main)
    assert 10 * MS <= waited_ns[0] < 25 * MS


def test_sched_out_retakes_nothing_from_threads_that_park() -> None:
    async def main(host: SimHost) -> None:
        for _ in range(20):
            await goroutines.sleep(50 * US)
        assert host.machine.on_switch_out

    record, host = simulate("sched_out", main, procs=2)
    log = host.machine.log or []
    assert sum(word == "block" for _, word, _ in log) >= 20
    assert record.retakes == []


def test_integrated_runs_the_p_on_the_thread_that_took_it() -> None:
    """Of all threads the one that retakes is woken by its own timer; nobody wakes another."""
    running: dict[str, int] = {}

    async def main(host: SimHost) -> None:
        finished = WaitGroup(1)

        async def work() -> None:
            running["work"] = int(goroutines.getm().tid)
            finished.done()

        goroutines.go(work(), "work")
        await goroutines.syscall(Site("call"), host.call, (0, 5 * MS))
        await finished.wait()

    record, host = simulate("integrated", main)
    (retake,) = record.retakes
    assert retake.reason == "integrated"
    log = host.machine.log or []
    worker = running["work"]
    # Between the retake and the end of its turn on the CPU, the taker was not switched out.
    events = [word for ns, word, tid in log if tid == worker and ns <= retake.ts_ns]
    assert worker != retake.tid
    assert events[-1] == "run"
    assert record.retake_ns.count == 1
    assert record.retake_ns.most_ns == pytest.approx(retake.ts_ns - retake.enter_ns, abs=2 * US)


def test_integrated_has_no_monitor_and_ends() -> None:
    runtime = Runtime(2, "integrated", host=SimHost(2))

    async def main() -> int:
        await goroutines.sleep(30 * MS)
        return 5

    assert runtime.run(main) == 5


# Adaptive: what a site learns, by hand.


def feed(memory: Memory, lengths_ns: list[int]) -> list[int]:
    """Calls of such lengths; the modes in which they were made."""
    modes = []
    for length_ns in lengths_ns:
        modes.append(int(memory.next_mode()))
        memory.learn(modes[-1], length_ns)
    return modes


def test_a_site_learns_that_its_calls_block() -> None:
    # The average moves by an eighth of 200 µs: 25 µs after one call, 46.875 µs after two.
    assert feed(Memory(), [300 * US] * 4) == [NORMAL, NORMAL, BLOCK, BLOCK]


def test_a_site_learns_that_its_calls_are_short() -> None:
    assert feed(Memory(), [1 * US] * 66) == [NORMAL] * 64 + [RAW] * 2


def test_one_long_call_ends_raw() -> None:
    memory = Memory()
    feed(memory, [1 * US] * 64)
    assert feed(memory, [1 * US, 100 * US, 1 * US]) == [RAW, RAW, NORMAL]


def test_a_site_unlearns_block_by_trying() -> None:
    memory = Memory()
    feed(memory, [300 * US] * 2)
    # It came to block once, so it takes 32 doubts; the try tells that they were right.
    assert feed(memory, [5 * US] * 34) == [BLOCK] * 32 + [NORMAL] * 2


def test_a_try_that_was_wrong_doubles_the_doubts() -> None:
    """Short only because P was handed off: the peer ran at once."""
    memory = Memory()
    feed(memory, [300 * US] * 2)
    assert feed(memory, [5 * US] * 32 + [150 * US]) == [BLOCK] * 32 + [NORMAL]
    assert feed(memory, [5 * US] * 64 + [150 * US]) == [BLOCK] * 64 + [NORMAL]


def test_sites_learn_apart_and_policies_too() -> None:
    policy = AdaptivePolicy()
    long, short = Site("long"), Site("short", BLOCK)
    feed(policy.memory(long), [300 * US] * 2)
    feed(policy.memory(short), [1 * US] * 64)
    assert (policy.mode(long), policy.mode(short)) == (BLOCK, RAW)
    assert AdaptivePolicy().mode(long) == NORMAL


def test_what_its_author_made_raw_stays_raw() -> None:
    policy = AdaptivePolicy()
    site = Site("compute", RAW)
    feed(policy.memory(site), [300 * US] * 4)
    assert policy.mode(site) == RAW


def test_a_raw_call_that_lasts_is_rescued() -> None:
    """The site learnt raw, and then waits for a goroutine that needs its P."""

    async def main(host: SimHost) -> None:
        site = Site("read")
        reader, writer = host.pipe()
        for _ in range(70):
            await goroutines.write(writer, b"x")
            await goroutines.read(reader, 1, site)

        async def late() -> None:
            await goroutines.write(writer, b"y")

        goroutines.go(late(), "late")
        assert await goroutines.read(reader, 1, site) == b"y"

    record, _ = simulate("adaptive", main)
    assert len(record.retakes) == 1


# The real machine.

SAFE = ["sched_out", "thread_state", "integrated", "adaptive"]


@pytest.mark.parametrize("policy", SAFE)
def test_23_calls_that_block_give_their_p_back(policy: str) -> None:
    result: dict[str, Any] = run_workload("prime", policy=policy, procs=1, rounds=23)
    counters = result["runtime"]
    assert counters["retakes"] + counters["handoffs"] == 23
    assert counters["policy_wakeups"] > 0
    assert counters["policy_cpu_ns"] > 0


@pytest.mark.parametrize("policy", SAFE)
@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize("poller", [False, True])
def test_echo_comes_back(policy: str, procs: int, poller: bool) -> None:
    result: dict[str, Any] = run_workload(
        "echo", policy=policy, procs=procs, rounds=97, poller=poller
    )
    assert result["rounds"] == 97


def test_ums_refuses_a_real_machine() -> None:
    with pytest.raises(PretakeError, match="simulated host") as told:
        run_workload("prime", policy="ums")
    assert "\n" not in str(told.value)


AS_NOBODY = """
import os, encodings.idna, reference_runtime.switch_watch, tracer.kernel.upcall
from reference_runtime.workloads import run_workload
from tracer.errors import PretakeError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    run_workload("prime", policy="upcall")
except PretakeError as refused:
    print(refused)
"""


def test_upcall_says_in_one_line_that_it_takes_root() -> None:
    pytest.importorskip("pyarrow", reason="Arrow has no wheel for this Python")
    command = [sys.executable, "-c", AS_NOBODY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert ("root" if NATIVE else "C module") in done.stdout
    assert "use sched_out" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0 or paranoid() < 3, reason="perf events are allowed here")
def test_sched_out_says_where_perf_events_are_forbidden() -> None:
    with pytest.raises(PretakeError, match="perf_event_paranoid is 3"):
        run_workload("prime", policy="sched_out")


@pytest.mark.skipif(os.geteuid() != 0 or paranoid() > 2, reason="needs root to become nobody")
def test_sched_out_needs_no_privilege() -> None:
    code = (
        "import os, encodings.idna, hdrh.histogram, reference_runtime.switch_watch; "
        "from reference_runtime.workloads import run_workload; os.setgid(65534); "
        "os.setuid(65534); r = run_workload('echo', policy='sched_out', rounds=23); "
        "print(r['runtime']['retakes'] >= 23)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_every_policy_is_asked_for_by_its_name() -> None:
    for name in (*SAFE, "ums", "upcall"):
        assert make_policy(name).name == name
