"""Preemption on real threads: what stops a loop that calls nothing, and what does not."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reference_runtime import Runtime, WaitGroup, gosched, policies
from reference_runtime import _native as native
from reference_runtime.current import COMPILED
from reference_runtime.gmp import P_RUNNING, G
from reference_runtime.goroutines import (
    checkpoint,
    current_host,
    endless_loop,
    getg,
    getm,
    go,
    pread,
    sleep,
    spin,
)
from reference_runtime.host import Host
from reference_runtime.preempt import SIGURG
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record
from reference_runtime.runtime import PREEMPTIONS
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.stopping import stopped_world, suspended
from reference_runtime.workloads import make_workload, run_workload
from tracer.errors import PretakeError

MS = 1_000_000
SLICE_NS = 1 * MS
GENEROUS_NS = 20_000 * MS
RUNS = 5
"""At most so many, where a pause of a thread at one place makes a run of another scene."""

POLICIES = sorted(name for name in policies.POLICIES if name not in ("ums", "upcall"))

without_signals = pytest.mark.parametrize("preempt", ["cooperative", "asyncpreemptoff", "off"])


def endless(policy: str = "sysmon", preempt: str = "async", *, limit_s: float) -> dict[str, Any]:
    """The workload with a loop that was not asked to stop before it was in its loop.

    A thread that is kept from its CPU for a time slice just before that finds the request at the
    loop's one check, which is at its entry.
    """
    result: dict[str, Any] = {}
    for _ in range(RUNS):
        result = run_workload("endless", policy, preempt=preempt, limit_s=limit_s)
        if not result["runtime"]["preempted_cooperative"]:
            break
        assert result["runtime"]["preempted_cooperative"] == 1
    return result


@pytest.mark.parametrize("policy", POLICIES)
def test_the_articles_loop_ends_by_asynchronous_preemption_only(policy: str) -> None:
    """Whoever looks after the Ps under a policy, takes that of a stopped thread too."""
    result = endless(policy, limit_s=20)
    assert result["ended_by"] == "preemption"
    assert result["runtime"]["preempted_async"] >= 1
    assert result["runtime"]["preempted_cooperative"] == 0
    # The last one may have come as the run ended, when nobody took its P.
    assert 1 <= result["preempt_ns"]["count"] <= result["runtime"]["preempted_async"]


@pytest.mark.parametrize("preempt", ["async", "cooperative"])
@pytest.mark.parametrize("policy", POLICIES)
def test_one_that_makes_call_after_call_does_not_keep_p(policy: str, preempt: str) -> None:
    """None of its calls blocks, and the interpreter's lock changes hands in calls only.

    So the monitor never sees its P but in a call.
    """

    async def reads(fd: int, counts: list[int], me: int, done: WaitGroup) -> None:
        host = current_host()
        begin_ns = host.nanotime()
        while min(counts) < 2:
            counts[me] += 1
            await pread(fd, 16, 0)
            assert host.nanotime() - begin_ns < GENEROUS_NS, "the other one never ran"
        done.done()

    async def main() -> int:
        counts = [0, 0]
        done = WaitGroup(2)
        with Path(__file__).open() as file:
            for me in range(2):
                go(reads(file.fileno(), counts, me, done))
            await done.wait()
        return min(counts)

    runtime = Runtime(procs=1, policy=policy, preempt=preempt, time_slice_ns=SLICE_NS)
    assert runtime.run(main) == 2


def simulate(name: str, preempt: str, **parameters: object) -> tuple[dict[str, Any], Record]:
    """A workload with one P on a simulated machine, where counts are the same at any speed."""
    workload = make_workload(name, **parameters)
    runtime = Runtime(1, host=SimHost(2), preempt=preempt)
    result = runtime.run(workload.main, limit_ns=workload.limit_ns())
    assert isinstance(result, dict)
    return result, runtime.record


@without_signals
def test_without_it_the_loop_starves_the_rest_to_the_time_limit(preempt: str) -> None:
    result = endless(limit_s=0.15, preempt=preempt)
    assert result["ended_by"] == "time_limit"
    told = result["runtime"]
    assert told["preempted_async"] == told["preempted_cooperative"] == 0


@without_signals
def test_a_loop_without_checks_is_asked_once_and_for_nothing(preempt: str) -> None:
    """The poison stays until the loop's next function entry, which never comes."""
    result, record = simulate("endless", preempt, limit_s=0.15)
    assert result["ended_by"] == "time_limit"
    assert record.preempted_cooperative == record.preempted_async == 0
    assert record.preempt_requests == (0 if preempt == "off" else 1)
    # A sleep of 5 ms that ended with the run's limit of 150 ms, or one step of the loop later.
    assert 145 * MS <= result["late_ns"]["max"] < 146 * MS


