"""What a capture costs, beside the tools that people use today: ``make bench-capture``.

A program runs without an end and reports its speed every 50 ms. Each tool in turn is attached to
it and removed again, for some rounds. The ratio of a round compares the time with the tool to the
time just before it, in the same process. So a slow minute of the machine is not taken for the cost
of a tool, and neither is the placement of threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.drain import drain, start_s, sustained
from bench.parts import parts
from bench.parts import show as show_parts
from bench.rivals import TOOLS, Tool, stop
from bench.served import SERVERS, compare_served
from bench.untouched import probes_vs_none, stranger_ns
from tests.go import toolchains

PROGRAMS = Path(__file__).parent / "programs"
RESULTS = Path(__file__).parent / "results" / "capture.json"
_PIPES = {"pipes": "pipes_2p", "pipes_1p": "pipes_1p"}
SETTLE_S = 2.0
"""Time for a tool to compile, load and attach."""


@dataclass
class Costs:
    """Of one tool on one program, for each round."""

    ratios: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)
    bytes_per_event: list[float] = field(default_factory=list)


def build(program: str) -> Path:
    return toolchains.build(program, among=PROGRAMS)


@contextmanager
def running(program: str, slices: Path) -> Iterator[int]:
    """Run a program that tells its speed into ``slices``; yields the pid to trace."""
    binary = str(build(program.removesuffix("_1p")))
    processes = []
    with slices.open("w") as output:
        if program == "http":
            server = subprocess.Popen([binary, "serve"], stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            load = subprocess.Popen([binary, "load", address], stdout=output)
            processes = [load, server]
        else:
            # On one CPU: there each read switches to the other side, whatever the machine does.
            # With a P for each side nonetheless: else the runtime itself is what is slow, as in
            # pipes_1p, where sysmon takes P at each turn.
            procs = os.environ | {"GOMAXPROCS": "1" if program == "pipes_1p" else "2"}
            processes = [
                subprocess.Popen(["taskset", "-c", "0", binary], stdout=output, env=procs)
            ]
        try:
            yield processes[-1].pid
        finally:
            for process in processes:
                process.kill()
                process.wait()


def cost_ns(slices: Path, begin_ns: int, end_ns: int, of_cpu: bool = False) -> float | None:
    """Time of a round trip or answer in the slices within a span: that of the fastest tenth.

    Or its CPU time, None where the program does not tell it.

    What else runs on the machine only ever makes a slice slower, and is no cost of a tool.
    """
    rows = [[int(n) for n in line.split()] for line in slices.read_text().splitlines()[:-1]]
    if of_cpu and len(rows[0]) < 4:
        return None
    told = [(row[3] if of_cpu else row[1] - row[0]) / max(row[2], 1) for row in rows]
    inside = [
        cost for cost, row in zip(told, rows, strict=True) if begin_ns <= row[0] < row[1] <= end_ns
    ]
    # A tool that nearly stops the program leaves no whole slice in the span.
    inside = inside or [
        cost for cost, row in zip(told, rows, strict=True) if row[0] < end_ns and begin_ns < row[1]
    ]
    return sorted(inside)[len(inside) // 10]


def wait_for(tool: Tool, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a tool has attached."""
    time.sleep(SETTLE_S)
    while process.poll() is None and not tool.ready(folder):
        time.sleep(0.1)
    if process.poll() is not None:
        sys.exit(f"{tool.name} ended: {(folder / 'output').read_text()}")


