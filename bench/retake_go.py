"""The discussion's idea in real Go: every way to retake P, beside each other, in one run.

``python -m bench.retake_go`` builds the programs of ``bench/go`` with the overlay of
``bench/go/retake`` for each Go version, and runs each workload in each way, the ways by turns.
Told are, by the programs' own clocks, p50 and p99 of what somebody waited, operations a second and
CPU time; and by a capture of a run of its own, the P-retake latency and the handoffs that a call
did not need. Needs root. The figures go to ``bench/results/retake_go.json``.

Absolute times are this machine's. What compares is a way beside ``sysmon`` in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis import load
from analysis.units import duration_text
from bench import results
from bench.go.retake.build import build
from tests.go import toolchains
from tracer.capture.launch import RESULT_VARIABLE
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

VERSIONS = ("1.25.5", "1.27.3")
"""One that has _Psyscall, and one that has not."""
PROGRAMS = Path(__file__).parent / "go"
GODEBUG_WAYS = ("sysmon", "schedout", "threadstate")
CALLS = ("fifo", "flock", "fsync", "warm", "cold", "cgo", "short", "http")
PAGE = Path(__file__).parent.parent / "docs" / "retake-in-go.md"
MADE = ("<!-- The table is written by make bench-go. -->", "<!-- End of the table. -->")
FIGURES = ("p50_ns", "p99_ns", "ops_per_s", "cpu_s")


@dataclass(frozen=True)
class Workload:
    """One program with its arguments.

    Args:
        name: as the figures have it.
        program: ``netstack`` or ``calls``.
        procs: GOMAXPROCS.
        arguments: by way: of the program.
    """

    name: str
    program: str
    procs: int
    arguments: dict[str, Sequence[str]] = field(default_factory=dict)


def workloads(rounds: int, seconds: float) -> list[Workload]:
    """All of them; a way of netstack that is a call's own (block, raw) runs under sysmon."""
    found = []
    for procs in (1, 2, 4):
        for busy in (0, 1):
            hows = dict.fromkeys(GODEBUG_WAYS, "normal") | {"block": "block", "raw": "raw"}
            # Beside a goroutine that computes, a round trip takes some of its 10 ms slices.
            trips = str(rounds // 20 if busy else rounds)
            arguments = {way: (how, trips, str(busy)) for way, how in hows.items()}
            name = f"netstack-{procs}p" + ("-busy" if busy else "")
            found.append(Workload(name, "netstack", procs, arguments))
    for kind in CALLS:
        for procs in (1, 2):
            words = {way: (kind, str(seconds)) for way in GODEBUG_WAYS}
            found.append(Workload(f"{kind}-{procs}p", "calls", procs, words))
    return found


def built(version: str, folder: Path) -> dict[str, Path]:
    """The programs of one version."""
    goroot = toolchains.goroot(version)
    environment = toolchains.environment(version) | {"CGO_ENABLED": "1"}
    programs = {}
    for name, source, tags in (
        ("netstack", PROGRAMS / "netstack", ""),
        ("calls", PROGRAMS / "retake" / "calls", "retake"),
    ):
        programs[name] = folder / f"{name}-{version}"
        what = [str(p) for p in sorted(source.glob("*.go"))] if name == "netstack" else ["."]
        options = ["-tags", tags, "-ldflags=-checklinkname=0", "-o", str(programs[name])]
        build(goroot, [*options, *what], folder=source, environment=environment)
    return programs


def environment_of(workload: Workload, way: str) -> dict[str, str]:
    """GOMAXPROCS, and how the runtime retakes."""
    how = way if way in GODEBUG_WAYS else "sysmon"
    return {"GOMAXPROCS": str(workload.procs), "GODEBUG": f"retake={how}"}


def alone(program: Path, workload: Workload, way: str, folder: Path) -> dict[str, Any]:
    """The program's own figures of one run that nobody traces."""
    environment = os.environ | environment_of(workload, way)
    arguments = list(workload.arguments[way])
    if workload.program == "calls":
        command = [str(program), *arguments, str(folder)]
        told = json.loads(subprocess.check_output(command, env=environment, text=True))
    else:
        result = folder / "result.json"
        before = os.times()
        environment[RESULT_VARIABLE] = str(result)
        subprocess.run([str(program), *arguments], env=environment, check=True)
        after = os.times()
        told = json.loads(result.read_text())
        told["ops_per_s"] = told["round_trips"] / (after.elapsed - before.elapsed)
        told["cpu_s"] = sum(after[2:4]) - sum(before[2:4])
    return {name: told[name] for name in FIGURES} | {"reader": told.get("reader")}


def traced(program: Path, workload: Workload, way: str, folder: Path) -> dict[str, Any]:
    """What a capture tells of a run: P-retake latency, and handoffs that were not needed."""
    saved = {name: os.environ.get(name) for name in ("GODEBUG", "GOMAXPROCS")}
    os.environ |= environment_of(workload, way)
    try:
        path = record(
            [str(program), *workload.arguments[way]],
            output=folder / "t.pretake",
            options=CaptureOptions(force=True),
        )
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    trace = load(path)
    episodes = trace.episodes()
    return {
        "retake_p50_ns": trace.summary()["retake_ns"]["p50"],
        "needless": int((episodes["class"] == "needless").sum()),
        "episodes": len(episodes),
    }


def measure(version: str, programs: dict[str, Path], asked: argparse.Namespace) -> dict[str, Any]:
    """Every workload in every way, the ways by turns."""
    told: dict[str, Any] = {}
    for workload in workloads(asked.rounds, asked.seconds):
        if asked.only and not workload.name.startswith(tuple(asked.only)):
            continue
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in workload.arguments}
        program = programs[workload.program]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for _ in range(asked.repeat):
                for way, kept in runs.items():
                    kept.append(alone(program, workload, way, folder))
            told[workload.name] = {
                way: {figure: statistics.median(run[figure] for run in kept) for figure in FIGURES}
                | {"reader": kept[-1]["reader"]}
                | traced(program, workload, way, folder)
                for way, kept in runs.items()
            }
        for way, figures in told[workload.name].items():
            print(
                f"{version:8} {workload.name:16} {way:12} p50 {figures['p50_ns'] / 1e3:9.1f} µs  "
                f"p99 {figures['p99_ns'] / 1e3:10.1f} µs  {figures['ops_per_s']:11.1f}/s  "
                f"CPU {figures['cpu_s']:6.2f} s  retake p50 "
                f"{'-' if figures['retake_p50_ns'] is None else figures['retake_p50_ns']} ns  "
                f"needless {figures['needless']}",
                flush=True,
            )
    return told


