"""The discussion's idea in real Go: every way to retake P, beside each other, in one run.

``python -m bench.retake_go`` builds the programs of ``bench/go`` with the overlay of
``bench/go/retake`` for each Go version, and runs each workload in each way, in turns; then
Debian's etcd (:mod:`bench.retake_etcd`). The figures are:

- by the programs' own clocks: p50 and p99 of the waiting time, and operations per second;
- by the kernel's count for the process: CPU time, and how often a thread gave up its CPU and was
  woken again;
- by a capture of a run of its own, without probes: the P-retake latency, and the handoffs that a
  call did not need;
- what ``pretake whatif`` predicts for the other ways from the capture under ``sysmon``.

Needs root; takes some half an hour on two CPUs. The figures go to
``bench/results/retake_go.json``.

Absolute times are this machine's. What compares is a way beside ``sysmon`` in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import LoadedTrace, load
from analysis.units import duration_text
from bench import results, retake_etcd
from bench.go.retake.build import build
from bench.go.retake.real import build_gvisor
from pretake.commands.whatif import play
from tests.go import toolchains
from tracer.capture.launch import RESULT_VARIABLE
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.errors import PretakeError

VERSIONS = ("1.25.5", "1.27.3")
"""One that has _Psyscall, and one that has not."""
PROGRAMS = Path(__file__).parent / "go"
GODEBUG_WAYS = ("sysmon", "schedout", "schedrun", "threadstate")
CALLS = ("fifo", "flock", "fsync", "warm", "cold", "cgo", "short", "storm", "http")
NOT_CAPTURED = ("warm", "short", "storm", "block", "raw")
"""Where P is not retaken, or a call's length is not the question."""
PREDICTED = {"schedout": "sched_out", "threadstate": "thread_state", "block": "block"}
"""What whatif calls a way."""
PAGE = Path(__file__).parent.parent / "docs" / "retake-in-go.md"
MADE = ("<!-- The table is written by make bench-go. -->", "<!-- End of the table. -->")
FIGURES = ("p50_ns", "p99_ns", "ops_per_s", "cpu_s", "cpu_us_per_op", "wakeups_per_op")


@dataclass(frozen=True)
class Workload:
    """One program with its arguments.

    Args:
        name: as the figures have it.
        program: ``netstack``, ``gvisor`` or ``calls``.
        procs: GOMAXPROCS.
        arguments: by way: of the program.
    """

    name: str
    program: str
    procs: int
    arguments: dict[str, Sequence[str]] = field(default_factory=dict)

    def binary(self, way: str, programs: dict[str, Path]) -> Path:
        """What runs it in a way; gVisor has its hint in a program of its own."""
        hinted = self.program == "gvisor" and way == "block"
        return programs["gvisor-hint" if hinted else self.program]


