"""What a capture costs programs that are not captured, and what it misses without uprobes.

``python -m bench.untouched`` prints both; ``make bench-capture`` writes them with the others.
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
from collections.abc import Iterator
from pathlib import Path

from analysis.trust.probes import ProbesCompared, compare_probes
from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

__all__ = ["probes_vs_none", "stranger_ns"]

VERSIONS = ("1.19.8", "1.22.10", "1.25.5", "1.26.6", "1.27.3")
PROCS = (1, 2, 8)
_CALLS = 300
_SLICES = 20_000
"""Short, so that some of them run without an interruption, whatever else the machine does."""
_READS = "300"


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


def _compared(version: str, folder: Path) -> dict[str, float | None]:
    binary = toolchains.build("blockread", version)
    told: list[ProbesCompared] = []
    widths: list[float] = []
    for procs in PROCS:
        os.environ["GOMAXPROCS"] = str(procs)
        path = record(
            [str(binary), _READS],
            output=folder / "both.pretake",
            options=CaptureOptions(force=True, probes="both"),
        )
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


if __name__ == "__main__":
    print(json.dumps({"stranger_ns": stranger_ns(), "probes_vs_none": probes_vs_none()}, indent=2))
