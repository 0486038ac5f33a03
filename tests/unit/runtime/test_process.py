"""What a run leaves in its process, and what it takes of it."""

from __future__ import annotations

import _thread
import json
import operator
import subprocess
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reference_runtime import Runtime, WaitGroup, go, gosched, nanosleep, sleep
from reference_runtime.current import COMPILED
from reference_runtime.errors import ThreadLimit
from reference_runtime.goroutines import endless_loop
from reference_runtime.latencies import Latencies
from reference_runtime.log import BLOCK_ROWS
from reference_runtime.policies.adaptive import AdaptivePolicy
from reference_runtime.policies.base import Site
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record, Retake
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.workloads import make_workload
from reference_runtime.workloads.latency import distribution
from tracer.errors import PretakeError

MS = 1_000_000


# Several runtimes in one process.


def test_a_runtime_within_another_leaves_its_loops_alone() -> None:
    async def loops(ended: list[int]) -> None:
        await endless_loop()
        ended.append(1)

    async def inner() -> int:
        ended: list[int] = []
        go(loops(ended))
        await sleep(MS)
        return len(ended)

    async def main() -> tuple[int, object, int]:
        ended: list[int] = []
        go(loops(ended))
        await sleep(MS)
        told = Runtime(1, time_slice_ns=MS).run(inner)
        for _ in range(3):
            await gosched()
        return len(ended), told, len(ended)

    runtime = Runtime(1, time_slice_ns=MS)
    assert runtime.run(main) == (0, 0, 0)


@pytest.mark.skipif(not COMPILED, reason="the interpreted host looks at once")
def test_what_was_raised_in_a_thread_that_ends_is_caught() -> None:
    """CPython 3.11 has one mark for all threads: with it a traced thread gets into no function."""
    host = RealHost()
    done = host.new_note()
    told: list[str] = []

    def body() -> None:
        tid = host.thread_id()
        try:
            # In C alone: between the two the interpreter has no look at what was raised.
            deque(map(operator.call, [partial(host.end_code, tid), host.thread_ends]), maxlen=0)
            told.append("caught")
            host.end_code(tid)
            told.append("no more is raised")
        finally:
            done.wakeup()

    host.start_thread(body, "ends")
    done.sleep()
    assert told == ["caught", "no more is raised"]
    host.close()


def test_each_runtime_counts_its_own_stops() -> None:
    async def stops() -> None:
        go(endless_loop())
        for _ in range(3):
            await sleep(MS)
            await gosched()

    async def main() -> int:
        inner = Runtime(1, time_slice_ns=MS)
        inner.run(stops)
        return int(inner.record.preempted_async)

    outer = Runtime(1, time_slice_ns=20_000 * MS)
    assert outer.run(main) >= 1  # type: ignore[operator]
    assert outer.record.preempted_async == 0


def test_the_switch_interval_is_as_it_was() -> None:
    before = sys.getswitchinterval()

    async def inner() -> None:
        await gosched()

    async def main() -> None:
        Runtime(1).run(inner)

    Runtime(1).run(main)
    assert sys.getswitchinterval() == before


LEFT_IN_A_KERNEL = """
import sys
from reference_runtime import Runtime, _native, go, gosched
from reference_runtime.goroutines import compute, getm

async def long(begun):
    begun.append(getm().tid)
    await compute(_native.burn, 500_000_000)

async def main():
    begun = []
    go(long(begun))
    while not begun:
        await gosched()

def called():
    return "went on"

Runtime(2).run(main)
sys.settrace(lambda *_: None)
told = called()
sys.settrace(None)
print(told)
"""


