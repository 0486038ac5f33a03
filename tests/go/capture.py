"""A capture of one of this folder's programs, as a trace."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.go import toolchains
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.trace.reader import Trace

__all__ = ["capture", "until_events"]


def until_events(count: int) -> Callable[[Progress], None]:
    """Ends a capture as Ctrl-C does, when so many events are stored: on any machine enough."""
    ended: list[int] = []

    def tell(progress: Progress) -> None:
        if progress.events >= count and not ended:
            ended.append(progress.events)
            os.kill(os.getpid(), signal.SIGINT)

    return tell


def capture(
    output: Path,
    program: str,
    arguments: Sequence[str] = (),
    version: str = toolchains.VERSIONS[-1],
    linkage: str = "static",
    probes: str = "exact",
) -> Trace:
    """Build a program, run it under a capture to its end, and open the trace.

    By default with uprobes, whose rows are exact: how transitions are told without any is tested
    in test_probes.py.

    The test is left out where the toolchain cannot be had.
    """
    binary = toolchains.build(program, version, linkage)
    record(
        [str(binary), *arguments], output=output, options=CaptureOptions(force=True, probes=probes)
    )
    trace = Trace(output)
    assert trace.manifest.exit_status == 0
    assert trace.manifest.target.runtime == "go"
    assert trace.manifest.target.version == f"go{version}"
    assert not any(trace.manifest.lost.values())
    return trace