def table(figures: dict[str, Any]) -> str:
    """The page's table: each way beside the others, times as p50 / p99."""
    lines = []
    for version, told in figures.items():
        lines += [f"### Go {version}", ""]
        lines += ["| workload | way | p50 | p99 | a second | CPU | retake p50 | needless |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for workload, ways in told.items():
            for way, row in ways.items():
                retake = row["retake_p50_ns"]
                cells = [
                    workload,
                    way,
                    duration_text(row["p50_ns"]),
                    duration_text(row["p99_ns"]),
                    f"{row['ops_per_s']:,.0f}",
                    f"{row['cpu_s']:.2f} s",
                    "–" if retake is None else duration_text(retake),
                    str(row["needless"]),
                ]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def document(figures: dict[str, Any]) -> None:
    """Write the table into the page."""
    machine = results.machine()
    where = f"Linux {machine['kernel']}, {machine['cpus']} CPUs"
    results.put_between(PAGE, MADE, f"{where}.\n\n{table(figures)}")


def main() -> None:
    """Build, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", nargs="*", default=VERSIONS)
    parser.add_argument("--only", nargs="*", help="workloads whose names begin so")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median is told")
    parser.add_argument("--rounds", type=int, default=10_000, help="round trips of netstack")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="how long each call workload runs"
    )
    parser.add_argument("--document", action="store_true", help="write the page's table, too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            version: measure(version, built(version, Path(folder)), asked)
            for version in asked.versions
        }
    print(f"written: {results.write('retake_go', figures)}")
    if asked.document:
        document(figures)


if __name__ == "__main__":
    main()
