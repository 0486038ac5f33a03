"""What a capture costs one command: pairs of runs with and without a capture.

The two runs of a pair follow each other, and every second pair begins with the captured run. So a
slow change of the machine's load affects both kinds alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.capture.launch import Command
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

__all__ = ["Overhead", "measure_overhead"]

_FOREVER_S = 3600.0


@dataclass(frozen=True)
class Overhead:
    """Run times of a command in seconds, pair by pair."""

    untraced_s: tuple[float, ...]
    traced_s: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times as long each traced run took, in ascending order."""
        pairs = zip(self.traced_s, self.untraced_s, strict=True)
        return sorted(traced / untraced for traced, untraced in pairs)

    @property
    def ratio(self) -> float:
        """The median of :attr:`ratios`."""
        return statistics.median(self.ratios)


def measure_overhead(
    command: Sequence[str], options: CaptureOptions | None = None, pairs: int = 5
) -> Overhead:
    """Run a command ``2 * pairs`` times, every other time under a capture.

    Args:
        command: program and arguments. It should take seconds, and the same each time.
        options: of the captures; their traces are thrown away.
        pairs: how many.

    Returns:
        The times from the command's exec being let go to its end.

    Raises:
        PretakeError: the command cannot be run or captured.
    """
    options = dataclasses.replace(options or CaptureOptions(), force=False)
    untraced: list[float] = []
    traced: list[float] = []
    for pair in range(pairs):
        for run in range(2):
            if (pair + run) % 2 == 0:
                untraced.append(_alone(command))
            else:
                traced.append(_captured(command, options))
    return Overhead(tuple(untraced), tuple(traced))


def _alone(command: Sequence[str]) -> float:
    with contextlib.closing(Command(command)) as target:
        begin_s = time.monotonic()
        target.open_gate()
        while not target.wait(_FOREVER_S):
            pass
        return time.monotonic() - begin_s


def _captured(command: Sequence[str], options: CaptureOptions) -> float:
    with tempfile.TemporaryDirectory(prefix="pretake-") as folder:
        manifest = Trace(record(command, output=Path(folder) / "x", options=options)).manifest
    assert manifest.begin_ns is not None
    assert manifest.end_ns is not None
    return (manifest.end_ns - manifest.begin_ns) / 1e9