def slow_down(program: str, tools: list[Tool], rounds: int, window_s: float) -> dict[str, Costs]:
    """Attach each tool to one running program, over and over."""
    costs = {tool.name: Costs() for tool in tools}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        slices = Path(place) / "slices"
        spans: list[tuple[str, int, int, int, int]] = []
        with running(program, slices) as pid:
            time.sleep(1)
            for _ in range(rounds):
                for tool in tools:
                    folder = Path(place) / "tool"
                    folder.mkdir()
                    before_ns = time.monotonic_ns()
                    time.sleep(window_s)
                    untraced_ns = time.monotonic_ns()
                    process = tool.start(pid, folder)
                    wait_for(tool, process, folder)
                    begin_ns = time.monotonic_ns()
                    time.sleep(window_s)
                    end_ns = time.monotonic_ns()
                    stop(process)
                    spans.append((tool.name, before_ns, untraced_ns, begin_ns, end_ns))
                    size = tool.bytes_per_event(folder)
                    if size is not None:
                        costs[tool.name].bytes_per_event.append(size)
                    shutil.rmtree(folder)
        for name, before_ns, untraced_ns, begin_ns, end_ns in spans:
            without = cost_ns(slices, before_ns, untraced_ns)
            traced = cost_ns(slices, begin_ns, end_ns)
            assert without is not None
            assert traced is not None
            costs[name].ratios.append(traced / without)
            print(f"  {program}: {name}: {without:.0f} ns, {traced / without:.3f} times")
            cpu = [
                cost_ns(slices, *span, of_cpu=True)
                for span in ((before_ns, untraced_ns), (begin_ns, end_ns))
            ]
            if cpu[0] and cpu[1]:
                costs[name].cpu_ratios.append(cpu[1] / cpu[0])
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=1.0, metavar="S")
    parser.add_argument("--rate", type=int, default=1_050_000, help="events/s, sustained")
    parser.add_argument("--seconds", type=int, default=60, help="of the sustained capture")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="steps that begin so")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench-capture: capture needs root: run it with sudo")

    skipped = {tool.name: why for tool in TOOLS if (why := tool.missing())}
    for name, why in skipped.items():
        print(f"left out: {name}: {why}")
    tools = [tool for tool in TOOLS if tool.name not in skipped]
    results: dict[str, Any] = {
        "skipped": skipped,
        "failed": {},
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "load": os.getloadavg(),
        },
        **{name: {} for name in ("cpu", "slowdown", "slowdown_cpu", "slowdown_rounds")},
    }
    # What is asked most comes first; what was measured stays, if a later step cannot be.
    steps: dict[str, Callable[[], None]] = {
        "start": lambda: _start(results),
        "stranger": lambda: results.update(stranger_ns=stranger_ns()),
        "probes": lambda: results.update(probes_vs_none=probes_vs_none()),
        **{
            program: lambda program=program: _slow_down(results, program, tools, chosen)
            for program in ("pipes", "pipes_1p", "http")
        },
        **{
            f"{name} served": lambda name=name: _served(results, name, tools, chosen)
            for name in SERVERS
        },
        "parts": lambda: _parts(results, chosen),
        "drain": lambda: results.update(drain=drain(build("calls"))),
        "sustained": lambda: results.update(
            sustained=sustained(build("calls"), chosen.rate, chosen.seconds)
        ),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    for name, step in steps.items():
        if chosen.only and not any(name.startswith(only) for only in chosen.only):
            continue
        print(f"{name} ...", flush=True)
        try:
            step()
        except Exception as error:  # a step that fails must not take the others with it
            results["failed"][name] = f"{type(error).__name__}: {error}"
            print(f"  failed: {results['failed'][name]}")
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    if results["failed"]:
        sys.exit(1)


def _start(results: dict[str, Any]) -> None:
    start_s()  # compiles the programs, if that was not done before
    results["start_s"] = statistics.median(start_s() for _ in range(9))


def _slow_down(
    results: dict[str, Any], program: str, tools: list[Tool], chosen: argparse.Namespace
) -> None:
    costs = slow_down(program, tools, chosen.rounds, chosen.window)
    of_cpu = {
        tool: statistics.median(cost.cpu_ratios) for tool, cost in costs.items() if cost.cpu_ratios
    }
    if program in _PIPES:
        results["cpu"][_PIPES[program]] = of_cpu
    results["slowdown"][program] = {n: statistics.median(c.ratios) for n, c in costs.items()}
    results["slowdown_cpu"][program] = of_cpu
    results["slowdown_rounds"][program] = {n: sorted(c.ratios) for n, c in costs.items()}
    if program == "pipes":
        results["bytes_per_event"] = {
            name: statistics.median(cost.bytes_per_event)
            for name, cost in costs.items()
            if cost.bytes_per_event
        }


def _served(
    results: dict[str, Any], name: str, tools: list[Tool], chosen: argparse.Namespace
) -> None:
    few = [tool for tool in tools if not tool.name.startswith("pretake ")]
    results["cpu"][name] = compare_served(name, few, chosen.rounds, 3 * chosen.window)


def _parts(results: dict[str, Any], chosen: argparse.Namespace) -> None:
    costs = parts(2 * chosen.rounds, chosen.window / 3)
    results["parts_cpu"] = {name: dataclasses.asdict(cost) for name, cost in costs.items()}
    show_parts(costs)


def show(results: Mapping[str, Any]) -> None:
    """The results as lines for people."""
    for program, ratios in results["slowdown"].items():
        for name, ratio in ratios.items():
            rounds = results["slowdown_rounds"][program][name]
            print(f"{program:8} {name:24} {ratio:6.2f} times ({rounds[0]:.2f}-{rounds[-1]:.2f})")
    for program, ratios in results["cpu"].items():
        for name, ratio in ratios.items():
            print(f"{program:8} {name:24} {ratio:6.3f} times its CPU time for each answer")
    for key in (
        *("stranger_ns", "probes_vs_none", "drain", "sustained", "bytes_per_event", "start_s"),
        "failed",
    ):
        if key in results:
            print(f"{key}: {json.dumps(results[key])}")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
