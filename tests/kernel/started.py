"""What these tests start: the command, and small programs with as little around them as can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tracer.trace.reader import Trace

__all__ = ["PRETAKE", "PROGRAMS", "assert_all_accounted_for", "python", "wait_for_file"]

PRETAKE = [sys.executable, "-m", "pretake"]
PROGRAMS = Path(__file__).parent / "programs"


def python(name: str, *args: object) -> list[str]:
    """A program of the folder beside this file, without site-packages and encodings to find."""
    return [sys.executable, "-I", "-S", str(PROGRAMS / f"{name}.py"), *map(str, args)]


def assert_all_accounted_for(trace: Trace) -> None:
    """Each event that was sent is in the trace, or is counted as lost."""
    manifest = trace.manifest
    for table, sent in manifest.sent.items():
        assert (table, sent) == (table, manifest.events[table] + manifest.lost[table])


def wait_for_file(path: Path, writer: subprocess.Popen[bytes]) -> None:
    """Until ``writer``, which must not end before, has made a file."""
    while not path.exists():
        assert writer.poll() is None
        os.sched_yield()
