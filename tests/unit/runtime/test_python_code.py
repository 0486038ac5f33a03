"""Goroutines that compute in plain Python: stopped at a line of theirs, and ended with the run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from reference_runtime import Runtime, WaitGroup, go, gosched, sleep
from reference_runtime import _native as native
from reference_runtime.deadlock import TimeLimit
from reference_runtime.goroutines import compute, getg, getm
from reference_runtime.policies import POLICIES
from reference_runtime.workloads import run_workload

MS = 1_000_000
SLICE_NS = 1 * MS
GENEROUS_NS = 20_000 * MS

pytestmark = pytest.mark.skipif(
    sys.gettrace() is not None, reason="a debugger's or coverage's trace function stays"
)


async def article(ended: list[int]) -> None:
    """The article's loop: 0 minus twos is never 1."""
    u = 0
    while u != 1:
        u -= 2
    ended.append(u)


def test_a_loop_that_was_stopped_does_not_outlive_the_run() -> None:
    before = set(Path("/proc/self/task").iterdir())

    async def main() -> None:
        go(article([]))
        await sleep(5 * MS)

    runtime = Runtime(1, time_slice_ns=SLICE_NS)
    runtime.run(main)
    assert runtime.record.preempted_async >= 1
    while set(Path("/proc/self/task").iterdir()) - before:
        os.sched_yield()


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"ums", "upcall"}))
def test_the_articles_loop_in_plain_python_is_stopped_for_the_timer(policy: str) -> None:
    async def main() -> list[int]:
        ended: list[int] = []
        go(article(ended))
        await sleep(5 * MS)
        return ended

    runtime = Runtime(1, policy, time_slice_ns=SLICE_NS)
    assert runtime.run(main) == []
    assert runtime.record.preempted_async >= 1
    assert runtime.record.preempted_cooperative == 0
    assert runtime.record.preempt_ns.count >= 1


def test_loops_take_turns_and_lose_nothing() -> None:
    """Each goes on where it was, on its own thread, however often it was stopped."""
    stops = 10

    async def counts(done: WaitGroup) -> None:
        tid, total, number = getm().tid, 0, 0
        while native.count_outcomes()[0] - before < stops:
            number += 1
            total += number
        assert total == number * (number + 1) // 2
        assert getm().tid == tid
        done.done()

    async def main() -> None:
        done = WaitGroup(2)
        for _ in range(2):
            go(counts(done))
        await done.wait()

    before = native.count_outcomes()[0]
    runtime = Runtime(1, time_slice_ns=SLICE_NS)
    runtime.run(main)
    assert runtime.record.preempted_async >= stops


def test_every_request_has_one_outcome() -> None:
    async def main() -> None:
        ended: list[int] = []
        for _ in range(3):
            go(article(ended))
        while native.count_outcomes()[0] - before < 20:
            await gosched()

    before = native.count_outcomes()[0]
    runtime = Runtime(2, time_slice_ns=SLICE_NS)
    runtime.run(main)
    record = runtime.record
    outcomes = record.preempted_async + sum(record.refused.values())
    # A signal may be under way to each of the two at the end.
    assert record.preempt_requests - 2 <= outcomes <= record.preempt_requests


def test_nobody_is_stopped_in_a_library() -> None:
    """Its code may hold a lock that the next goroutine needs: the program's next line will do."""
    dumps: Any = pickle._dumps  # type: ignore[attr-defined]  in Python, unlike pickle.dumps

    async def loops(idents: list[int]) -> None:
        idents.append(threading.get_ident())
        while True:
            dumps(list(range(30)))

    async def main() -> set[str]:
        idents: list[int] = []
        go(loops(idents))
        places = set()
        for _ in range(20):
            await gosched()
            # This one has the only P: the other stands where it was stopped.
            places.update(sys._current_frames()[ident].f_code.co_filename for ident in idents)
        return places

    assert Runtime(1, time_slice_ns=SLICE_NS).run(main) == {__file__}


