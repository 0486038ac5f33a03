"""A program that runs already: attached in the middle, left as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from analysis.trust.validate import validate
from tests.go import toolchains
from tracer.capture.options import CaptureOptions, probe_defines
from tracer.capture.programs import Programs
from tracer.capture.record import record
from tracer.trace.reader import Trace


@pytest.mark.parametrize("linkage", ["static", "pie", "stripped-cgo-pie"])
def test_a_running_program_is_read_from_then_on(linkage: str, tmp_path: Path) -> None:
    binary = toolchains.build("blockread", linkage=linkage)
    # So that the program does not run while the kernel's programs are compiled.
    Programs(buffer_bytes=1 << 20, defines=probe_defines("none")).close()
    with subprocess.Popen([binary, "3000"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        # Until the program's own end, however late the capture begins on a busy machine.
        record(pid=program.pid, output=tmp_path / "t", options=CaptureOptions())
        told = program.stdout.read()
    assert program.returncode == 0
    assert told.startswith("reads=")
    trace = Trace(tmp_path / "t")
    assert trace.manifest.target.version == f"go{toolchains.VERSIONS[-1]}"
    blocks, runtime = trace.frame("block"), trace.frame("runtime")
    assert len(blocks) > 10
    assert set(blocks["goid"]) == {1}
    assert set(blocks["p"]) == {0}
    retakes = runtime[runtime["kind"] == "retake"]
    assert len(retakes) > 2
    # Sysmon's thread is known from its first sleep in the capture on: one retake may come before.
    reasons = retakes.sort_values("ts_ns")["reason"].tolist()
    assert set(reasons[1:]) == {"sysmon"}
    assert reasons[0] in {"sysmon", "other"}
    # Its threads were dying as the capture ended, and nothing is told of what came after.
    rules = validate(trace)
    broken = rules[(rules["kind"] == "runtime") & (rules["broken"] > 0)]
    assert broken["rule"].tolist() == []


def test_a_program_goes_on_when_the_capture_ends(tmp_path: Path) -> None:
    binary = toolchains.build("blockread")
    with subprocess.Popen([binary, "300"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        record(pid=program.pid, output=tmp_path / "t", options=CaptureOptions(seconds=0.1))
        # To its own end, where it says that both goroutines did their work.
        told = program.stdout.read()
    assert program.returncode == 0
    assert told.startswith("reads=300 ")
