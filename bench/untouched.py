"""What a capture costs programs that are not captured, and what it misses without uprobes.

``python -m bench.untouched`` prints it; ``make bench-capture`` writes it with the other figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from analysis.trust.probes import ProbesCompared, compare_probes
from analysis.trust.witness import check
from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

__all__ = ["against_go", "probes_vs_none", "stranger_ns"]

VERSIONS = ("1.19.8", "1.22.10", "1.25.5", "1.26.6", "1.27.3")
PROCS = (1, 2, 8)
_CALLS = 300
_SLICES = 20_000
"""Short, so that some of them run without an interruption, whatever else the machine does."""
_READS = "300"

OWN_VERSIONS = VERSIONS[1:]
"""Go 1.22 brought the trace format that tells of a P that was taken."""
OWN_READS = {1: "250", 3: "400"}
"""By the number of Ps: with three, a read in four loses its P."""
_OWN_RUNS = 2


@contextlib.contextmanager
def _capture() -> Iterator[None]:
    """A capture of a program that sleeps."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        pretake = [sys.executable, "-m", "pretake", "record", "-q", "-o", f"{place}/x.pretake"]
        with subprocess.Popen([*pretake, "--", "sh", "-c", "echo; sleep 1000"],
                              stdout=subprocess.PIPE) as tracer:  # fmt: skip
            assert tracer.stdout is not None
            tracer.stdout.readline()
            try:
                yield
            finally:
                tracer.terminate()
                tracer.wait()


def _call_ns() -> float:
    """Time of a system call that does next to nothing, in the fastest of many short slices."""
    return min(timeit.repeat(os.getppid, number=_CALLS, repeat=_SLICES)) / _CALLS * 1e9


def stranger_ns() -> dict[str, float]:
    """A system call of a process that is no target: without a capture, and while one runs."""
    without, captured = [], []
    for _ in range(3):
        without.append(_call_ns())
        with _capture():
            captured.append(_call_ns())
    return {"without": min(without), "with": min(captured)}


def _recorded(command: Sequence[str], procs: int, probes: str, folder: Path) -> Path:
    """A capture of a program with so many Ps; the next steps have a number of their own."""
    with patch.dict(os.environ, GOMAXPROCS=str(procs)):
        return record(
            command,
            output=folder / f"{probes}.pretake",
            options=CaptureOptions(force=True, probes=probes),
        )


def _compared(version: str, folder: Path) -> dict[str, float | None]:
    binary = toolchains.build("blockread", version)
    told: list[ProbesCompared] = []
    widths: list[float] = []
    for procs in PROCS:
        path = _recorded([str(binary), _READS], procs, "both", folder)
        told.append(compare_probes(Trace(path)))
        width = told[-1].interval_p50_ns
        widths += [width] if width is not None else []
    matched = sum(each.matched for each in told)
    exact, inferred = sum(each.exact for each in told), sum(each.inferred for each in told)
    return {
        "recall": matched / exact if exact else None,
        "precision": matched / inferred if inferred else None,
        "inside": sum(each.inside_count for each in told) / matched if matched else None,
        "interval_p50_ns": statistics.median(widths) if widths else None,
    }


def probes_vs_none() -> dict[str, dict[str, float | None]]:
    """Retakes told without uprobes against those by uprobes, by version of Go."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        return {version: _compared(version, Path(place)) for version in VERSIONS}


def _beside_go(version: str, probes: str, folder: Path) -> dict[str, float | None]:
    binary, own = toolchains.build("selftrace", version), folder / "go.trace"
    records = episodes = matched = 0
    for procs, reads in OWN_READS.items():
        for _ in range(_OWN_RUNS):
            path = _recorded([str(binary), reads, str(own)], procs, probes, folder)
            told = check(Trace(path), own)
            records += told["records"]
            episodes += told["episodes"]
            matched += told["matched"]
    return {
        "recall": matched / records if records else None,
        "precision": matched / episodes if episodes else None,
        "records": records,
    }


def against_go() -> dict[str, dict[str, dict[str, float | None]]]:
    """Retakes against those of Go's own execution trace: by version, without uprobes and with."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        return {
            version: {ways: _beside_go(version, ways, Path(place)) for ways in ("none", "exact")}
            for version in OWN_VERSIONS
        }


if __name__ == "__main__":
    told = {
        "stranger_ns": stranger_ns(),
        "probes_vs_none": probes_vs_none(),
        "against_go": against_go(),
    }
    print(json.dumps(told, indent=2))