def test_what_a_thread_did_not_raise_keeps_no_traced_call_for_ever() -> None:
    """The end of a run raises in a thread that is in a kernel, and ends without a look at it."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_IN_A_KERNEL], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "went on\n", done.stderr


def test_a_runtime_runs_one_program_at_a_time() -> None:
    async def inner() -> None:
        return None

    async def main() -> None:
        with pytest.raises(PretakeError, match="runs a program already"):
            runtime.run(inner)

    runtime = Runtime(1)
    runtime.run(main)
    runtime.run(inner)


def test_what_a_site_has_taught_one_policy_the_other_does_not_forget() -> None:
    site = Site("read")
    one, other = AdaptivePolicy(), AdaptivePolicy()
    memory = one.memory(site)
    assert other.memory(site) is not memory
    assert one.memory(site) is memory


# Threads.


async def blocks(many: int) -> None:
    done = WaitGroup(many)

    async def call() -> None:
        await nanosleep(1_000 * MS)
        done.done()

    for _ in range(many):
        go(call())
    await done.wait()


def test_a_program_has_as_many_threads_as_it_may() -> None:
    async def main() -> None:
        await blocks(30)

    with pytest.raises(ThreadLimit, match=r"thread exhaustion.*8-thread limit") as told:
        Runtime(1, "block", host=SimHost(2), max_threads=8).run(main)
    assert told.value.mend
    # Go's own limit is far enough.
    Runtime(1, "block", host=SimHost(2)).run(main)
    with pytest.raises(PretakeError, match="0 threads are too few"):
        Runtime(max_threads=0)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_thread_that_cannot_be_started_ends_the_run(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = _thread.start_new_thread, [0]

    def limited(*arguments: Any) -> int:  # noqa: ANN401
        if started[0] == threads:
            raise RuntimeError("can't start new thread")
        started[0] += 1
        return start(*arguments)

    async def main() -> None:
        await blocks(5)

    monkeypatch.setattr(_thread, "start_new_thread", limited)
    with pytest.raises(ThreadLimit, match="failed to create a new OS thread") as told:
        Runtime(1, "block").run(main)
    assert "\n" not in str(told.value)
    assert not getattr(told.value, "__notes__", None)


# Memory.


def test_times_are_kept_to_three_digits_in_a_memory_that_does_not_grow() -> None:
    kept, exact = Latencies(), []
    for number in range(200_000):
        ns = (number * 7919) % 1_000_003
        kept.append(ns)
        exact.append(ns)
    assert len(kept) == 200_000
    assert len(kept.seen) < 12_000
    assert kept.most_ns == max(exact)
    told, truth = distribution(kept), distribution(exact)
    assert told["count"] == truth["count"] == 200_000
    for name in ("p50", "p90", "p99", "max"):
        assert told[name] == pytest.approx(truth[name], rel=0.002)


def test_short_times_are_exact() -> None:
    kept = Latencies()
    for ns in (-5, 0, 7, 2047, 2048, 2049):
        kept.append(ns)
    # 2048 and 2049 look alike from 11 bits on.
    assert kept.seen == {0: 2, 7: 1, 2047: 1, 2049: 2}


def test_retakes_go_to_a_file_in_blocks_and_come_back_in_order(tmp_path: Path) -> None:
    record, many = Record(), 2 * BLOCK_ROWS + 5
    for number in range(many):
        p = number % 2
        record.retaken(number, number - 1, p, 10 + p, 3, 0, 99)
        if number % 3 == 0:
            record.ran(p, number - 1, number + 5, 50, 4)
    assert len(record.log.rows) < BLOCK_ROWS * 8
    assert record.counters()["retakes"] == many
    retakes = record.retakes
    assert [retake.ts_ns for retake in retakes] == list(range(many))
    assert retakes[1] == Retake(1, 0, 1, 11, 3, "sysmon", 99)
    record.write(tmp_path / "witness")
    lines = (tmp_path / "witness").read_text().splitlines()
    assert [json.loads(line)["ts_ns"] for line in lines] == list(range(many))
    with (tmp_path / "own").open("w") as file:
        record.append(file.fileno())
    rows = [json.loads(line) for line in (tmp_path / "own").read_text().splitlines()]
    assert sorted(row["ts_ns"] for row in rows) == list(range(many))
    for row in rows:
        ran = row["ts_ns"] % 3 == 0
        assert row["run_ns"] == (row["ts_ns"] + 5 if ran else None)
        assert row["run_goid"] == (4 if ran else None)


def test_a_workload_keeps_no_list_of_its_times() -> None:
    workload: Any = make_workload("echo", rounds=31)
    result: Any = Runtime(1, host=SimHost(2)).run(workload.main)
    assert result["round_trip_ns"]["count"] == 31
