"""A program that runs already: attached in the middle, left as it was."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from analysis.trust.validate import validate
from tests.go import toolchains
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.trace.reader import Trace

EVENTS = 5000
NR_READ = 0


def reading(binary: Path) -> subprocess.Popen[str]:
    """A program that reads until there is something on its input."""
    command = [str(binary), "0"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("linkage", ["static", "pie", "stripped-cgo-pie"])
def test_a_running_program_is_read_from_then_on(linkage: str, tmp_path: Path) -> None:
    binary = toolchains.build("blockread", linkage=linkage)
    with reading(binary) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        keys = program.stdin.fileno()
        typed: list[int] = []

        def seen(progress: Progress) -> None:
            """A read is some ten events."""
            if progress.events > EVENTS and not typed:
                typed.append(os.write(keys, b"x"))

        # Until the program's own end, which comes when enough was seen of it, however late the
        # capture begins on a busy machine.
        record(pid=program.pid, output=tmp_path / "t", options=CaptureOptions(), progress=seen)
        told = program.stdout.read()
    assert program.returncode == 0
    assert told.startswith("reads=")
    trace = Trace(tmp_path / "t")
    assert trace.manifest.target.version == f"go{toolchains.VERSIONS[-1]}"
    blocks, runtime = trace.frame("block"), trace.frame("runtime")
    # Elsewhere a thread may wait for a page, or for a lock of the runtime that another M has.
    blocks = blocks[blocks["nr"] == NR_READ]
    assert len(blocks) > 10
    assert set(blocks["goid"]) == {1}
    assert set(blocks["p"]) == {0}
    retakes = runtime[runtime["kind"] == "retake"]
    assert (retakes["reason"] == "sysmon").sum() > 10
    # Sysmon's thread is known from its first sleep in the capture on, and whom it gives a P once
    # that M was seen to park: until then somebody else may be told to have taken it.
    others = retakes.loc[retakes["reason"] != "sysmon", "reason"]
    assert set(others) <= {"other", "exitsyscall"}
    assert len(others) <= trace.frame("task")["tid"].nunique()
    # Its threads were dying as the capture ended, and nothing is told of what came after.
    rules = validate(trace)
    broken = rules[(rules["kind"] == "runtime") & (rules["broken"] > 0)]
    assert broken["rule"].tolist() == []


def test_a_program_goes_on_when_the_capture_ends(tmp_path: Path) -> None:
    binary = toolchains.build("blockread")
    with reading(binary) as program:
        record(pid=program.pid, output=tmp_path / "t", options=CaptureOptions(seconds=0.1))
        assert program.poll() is None
        # To its own end, where it says that both goroutines did their work.
        told, _ = program.communicate("end\n")
    assert program.returncode == 0
    assert re.fullmatch(r"reads=[1-9]\d* turns=[1-9]\d*\n", told)