def test_a_nosplit_loop_does_not_end_even_so() -> None:
    """It ends here because the test ends it, after two signals were refused."""
    before = native.count_outcomes()[2]
    runtime = Runtime(procs=1)
    ended = threading.Event()

    async def main() -> None:
        go(endless_loop(True))
        begin_ns = current_host().nanotime()
        # However late the loop is entered: once it is, nobody else runs before the test's end.
        while not ended.is_set() and current_host().nanotime() - begin_ns < GENEROUS_NS:
            await sleep(MS)

    def end() -> None:
        while native.count_outcomes()[2] < before + 2:
            time.sleep(0.001)
        ended.set()
        runtime.host.end_loops(True)

    ender = threading.Thread(target=end, daemon=True)
    ender.start()
    runtime.run(main)
    # The loop's goroutine may have been stopped beside its loop, but the loop was not.
    assert ended.is_set()
    ender.join()
    record = runtime.record
    # The loop has one check, at its entry, and the main goroutine has none.
    assert record.preempted_cooperative <= 1
    assert record.refused["unsafe_point"] >= 2


def test_a_nosplit_loop_refuses_one_signal_for_each_slice() -> None:
    result, record = simulate("endless", "async", kind="nosplit", limit_s=0.15)
    assert result["ended_by"] == "time_limit"
    assert record.preempted_async == record.preempted_cooperative == 0
    # The monitor looks every 10 ms and begins to count when it first sees the goroutine.
    assert record.preempt_requests == record.refused["unsafe_point"]
    assert 13 <= record.preempt_requests <= 15


def test_a_loop_of_calls_needs_no_signal() -> None:
    told: dict[str, int] = {}
    for _ in range(RUNS):
        result: dict[str, Any] = run_workload(
            "cpu", procs=1, kind="checks", rounds=3, preempt="cooperative", limit_s=20
        )
        told = result["runtime"]
        assert 1 <= told["preempted_cooperative"] <= told["preempt_requests"]
        assert told["preempted_async"] == told["refused_unsafe_point"] == 0
        # The last request may be open at the end. Another is that of the main goroutine, which
        # has no check, if its thread is kept from a CPU for a slice.
        if told["preempt_requests"] - 1 <= told["preempted_cooperative"]:
            break
    assert told["preempt_requests"] - 1 <= told["preempted_cooperative"]


def test_each_round_beside_a_loop_of_calls_takes_one_stop() -> None:
    _, record = simulate("cpu", "cooperative", kind="checks", rounds=3)
    assert (record.preempt_requests, record.preempted_cooperative) == (3, 3)


@pytest.mark.parametrize("procs", [1, 2])
def test_every_request_has_one_outcome(procs: int) -> None:
    result: dict[str, Any] = run_workload(
        "cpu", procs=procs, kind="tight", loops=4, rounds=5, limit_s=20
    )
    told = result["runtime"]
    refused = sum(n for name, n in told.items() if name.startswith("refused"))
    stopped = told["preempted_async"]
    assert stopped >= 1
    # A signal may still be under way at the end.
    assert told["preempt_requests"] - 2 <= stopped + refused <= told["preempt_requests"]


def test_a_stopped_goroutine_goes_on_where_it_was_on_the_same_thread() -> None:
    iterations = 30_000_000

    async def compute(results: list[object], done: WaitGroup) -> None:
        tid = getm().tid
        values = {native.burn(iterations)}
        while native.count_outcomes()[0] < before + 2:
            values.add(native.burn(iterations))
        results.append((values, tid == getm().tid))
        done.done()

    async def main() -> list[object]:
        results: list[object] = []
        done = WaitGroup(3)
        for _ in range(3):
            go(compute(results, done))
        await done.wait()
        return results

    before = native.count_outcomes()[0]
    runtime = Runtime(procs=1, time_slice_ns=SLICE_NS)
    results: Any = runtime.run(main)
    assert [same for _, same in results] == [True] * 3
    assert [values for values, _ in results] == [{native.burn(iterations)}] * 3
    assert runtime.record.preempted_async >= 2


def test_stopped_goroutines_take_turns() -> None:
    """Each of three loops gets a P again and again, although none ever gives it up."""

    async def loop(gs: list[G]) -> None:
        gs.append(getg())
        await endless_loop()

    async def main() -> int:
        gs: list[G] = []
        for _ in range(3):
            go(loop(gs))
        seen: list[int] = []
        p = getm().sched.allp[0]
        while len(seen) < 9:
            before = p.schedtick
            await gosched()
            seen.append(p.schedtick - before)
        return len(gs)

    runtime = Runtime(procs=1, time_slice_ns=SLICE_NS)
    assert runtime.run(main, limit_ns=GENEROUS_NS) == 3
    # A loop that is asked before it is entered stops at its one check, at its entry.
    assert runtime.record.preempted_cooperative <= 3
    stops = runtime.record.preempted_async + runtime.record.preempted_cooperative
    assert stops >= 8 * 3


def test_the_world_stands_while_it_is_stopped() -> None:
    async def loop() -> None:
        await endless_loop()

    async def main() -> list[list[int]]:
        sched = getm().sched
        for _ in range(3):
            go(loop())
        states = []
        for _ in range(5):
            await sleep(SLICE_NS)
            async with stopped_world():
                await spin(SLICE_NS)
                await checkpoint()
                states.append([p.id for p in sched.allp if p.status == P_RUNNING])
        return states

    runtime = Runtime(procs=3, time_slice_ns=SLICE_NS)
    states = runtime.run(main, limit_ns=GENEROUS_NS)
    assert isinstance(states, list)
    assert [len(running) for running in states] == [1] * 5
    assert len(runtime.record.stop_ns) == 5


