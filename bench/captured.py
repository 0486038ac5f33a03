"""Captures that the benchmarks of the analysis make: a command into a trace, quiet or loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LOADS", "PRETAKE", "record", "under"]

PRETAKE = str(Path(sys.executable).parent / "pretake")

LOADS = ("quiet", "loaded")
"""``quiet``: the benchmark starts nothing beside it; ``loaded``: a busy loop for each CPU."""

_BUSY = "while True: pass"


def record(
    trace: Path,
    command: tuple[str, ...],
    *around: str,
    environment: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> Path:
    """Record a command.

    Args:
        trace: where to.
        command: with its arguments.
        around: a command that runs the capture.
        environment: variables to add.
        options: of ``pretake record``.

    Raises:
        subprocess.CalledProcessError: the capture or the command failed.
    """
    words = (PRETAKE, "record", "--quiet", "--force", *options, "-o", str(trace), "--", *command)
    subprocess.run(
        (*around, *words),
        check=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
    )
    return trace


@contextmanager
def under(load: str) -> Iterator[None]:
    """Under one of :data:`LOADS`; the loops end with this process at the latest."""
    count = (os.cpu_count() or 1) if load == "loaded" else 0
    loops = [
        subprocess.Popen(("setpriv", "--pdeathsig", "KILL", sys.executable, "-c", _BUSY))
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