def test_nobody_is_stopped_where_the_runtime_calls_back() -> None:
    """A function of the runtime may hold its locks, as where the collector calls a program's code.

    Like Go's, it is no place to stop in (isAsyncSafePoint); the line after it is one.
    """
    others, seen = [0], []

    async def counts() -> None:
        while True:
            others[0] += 1
            await gosched()

    def called_back(_: object) -> None:
        before, refused = others[0], native.count_outcomes()[2]
        while native.count_outcomes()[2] < refused + 2 and others[0] == before:
            pass
        seen.append(others[0] - before)

    async def main() -> None:
        go(counts())
        await gosched()
        await compute(called_back, None)
        before = others[0]
        while others[0] == before:
            pass

    # It raises if the limit comes first: then the lines after it were no place to stop in.
    Runtime(1, time_slice_ns=SLICE_NS).run(main, limit_ns=GENEROUS_NS)
    assert seen == [0]


def test_a_suspended_goroutine_in_python_code_stands_still() -> None:
    from reference_runtime.stopping import suspended

    async def main() -> bool:
        counts, me = [0], [getg()]

        async def loops() -> None:
            me[0] = getg()
            while True:
                counts[0] += 1

        go(loops())
        while not counts[0]:
            await gosched()
        async with suspended(me[0]) as still:
            before = counts[0]
            await sleep(SLICE_NS)
            return still and counts[0] == before

    assert Runtime(2, time_slice_ns=SLICE_NS).run(main) is True


@pytest.mark.parametrize("preempt", ["async", "cooperative"])
def test_a_loop_that_is_left_ends_with_the_run(preempt: str) -> None:
    """Else its thread would use a CPU for as long as the process lives."""
    ended: list[str] = []
    running: list[int] = []

    async def loops() -> None:
        try:
            # In here: from now on main may end the run, and this goroutine at any of its steps.
            running.append(getm().tid)
            while True:
                pass
        finally:
            ended.append("ended")

    async def main() -> None:
        go(loops())
        while not running:
            await gosched()

    Runtime(2, preempt=preempt).run(main)
    assert ended == ["ended"]


@pytest.mark.parametrize("preempt", ["cooperative", "off"])
def test_a_time_limit_ends_a_run_that_cannot_be_preempted(preempt: str, tmp_path: Path) -> None:
    program = tmp_path / "article.py"
    program.write_text(
        "from reference_runtime import go, sleep\n"
        "async def loop():\n"
        "    u = 0\n"
        "    while u != 1:\n"
        "        u -= 2\n"
        "async def main():\n"
        "    go(loop())\n"
        "    await sleep(1_000_000)\n"
    )
    # Time enough for a thread that waits for a CPU: by then main sleeps and the loop runs.
    with pytest.raises(TimeLimit) as told:
        run_workload(f"{program}:main", seconds=1.5, preempt=preempt)
    assert str(told.value).startswith("the time limit of 1.5 s is over")
    main, loop = told.value.goroutines
    assert main.startswith("goroutine 1 [main]: sleep, at ")
    assert loop.startswith(f"goroutine 2 [loop]: running, at {program}:")


def test_the_command_ends_the_article_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Arrow has no wheel for this Python")
    program = tmp_path / "article.py"
    program.write_text(
        "from reference_runtime import go, sleep\n"
        "async def loop():\n"
        "    u = 0\n"
        "    while u != 1:\n"
        "        u -= 2\n"
        "async def main():\n"
        "    go(loop())\n"
        "    await sleep(1_000_000)\n"
        "    return {'policy': 'mine', 'retake_ns': 7}\n"
    )
    command = [sys.executable, "-m", "pretake", "run", f"{program}:main", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["runtime"]["preempted_async"] >= 1
    # What main returns is one field, whatever it is.
    assert told["result"] == {"policy": "mine", "retake_ns": 7}
    assert told["policy"] == "sysmon"
    assert told["retake_ns"]["count"] == 0
    done = subprocess.run(
        [*command, "--preempt", "cooperative", "--seconds", "1.5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fatal error: the time limit of 1.5 s is over (--seconds)\n")
    assert "goroutine 2 [loop]: running" in done.stderr
