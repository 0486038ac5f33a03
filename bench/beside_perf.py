"""``pretake summary`` beside ``perf sched latency``, on what both recorded of one run.

Both record at once: ``perf sched record`` runs ``pretake record``, which runs the blocking pipes
of this folder. In turns they would not do, because the switches of a second differ from run to run
by more than the two analyses do. Each capture slows the program down for the other one, and that
makes no analysis of a file dearer or cheaper.

The files are not alike: perf's has the switches of the whole machine, pretake's those of the
program with its blocks, calls and Ps. So the times are told as they are, which is what a user
waits for, and by events too.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.captured import PRETAKE, record
from tests.go import toolchains

__all__ = ["Took", "compared", "lost", "perf", "row"]

PROGRAMS = Path(__file__).parent / "programs"
EVENTS = 10_000_000
"""Of pretake's trace, about; a tenth of it in the short form."""
LOADS = {"pipes_2p": 2, "pipes_1p": 1}
"""The pipes with so many Ps, as in ``bench/results/capture.json``."""
PAIRS = 7
_TRIAL_S = 2.0
_MOST_S = 120.0
PERF, SUMMARY = "perf sched latency", "pretake summary"


@dataclass(frozen=True)
class Took:
    """One run of a command: user and system time, and time by the wall."""

    cpu_s: float
    wall_s: float


def perf(folder: Path, short: bool) -> dict[str, Any]:
    """Record each of :data:`LOADS`, then run both on it in turns.

    Raises:
        SystemExit: perf is not installed.
    """
    if shutil.which("perf") is None:
        sys.exit("bench.analysis: perf is not installed: apt-get install linux-perf")
    events = EVENTS // 10 if short else EVENTS
    found = {}
    for load, procs in LOADS.items():
        trial = _events(_record(folder, procs, _TRIAL_S)[0])
        seconds = min(_MOST_S, max(1.0, _TRIAL_S * events / max(trial, 1)))
        found[load] = _compare(*_record(folder, procs, seconds))
        print(f"{load}: {row(found[load])}", flush=True)
    return {"beside_perf": found}


def _compare(trace: Path, data: Path) -> dict[str, Any]:
    commands = {
        SUMMARY: (PRETAKE, "summary", str(trace)),
        PERF: ("perf", "sched", "latency", "-i", str(data)),
    }
    # Once before it counts: so both read from the page cache.
    told = {name: _run(command)[1] for name, command in commands.items()}
    took: dict[str, list[Took]] = {name: [] for name in commands}
    for turn in range(PAIRS):
        for name in sorted(commands, reverse=turn % 2 == 1):
            took[name].append(_run(commands[name])[0])
    manifest = json.loads((trace / "manifest.json").read_text())
    return {
        "recorded": "both at once",
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()},
        **compared(took, {SUMMARY: _events(trace), PERF: _samples(data)}),
        "lost": {SUMMARY: sum(manifest["lost"].values()), PERF: lost(told[PERF])},
        "bytes": {
            SUMMARY: sum(file.stat().st_size for file in trace.rglob("*") if file.is_file()),
            PERF: data.stat().st_size,
        },
    }


def compared(took: Mapping[str, Sequence[Took]], events: Mapping[str, int]) -> dict[str, Any]:
    """The medians of both, and of the ratios of the pairs: pretake's time by perf's.

    Args:
        took: for each command its runs, in turns.
        events: for each command the events of its file.
    """
    pairs = list(zip(took[SUMMARY], took[PERF], strict=True))
    cpu = [one.cpu_s / other.cpu_s for one, other in pairs]
    wall = [one.wall_s / other.wall_s for one, other in pairs]
    cpu_s = {name: statistics.median(run.cpu_s for run in runs) for name, runs in took.items()}
    by_event = events[PERF] / events[SUMMARY]
    return {
        "events": dict(events),
        "cpu_s": {name: round(seconds, 3) for name, seconds in cpu_s.items()},
        "wall_s": {
            name: round(statistics.median(run.wall_s for run in runs), 3)
            for name, runs in took.items()
        },
        "cpu_ns_per_event": {
            name: round(seconds / events[name] * 1e9, 1) for name, seconds in cpu_s.items()
        },
        "pairs": len(pairs),
        "summary_to_perf": {
            "cpu": round(statistics.median(cpu), 3),
            "cpu_least": round(min(cpu), 3),
            "cpu_most": round(max(cpu), 3),
            "wall": round(statistics.median(wall), 3),
            "cpu_per_event": round(statistics.median(cpu) * by_event, 3),
        },
    }


def row(found: Mapping[str, Any]) -> str:
    """What was found, as a line for people."""
    ratio = found["summary_to_perf"]
    files = ", ".join(
        f"{name} of {found['events'][name]:,} events: {found['cpu_s'][name]:.2f} s of CPU time, "
        f"{found['wall_s'][name]:.2f} s"
        for name in (SUMMARY, PERF)
    )
    return (
        f"{files}; {ratio['cpu']:.2f} times perf's CPU time "
        f"({ratio['cpu_least']:.2f}-{ratio['cpu_most']:.2f}, {found['pairs']} pairs), "
        f"{ratio['wall']:.2f} by the wall, {ratio['cpu_per_event']:.2f} by events"
    )


def _record(folder: Path, procs: int, seconds: float) -> tuple[Path, Path]:
    """A trace and perf's file of one run of the pipes."""
    pipes = str(toolchains.build("pipes", among=PROGRAMS))
    data = folder / "same.perf.data"
    # Large buffers, so that perf loses little.
    around = ("perf", "sched", "record", "-q", "-m", "16M", "-o", str(data), "--")
    # On one CPU, where each read switches to the other side; the tracers have the others.
    run = 'timeout "$0" taskset -c 0 "$1"; true'
    command = ("sh", "-c", run, f"{seconds:.1f}", pipes)
    environment = {"GOMAXPROCS": str(procs)}
    return record(folder / "same.pretake", command, *around, environment=environment), data


def _run(command: Sequence[str]) -> tuple[Took, str]:
    """How long it took, and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin_s = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall_s = time.perf_counter() - begin_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(cpu_s, wall_s), done.stdout


def _events(trace: Path) -> int:
    manifest = json.loads((trace / "manifest.json").read_text())
    return sum(manifest["events"].values())


def _samples(data: Path) -> int:
    command = ("perf", "report", "--stats", "-i", str(data))
    stats = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(re.findall(r"SAMPLE events:\s+(\d+)", stats)[0])


def lost(told: str) -> int:
    """Samples that perf lost, as ``perf sched latency`` tells; it is silent if there are none."""
    return sum(map(int, re.findall(r"lost events \((\d+) out of", told)))
