"""Ms that run Python code at the same moment: what they share is whole.

On a Python with a GIL these tests say little more than others. ``make test-free-threaded`` runs
them without one.
"""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import reference_runtime
from reference_runtime import Channel, Counter, Mutex, Runtime, WaitGroup, go, gosched, nanosleep
from reference_runtime.goroutines import getg
from reference_runtime.latencies import Latencies
from reference_runtime.locks import LOCKS_ARE_REAL, NO_GIL
from reference_runtime.record import Record
from reference_runtime.stopping import stopped_world, suspended

PROCS = 4
TURNS = 4_000
WORKERS = 6


def run(main: Callable[[], Coroutine[Any, Any, object]], policy: str = "sysmon") -> object:
    return Runtime(procs=PROCS, policy=policy).run(main)


def in_threads(work: Callable[[], None]) -> None:
    """On several threads, which begin together."""
    begin = threading.Barrier(PROCS)

    def body() -> None:
        begin.wait()
        work()

    threads = [threading.Thread(target=body) for _ in range(PROCS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="make test-free-threaded runs it"
)
def test_no_module_of_the_runtime_brings_the_gil_back() -> None:
    names = [
        module.name
        for module in pkgutil.walk_packages(reference_runtime.__path__, "reference_runtime.")
        # It stands on greenlet, and needs no second thread.
        if not module.name.startswith("reference_runtime.sim")
    ]
    assert "reference_runtime._native" in names
    assert "reference_runtime._switches" in names
    program = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
print(sys._is_gil_enabled())
"""
    # Here the tests' own modules may be those that would.
    env = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=env, capture_output=True, text=True
    )
    assert told.stdout == "False\n", told.stderr
    assert sys._is_gil_enabled() is False
    assert NO_GIL
    assert LOCKS_ARE_REAL


def test_a_counter_counts_what_each_thread_adds() -> None:
    counter = Counter()

    def work() -> None:
        for _ in range(TURNS):
            counter.add()
            counter.add(2)
            counter.add(-1)

    in_threads(work)
    assert counter.value == PROCS * TURNS * 2
    assert counter.value <= counter.most <= counter.value + 1


def test_the_record_counts_what_each_thread_adds() -> None:
    record = Record()

    def work() -> None:
        for number in range(TURNS):
            record.add(wakeups=1, handoffs=2)
            record.retaken(number, 0, 0, 1, 2, 0, 3)
            record.thief_slept(5, 3)

    in_threads(work)
    assert record.wakeups == PROCS * TURNS
    assert record.handoffs == 2 * PROCS * TURNS
    assert record.retake_count == PROCS * TURNS
    assert sum(1 for _ in record.rows()) == PROCS * TURNS
    assert (record.thief_sleeps, record.thief_sleep_ns, record.thief_sleep_cpu_ns) == (
        PROCS * TURNS,
        5 * PROCS * TURNS,
        3 * PROCS * TURNS,
    )


def test_each_time_is_kept_that_a_thread_adds() -> None:
    times = Latencies()

    def work() -> None:
        for ns in range(TURNS):
            times.append(ns % 7)

    in_threads(work)
    assert len(times) == PROCS * TURNS == sum(times.seen.values())
    assert times.seen == {ns: PROCS * len(range(ns, TURNS, 7)) for ns in range(7)}


def test_a_channel_loses_nothing_and_gives_nothing_twice() -> None:
    async def main() -> list[int]:
        work, back, done = Channel(3), Channel(), WaitGroup(WORKERS)

        async def sends(worker: int) -> None:
            for number in range(worker, TURNS, WORKERS):
                await work.send(number)
            done.done()

        async def closes() -> None:
            await done.wait()
            work.close()

        async def serves() -> None:
            async for number in work:
                await back.send(number)

        for worker in range(WORKERS):
            go(sends(worker))
            go(serves())
        go(closes())
        return [await back.recv() for _ in range(TURNS)]  # type: ignore[misc]

    got = run(main)
    assert sorted(got) == list(range(TURNS))  # type: ignore[call-overload]


def test_a_mutex_lets_one_in() -> None:
    async def main() -> tuple[int, int]:
        mutex, done = Mutex(), WaitGroup(WORKERS)
        count = most = inside = 0

        async def work() -> None:
            nonlocal count, inside, most
            for _ in range(TURNS // 8):
                await mutex.lock()
                inside += 1
                most = max(most, inside)
                before = count
                await gosched()
                count = before + 1
                inside -= 1
                mutex.unlock()
            done.done()

        for _ in range(WORKERS):
            go(work())
        await done.wait()
        return count, most

    assert run(main) == (WORKERS * (TURNS // 8), 1)


@pytest.mark.parametrize("policy", ["sysmon", "block", "integrated", "adaptive"])
def test_each_call_returns_once(policy: str) -> None:
    async def main() -> int:
        counter, done = Counter(), WaitGroup(WORKERS)

        async def calls() -> None:
            for _ in range(100):
                await nanosleep(1_000)
                counter.add()
            done.done()

        for _ in range(WORKERS):
            go(calls())
        await done.wait()
        return counter.value

    assert run(main, policy=policy) == WORKERS * 100


def counts_while_still(still: Callable[[Any], Any]) -> int:
    """How often a counting goroutine moved on while it was to stand still, of 100 times."""

    async def main() -> int:
        count = 0
        moved = 0
        begun = Channel(1)

        async def counts() -> None:
            nonlocal count
            await begun.send(getg())
            while True:
                for _ in range(10):
                    count += 1
                await gosched()

        go(counts())
        g = await begun.recv()
        for _ in range(100):
            async with still(g):
                before = count
                for _ in range(200):
                    moved += count != before
            await gosched()
        return moved

    return run(main)  # type: ignore[return-value]


def test_a_suspended_goroutine_stands_still() -> None:
    assert counts_while_still(suspended) == 0


def test_a_stopped_world_stands_still() -> None:
    assert counts_while_still(lambda g: stopped_world()) == 0  # noqa: ARG005
