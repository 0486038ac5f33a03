"""A tool or a step of ``make bench-capture`` that fails takes no other one with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import slices
from bench.capture import Results, Running, Step, rows, run_steps, slow_down
from bench.parts import NO_PAIR, Cost
from bench.rivals import Costs, Tool, ToolFailedError, in_turns

_TOLD = """
import time
begin = time.monotonic_ns()
while True:
    time.sleep(0.001)
    end = time.monotonic_ns()
    print(begin, end, 10, 5_000, flush=True)
    begin = end
"""


def stand_in(name: str, script: str, end_s: float = 120) -> Tool:
    """A tool of a few lines of sh, in the folder that it may write into."""
    return Tool(
        name,
        "sh",
        lambda _, folder: ["sh", "-c", f"cd {folder}; {script}"],
        ready=lambda folder: (folder / "ready").exists(),
        settle_s=0,
        end_s=end_s,
    )


# A shell that waits for a child of its own answers a signal only when that one has ended.
ENDS = stand_in("ends", "trap 'exit 0' INT; touch ready; while :; do sleep 0.01; done")
NEVER_ENDS = stand_in("never ends", "trap '' INT; touch ready; exec sleep 1000000", end_s=0)
ENDS_BY_ITSELF = stand_in("breaks", "echo one; echo no such option; exit 3")


@pytest.fixture(autouse=True)
def no_wait_for_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.rivals._AFTER_PROGRAM_S", 0.0)


@contextmanager
def telling(told: Path) -> Iterator[Running]:
    with told.open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", _TOLD], stdout=output)
    try:
        while not slices.read(told):
            os.sched_yield()
        yield Running(process.pid, told)
    finally:
        process.kill()
        process.wait()


def test_a_tool_that_does_not_end_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    start = Tool.start

    def remember(tool: Tool, pid: int, folder: Path) -> subprocess.Popen[bytes]:
        process = start(tool, pid, folder)
        started.append((tool.name, pid, process))
        return process

    monkeypatch.setattr(Tool, "start", remember)
    costs = slow_down("stand-in", telling, [ENDS, NEVER_ENDS, ENDS_BY_ITSELF], 3, 0.05)
    assert {tool: cost.failed for tool, cost in costs.items()} == {
        "ends": None,
        "never ends": "did not end within 0 s of Ctrl-C",
        "breaks": "ended by itself: one; no such option",
    }
    assert {tool: len(cost.ratios) for tool, cost in costs.items()} == {
        "ends": 3,
        "never ends": 0,
        "breaks": 0,
    }
    # One that failed is not tried again, and the program that it was attached to has ended.
    names = ["ends", "never ends", "breaks", "ends", "ends"]
    assert [name for name, _, _ in started] == names
    first, second, third = (started[i][1] for i in (0, 2, 3))
    assert [pid for _, pid, _ in started] == [first, first, second, third, third]
    assert len({first, second, third}) == 3
    # By SIGKILL, as nothing else ends it; by its pid, and nothing of it is left.
    assert started[1][2].returncode == -9
    assert not Path(f"/proc/{started[1][2].pid}").exists()


def test_a_tool_that_waits_for_its_program_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a capture with uprobes does: by itself, so that it can take its probes away."""
    monkeypatch.setattr("bench.rivals._AFTER_PROGRAM_S", 120.0)
    reader, writer = os.pipe()

    @contextmanager
    def program() -> Iterator[None]:
        yield
        os.write(writer, b"the program ended\n")

    def measure(*_: object) -> None:
        process = subprocess.Popen(
            ["sh", "-c", "read line; echo $line > left"], stdin=reader, cwd=tmp_path
        )
        raise ToolFailedError("did not end", process)

    assert in_turns(program, [ENDS], 1, measure) == {"ends": "did not end"}
    assert (tmp_path / "left").read_text() == "the program ended\n"
    os.close(reader)
    os.close(writer)


def test_what_could_not_be_measured_is_null_with_its_reason(tmp_path: Path) -> None:
    results = Results({})
    slow = {
        "pretake": Costs([1.2, 1.3, 1.1], [1.25, 1.0, 1.5]),
        "exact": Costs([2.5], [2.5], failed="did not end within 120 s of Ctrl-C"),
    }
    of_parts = {
        "everything": Cost(1.4, 1.3, 1.5, 900.0, pairs=5, left_out=1),
        "no stacks": None,
    }

    def fails() -> None:
        raise OSError("no room on the disk")

    steps = {
        "pipes": Step(lambda: results.add_slow_down("pipes", slow), ("slowdown", "pipes")),
        "http": Step(fails, ("slowdown", "http")),
        "etcd served": Step(fails, ("cpu", "etcd")),
        "caddy served": Step(lambda: results.add_served("caddy", slow), ("cpu", "caddy")),
        "drain": Step(fails, ("drain",)),
        "parts": Step(lambda: results.add_parts(of_parts), ("parts_cpu",)),
    }
    run_steps(results, steps, tmp_path / "new" / "capture.json")
    told = json.loads((tmp_path / "new" / "capture.json").read_text())
    never = "did not end within 120 s of Ctrl-C"
    assert (
        told["failed"]
        == results.failed
        == {
            "pipes: exact": never,
            "http": "OSError: no room on the disk",
            "etcd served": "OSError: no room on the disk",
            "caddy served: exact": never,
            "drain": "OSError: no room on the disk",
            "parts: no stacks": NO_PAIR,
        }
    )
    assert told["slowdown"] == {"pipes": {"pretake": 1.2, "exact": None}, "http": None}
    assert told["slowdown_rounds"]["pipes"] == {"pretake": [1.1, 1.2, 1.3], "exact": [2.5]}
    expected = {"pretake": 1.25, "exact": None}
    assert told["cpu"] == {"pipes_2p": expected, "etcd": None, "caddy": expected}
    assert told["drain"] is None
    assert told["parts_cpu"]["no stacks"] is None
    assert told["parts_cpu"]["everything"]["left_out"] == 1
    lines = [" ".join(row.split()) for row in rows(told)]
    assert lines[:9] == [
        "pipes pretake 1.20 times (1.10-1.30)",
        f"pipes exact not measured: {never} (until then 2.50-2.50)",
        "pipes_2p pretake 1.250 times its CPU time for each answer",
        f"pipes_2p exact not measured: {never}",
        "caddy pretake 1.250 times its CPU time for each answer",
        f"caddy exact not measured: {never}",
        "http not measured: OSError: no room on the disk",
        "etcd served not measured: OSError: no room on the disk",
        "drain not measured: OSError: no room on the disk",
    ]
