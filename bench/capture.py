"""What a capture costs, beside the tools that people use today: ``make bench-capture``.

A program runs without an end and reports its speed every 50 ms. Each tool in turn is attached to
it and removed again, for some rounds. The ratio of a round compares the time with the tool to the
time just before it, in the same process. So a slow minute of the machine is not taken for the cost
of a tool, and neither is the placement of threads.

A tool that fails, and a step that fails, is null in ``bench/results/capture.json`` and has its
reason under ``failed``; the others go on, and the exit status is 1.
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
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import slices
from bench.drain import drain, start_s, sustained
from bench.parts import NO_PAIR, Cost, parts
from bench.parts import show as show_parts
from bench.rivals import TOOLS, Costs, Tool, ToolFailedError, attached, in_turns
from bench.served import SERVERS, compare_served
from bench.slices import Slice
from bench.untouched import against_go, probes_vs_none, stranger_ns
from tests.go import toolchains

PROGRAMS = Path(__file__).parent / "programs"
RESULTS = Path(__file__).parent / "results" / "capture.json"
_PIPES = {"pipes": "pipes_2p", "pipes_1p": "pipes_1p"}
NO_SLICE = "the program told no slice in the window of any round"
_STANDS_STILL_S = 10.0


@dataclass(frozen=True)
class Running:
    """A program that runs, and where it tells its speed."""

    pid: int
    told: Path


def build(program: str) -> Path:
    return toolchains.build(program, among=PROGRAMS)


@contextmanager
def running(program: str, told: Path) -> Iterator[Running]:
    """Run a program of this folder; it tells its speed into a file."""
    binary = str(build(program.removesuffix("_1p")))
    processes: list[subprocess.Popen[Any]] = []
    with told.open("w") as output:
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
            yield Running(processes[-1].pid, told)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def slow_down(
    name: str,
    program: Callable[[Path], AbstractContextManager[Running]],
    tools: Sequence[Tool],
    rounds: int,
    window_s: float,
) -> dict[str, Costs]:
    """Attach each tool to a running program, over and over.

    Args:
        name: of the program.
        program: runs it, for a file to tell its speed into.
        tools: in which order.
        rounds: how often each.
        window_s: with the tool, and before it.
    """
    costs = {tool.name: Costs() for tool in tools}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:

        @contextmanager
        def begun() -> Iterator[Running]:
            file, told = tempfile.mkstemp(dir=place)
            os.close(file)
            with program(Path(told)) as it:
                time.sleep(window_s)
                yield it

        def measure(it: Running, tool: Tool) -> None:
            before_ns = time.monotonic_ns()
            time.sleep(window_s)
            untraced_ns = time.monotonic_ns()
            with attached(tool, it.pid, Path(place)) as folder:
                begin_ns = time.monotonic_ns()
                time.sleep(window_s)
                end_ns = time.monotonic_ns()
            try:
                size = tool.bytes_per_event(folder)
            except (OSError, ValueError, KeyError) as error:
                raise ToolFailedError(f"its file cannot be read: {error}") from error
            shutil.rmtree(folder)
            cost = costs[tool.name]
            if size is not None:
                cost.bytes_per_event.append(size)
            told = _told_until(it.told, end_ns)
            without, traced = _near(told, before_ns, untraced_ns), _near(told, begin_ns, end_ns)
            pair = slices.cost_ns(without), slices.cost_ns(traced)
            if pair[0] is None or pair[1] is None:
                print(f"  {name}: {tool.name}: the program told no slice: round left out")
                return
            cost.ratios.append(pair[1] / pair[0])
            print(f"  {name}: {tool.name}: {pair[0]:.0f} ns, {cost.ratios[-1]:.3f} times")
            cpu = slices.cost_ns(without, of_cpu=True), slices.cost_ns(traced, of_cpu=True)
            if cpu[0] and cpu[1]:
                cost.cpu_ratios.append(cpu[1] / cpu[0])

        failed = in_turns(begun, tools, rounds, measure)
    for tool, cost in costs.items():
        cost.failed = failed.get(tool, None if cost.ratios else NO_SLICE)
    return costs


def _told_until(path: Path, end_ns: int) -> list[Slice]:
    """The slices up to one that ends after ``end_ns``; fewer if the program stands still."""
    last_s = time.monotonic() + _STANDS_STILL_S
    while True:
        told = slices.read(path)
        if any(each.end_ns >= end_ns for each in told) or time.monotonic() > last_s:
            return told
        time.sleep(0.01)


def _near(told: Sequence[Slice], begin_ns: int, end_ns: int) -> list[Slice]:
    """Those of a span. A tool that nearly stops the program leaves no whole slice in it."""
    return slices.whole(told, begin_ns, end_ns) or slices.overlapping(told, begin_ns, end_ns)


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
    results = Results(skipped)
    wanted = {
        name: step
        for name, step in _steps(results, chosen).items()
        if not chosen.only or any(name.startswith(only) for only in chosen.only)
    }
    run_steps(results, wanted, RESULTS)
    print("\n".join(rows(results.found)))
    print(f"written: {RESULTS}")
    if results.failed:
        sys.exit(1)


class Results:
    """What was found so far, as ``bench/results/capture.json`` has it.

    Args:
        skipped: tools that are not installed here.

    Attributes:
        found: the figures; null where one could not be measured.
        failed: why not, by step, and by ``step: tool`` or ``step: part``.
    """

    def __init__(self, skipped: Mapping[str, str]) -> None:
        self.failed: dict[str, str] = {}
        self.found: dict[str, Any] = {
            "skipped": dict(skipped),
            "failed": self.failed,
            "machine": {
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "load": os.getloadavg(),
            },
            **{name: {} for name in ("cpu", "slowdown", "slowdown_cpu", "slowdown_rounds")},
        }
        self.tools = [tool for tool in TOOLS if tool.name not in skipped]

    def add_slow_down(self, program: str, costs: Mapping[str, Costs]) -> None:
        of_cpu = {}
        if any(cost.cpu_ratios for cost in costs.values()):
            of_cpu = {tool: cost.figure(cost.cpu_ratios) for tool, cost in costs.items()}
        if program in _PIPES:
            self.found["cpu"][_PIPES[program]] = of_cpu
        of_time = {tool: cost.figure(cost.ratios) for tool, cost in costs.items()}
        self.found["slowdown"][program] = of_time
        self.found["slowdown_cpu"][program] = of_cpu
        self.found["slowdown_rounds"][program] = {n: sorted(c.ratios) for n, c in costs.items()}
        if program == "pipes":
            self.found["bytes_per_event"] = {
                tool: cost.figure(cost.bytes_per_event)
                for tool, cost in costs.items()
                if cost.bytes_per_event
            }
        self._tell(program, {tool: cost.failed for tool, cost in costs.items()})

    def add_served(self, server: str, costs: Mapping[str, Costs]) -> None:
        of_cpu = {tool: cost.figure(cost.cpu_ratios) for tool, cost in costs.items()}
        self.found["cpu"][server] = of_cpu
        self._tell(f"{server} served", {tool: cost.failed for tool, cost in costs.items()})

    def add_parts(self, costs: Mapping[str, Cost | None]) -> None:
        self.found["parts_cpu"] = {
            part: cost and dataclasses.asdict(cost) for part, cost in costs.items()
        }
        self._tell("parts", {part: None if cost else NO_PAIR for part, cost in costs.items()})

    def _tell(self, step: str, failed: Mapping[str, str | None]) -> None:
        self.failed.update({f"{step}: {name}": why for name, why in failed.items() if why})


@dataclass(frozen=True)
class Step:
    """One of the benchmark.

    Args:
        run: measures, and adds to the results.
        to: where in the results its figure stands, to be null if it fails.
    """

    run: Callable[[], None]
    to: tuple[str, ...]


def run_steps(results: Results, steps: Mapping[str, Step], path: Path) -> None:
    """Run each step, and write after each what there is."""
    path.parent.mkdir(exist_ok=True)
    for name, step in steps.items():
        print(f"{name} ...", flush=True)
        try:
            step.run()
        except Exception as error:  # a step that fails must not take the others with it
            traceback.print_exc()  # what the file has does not say where
            results.failed[name] = f"{type(error).__name__}: {error}"
            print(f"  failed: {results.failed[name]}", flush=True)
            *above, last = step.to
            place = results.found
            for key in above:
                place = place.setdefault(key, {})
            place[last] = None
        path.write_text(json.dumps(results.found, indent=2) + "\n")


def _steps(results: Results, chosen: argparse.Namespace) -> dict[str, Step]:
    """All of them. What is asked most comes first."""
    few = [tool for tool in results.tools if not tool.name.startswith("pretake ")]

    def told(key: str, measure: Callable[[], object]) -> Step:
        return Step(lambda: results.found.update({key: measure()}), (key,))

    def slowed(name: str) -> Step:
        def run() -> None:
            program = partial(running, name)
            costs = slow_down(name, program, results.tools, chosen.rounds, chosen.window)
            results.add_slow_down(name, costs)

        return Step(run, ("slowdown", name))

    def served(name: str) -> Step:
        def run() -> None:
            costs = compare_served(name, few, chosen.rounds, 3 * chosen.window)
            results.add_served(name, costs)

        return Step(run, ("cpu", name))

    def in_parts() -> None:
        costs = parts(2 * chosen.rounds, chosen.window / 3)
        show_parts(costs)
        results.add_parts(costs)

    return {
        "start": told("start_s", _start_s),
        "stranger": told("stranger_ns", stranger_ns),
        "probes": told("probes_vs_none", probes_vs_none),
        "witness": told("against_go", against_go),
        **{program: slowed(program) for program in ("pipes", "pipes_1p", "http")},
        **{f"{name} served": served(name) for name in SERVERS},
        "parts": Step(in_parts, ("parts_cpu",)),
        "drain": told("drain", lambda: drain(build("calls"))),
        "sustained": told(
            "sustained", lambda: sustained(build("calls"), chosen.rate, chosen.seconds)
        ),
    }


def _start_s() -> float:
    start_s()  # compiles the programs, if that was not done before
    return statistics.median(start_s() for _ in range(9))


def rows(found: Mapping[str, Any]) -> Iterator[str]:
    """The results as lines for people."""
    failed: Mapping[str, str] = found["failed"]
    for program, ratios in found["slowdown"].items():
        for name, ratio in (ratios or {}).items():
            each = found["slowdown_rounds"][program][name]
            about = [f"{each[0]:.2f}-{each[-1]:.2f}"] if each else []
            told = "not measured" if ratio is None else f"{ratio:6.2f} times"
            why = failed.get(f"{program}: {name}")
            if why is not None:
                told = f"{told}: {why}"
                about = [f"until then {each[0]:.2f}-{each[-1]:.2f}"] if each else []
            yield f"{program:8} {name:24} {told}" + "".join(f" ({words})" for words in about)
    steps = {cpu: step for step, cpu in _PIPES.items()}
    for program, ratios in found["cpu"].items():
        for name, ratio in (ratios or {}).items():
            told = "not measured" if ratio is None else f"{ratio:6.3f} times"
            step = steps.get(program, f"{program} served")
            why = failed.get(f"{step}: {name}")
            told += f": {why}" if why else " its CPU time for each answer"
            yield f"{program:8} {name:24} {told}"
    for step, why in failed.items():
        if ": " not in step:
            yield f"{step:33} not measured: {why}"
    for key in (
        *("stranger_ns", "probes_vs_none", "against_go", "drain", "sustained"),
        *("bytes_per_event", "start_s", "failed"),
    ):
        if key in found:
            yield f"{key}: {json.dumps(found[key])}"


if __name__ == "__main__":
    main()