@pytest.mark.parametrize("preempt", sorted(PREEMPTIONS))
def test_the_world_stops_between_goroutines_without_any_request(preempt: str) -> None:
    async def yields(counts: list[int]) -> None:
        while True:
            counts[0] += 1
            await gosched()

    async def main() -> None:
        counts = [0]
        for _ in range(4):
            go(yields(counts))
        for _ in range(3):
            await gosched()
            async with stopped_world("gc"):
                before = counts[0]
                await spin(100_000)
                assert counts[0] == before

    Runtime(procs=3, preempt=preempt).run(main)


def test_a_suspended_goroutine_stands_still_until_it_is_resumed() -> None:
    async def count(counts: list[int], me: list[G]) -> None:
        me.append(getg())
        while True:
            counts[0] += 1
            await spin(1_000)

    async def main() -> None:
        counts, me = [0], list[G]()
        go(count(counts, me))
        while not counts[0]:
            await gosched()
        for _ in range(5):
            async with suspended(me[0]) as still:
                assert still
                before = counts[0]
                await sleep(SLICE_NS)
                assert counts[0] == before
            while counts[0] == before:
                await gosched()

    runtime = Runtime(procs=2, time_slice_ns=SLICE_NS)
    runtime.run(main)
    assert len(runtime.record.suspend_ns) == 5


def test_a_dead_goroutine_cannot_be_suspended() -> None:
    async def main() -> bool:
        me: list[G] = []

        async def ends() -> None:
            me.append(getg())

        go(ends())
        while not me:
            await gosched()
        await gosched()
        async with suspended(me[0]) as still:
            return still

    assert Runtime(procs=1).run(main) is False


@pytest.mark.parametrize("host", [RealHost, SimHost])
def test_a_panic_asks_all_that_run_to_stop(host: type[Host]) -> None:
    async def loop(running: list[int]) -> None:
        running.append(1)
        await endless_loop()

    async def main() -> None:
        running: list[int] = []
        go(loop(running))
        while not running:
            await gosched()
        raise ValueError("panic")

    runtime = Runtime(procs=2, host=host(), time_slice_ns=GENEROUS_NS)
    with pytest.raises(ValueError, match="panic"):
        runtime.run(main)
    # Interpreted, the end of the run may come between: it has the loops end by themselves.
    at_least = 1 if COMPILED or host is SimHost else 0
    assert at_least <= runtime.record.preempt_requests <= 1


def test_signals_that_nobody_sent_for_are_refused_with_their_reason() -> None:
    async def main() -> None:
        tid = getm().tid
        current_host().tgkill(tid, SIGURG)  # it runs, and nobody wants it to stop

    runtime = Runtime(procs=1, time_slice_ns=GENEROUS_NS)
    runtime.run(main)
    assert runtime.record.refused == {"not_wanted": 1, "unsafe_point": 0, "not_running_g": 0}


def test_a_thread_that_runs_no_goroutine_refuses() -> None:
    async def main() -> None:
        sched = getm().sched
        # The first M runs before the monitor's thread is started.
        while sched.monitor is None or not sched.monitor.tid:
            await spin(100_000)
        current_host().tgkill(sched.monitor.tid, SIGURG)
        while native.count_outcomes()[3] == before:
            await gosched()

    before = native.count_outcomes()[3]
    runtime = Runtime(procs=1, time_slice_ns=GENEROUS_NS)
    runtime.run(main)
    assert runtime.record.refused["not_running_g"] == 1


def test_the_handler_is_gone_after_the_run() -> None:
    async def main() -> None:
        return None

    Runtime(procs=1).run(main)
    # The default for SIGURG is to ignore it; Python never saw another handler.
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    signal.raise_signal(signal.SIGURG)


def test_the_table_of_safe_points_is_one_range() -> None:
    ((begin, end),) = native.safe_ranges()
    assert 0 < end - begin < 4096


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"preempt": "sometimes"}, "no preemption is called 'sometimes'"),
        ({"time_slice_ns": 0}, "a time slice of 0 ns is none"),
    ],
)
def test_what_is_no_preemption_is_told(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(PretakeError, match=problem):
        Runtime(procs=1, **arguments)


def test_workloads_refuse_what_cannot_work() -> None:
    with pytest.raises(PretakeError, match="no kind of loop is called 'hula'"):
        run_workload("cpu", kind="hula")
    with pytest.raises(PretakeError, match="needs somebody to stop"):
        run_workload("stw", procs=1)


@pytest.mark.parametrize("kind", ["checks", "tight"])
def test_stw_reports_its_times_to_stop(kind: str) -> None:
    result: dict[str, Any] = run_workload("stw", procs=2, kind=kind, rounds=7, limit_s=20)
    assert result["world_ns"]["count"] == result["stop_ns"]["count"] == result["rounds"] == 7
    assert result["ended_by"] == "preemption"
