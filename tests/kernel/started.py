"""What these tests start: the command, and small programs with as little around them as can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tracer.trace.reader import Trace

__all__ = ["PRETAKE", "PROGRAMS", "Started", "assert_all_accounted_for", "python", "wait_for_file"]

PRETAKE = [sys.executable, "-m", "pretake"]
PROGRAMS = Path(__file__).parent / "programs"


class Started(subprocess.Popen):  # type: ignore[type-arg] - of text or of bytes, as it is asked for
    """A program that is killed where its block ends in an error.

    Popen alone waits there until the program has ended. So a test that failed, or was left out,
    would wait for ever for one that has no end.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


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