def workloads(rounds: int, seconds: float) -> list[Workload]:
    """All of them; a way of netstack that is a call's own (block, raw) runs under sysmon."""
    found = []
    for procs in (1, 2, 4):
        for busy in (0, 1):
            hows = dict.fromkeys(GODEBUG_WAYS, "normal") | {"block": "block", "raw": "raw"}
            # Beside a goroutine that computes, a round trip takes some of its 10 ms slices.
            trips = str(rounds // 10 if busy else rounds)
            arguments = {way: (how, trips, str(busy)) for way, how in hows.items()}
            name = f"netstack-{procs}p" + ("-busy" if busy else "")
            found.append(Workload(name, "netstack", procs, arguments))
            words = dict.fromkeys((*GODEBUG_WAYS, "block"), (trips, str(busy)))
            found.append(Workload(name.replace("netstack", "gvisor"), "gvisor", procs, words))
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
    for name in ("gvisor", "gvisor-hint"):
        programs[name] = folder / f"{name}-{version}"
        build_gvisor(version, programs[name], hint=name == "gvisor-hint")
    return programs


def environment_of(workload: Workload, way: str) -> dict[str, str]:
    """GOMAXPROCS, and how the runtime retakes."""
    how = way if way in GODEBUG_WAYS else "sysmon"
    return {"GOMAXPROCS": str(workload.procs), "GODEBUG": f"retake={how}"}


def alone(program: Path, workload: Workload, way: str, folder: Path) -> dict[str, Any]:
    """The figures of one run that nobody traces."""
    result = folder / "result.json"
    environment = os.environ | environment_of(workload, way) | {RESULT_VARIABLE: str(result)}
    command = [str(program), *workload.arguments[way]]
    if workload.program == "calls":
        command.append(str(folder))
    begin = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        output = running.stdout.read()
        # Not Popen's own wait: the kernel's counts come with the end of the process only.
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    took = time.monotonic() - begin
    told = json.loads(output or result.read_text())
    if workload.program == "netstack":
        told["ops_per_s"] = told["round_trips"] / took
    told["cpu_s"] = used.ru_utime + used.ru_stime
    made = max(told["ops_per_s"] * took, 1)
    told["cpu_us_per_op"] = told["cpu_s"] / made * 1e6
    told["wakeups_per_op"] = used.ru_nvcsw / made
    return {name: told[name] for name in FIGURES} | {"reader": told.get("reader")}


@contextlib.contextmanager
def surroundings(variables: dict[str, str]) -> Iterator[None]:
    """This process's environment with some variables, for a target that it starts."""
    saved = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def traced(program: Path, workload: Workload, way: str, folder: Path) -> dict[str, Any]:
    """What a capture tells of a run; all null where none is made."""
    if way in NOT_CAPTURED or workload.name.startswith(NOT_CAPTURED):
        return {"retake_p50_ns": None, "needless": None, "episodes": None}
    with surroundings(environment_of(workload, way)):
        path = record(
            [str(program), *workload.arguments[way]],
            output=folder / "t.pretake",
            options=CaptureOptions(force=True),
        )
    trace = load(path)
    episodes = trace.episodes()
    told: dict[str, Any] = {
        "retake_p50_ns": trace.summary()["retake_ns"]["p50"],
        "needless": int((episodes["class"] == "needless").sum()),
        "episodes": len(episodes),
    }
    if way == "sysmon":
        told["predicted"] = predicted(trace)
    return told


def predicted(trace: LoadedTrace) -> dict[str, float | None] | None:
    """P-retake latency p50 by way, as whatif has it; null where that does not tell it."""
    try:
        rows = trace.whatif(list(PREDICTED.values()), play, limit=4000)
    except PretakeError:
        return None
    by_policy = dict(zip(rows["policy"], rows["retake_p50_ns"], strict=True))
    found = {way: by_policy.get(policy) for way, policy in PREDICTED.items()}
    return {way: None if pd.isna(ns) else float(ns) for way, ns in found.items()}


def tell(version: str, workload: str, ways: dict[str, Any]) -> None:
    """A line for each way."""
    for way, row in ways.items():
        print(
            f"{version:8} {workload:16} {way:12} p50 {row['p50_ns'] / 1e3:9.1f} µs  "
            f"p99 {row['p99_ns'] / 1e3:10.1f} µs  {row['ops_per_s']:11.1f}/s  "
            f"CPU {row['cpu_us_per_op']:8.2f} µs/op  "
            f"wake-ups {row['wakeups_per_op']:6.2f}/op  "
            f"retake p50 {row['retake_p50_ns']} ns  needless {row['needless']}",
            flush=True,
        )


def measure(version: str, programs: dict[str, Path], asked: argparse.Namespace) -> dict[str, Any]:
    """Every workload in every way, the ways by turns."""
    told: dict[str, Any] = {}
    for workload in workloads(asked.rounds, asked.seconds):
        if asked.only and not workload.name.startswith(tuple(asked.only)):
            continue
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in workload.arguments}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for _ in range(asked.repeat):
                for way, kept in runs.items():
                    kept.append(alone(workload.binary(way, programs), workload, way, folder))
            told[workload.name] = {
                way: {figure: statistics.median(run[figure] for run in kept) for figure in FIGURES}
                | {"reader": kept[-1]["reader"]}
                | traced(workload.binary(way, programs), workload, way, folder)
                for way, kept in runs.items()
            }
        tell(version, workload.name, told[workload.name])
    if not asked.only or retake_etcd.NAME.startswith(tuple(asked.only)):
        ways = retake_etcd.measure(version, GODEBUG_WAYS)
        told |= {retake_etcd.NAME: ways} if ways else {}
        tell(version, retake_etcd.NAME, ways)
    return told


HEADS = (
    "workload",
    "way",
    "p50",
    "p99",
    "a second",
    "CPU / op",
    "wake-ups / op",
    "retake p50",
    "predicted",
    "needless",
)


def table(figures: dict[str, Any]) -> str:
    """The page's table: each way beside the others."""
    lines = []
    for version, told in figures.items():
        lines += [f"### Go {version}", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
        for workload, ways in told.items():
            foreseen = ways.get("sysmon", {}).get("predicted") or {}
            for way, row in ways.items():
                cells = [
                    workload,
                    way,
                    duration_text(row["p50_ns"]),
                    duration_text(row["p99_ns"]),
                    f"{row['ops_per_s']:,.0f}",
                    f"{row['cpu_us_per_op']:,.1f} µs",
                    f"{row['wakeups_per_op']:,.2f}",
                    *(
                        "–" if ns is None else duration_text(ns)
                        for ns in (row["retake_p50_ns"], foreseen.get(way))
                    ),
                    "–" if row["needless"] is None else str(row["needless"]),
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
    parser.add_argument("--rounds", type=int, default=2_000, help="round trips of netstack")
    parser.add_argument(
        "--seconds", type=float, default=0.4, help="how long each call workload runs"
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
