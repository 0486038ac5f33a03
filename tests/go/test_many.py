"""Ordinary builds: programs by the hundred, of one binary and of many, each told, none in the way.

``make test-unharmed`` has 1,500 short programs, and 1,200 binaries.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.go import toolchains
from tracer.capture import binaries
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.programs import Programs
from tracer.capture.record import record
from tracer.trace.reader import Trace

KEY = np.dtype("<u8")
ROUNDS = int(os.environ.get("PRETAKE_ROUNDS", "1"))
LOOKS = 4


def test_short_programs_are_each_told_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary, half = toolchains.build("twin_a"), 50 * ROUNDS
    fifo = tmp_path / "go-on"
    os.mkfifo(fifo)
    held: list[int] = []
    looks = 0

    def told(_: Progress) -> None:
        """Let the shell go on when the drain has come by a few times since it waits."""
        nonlocal looks
        if not held:
            with contextlib.suppress(OSError):
                # Refused as long as nobody reads there.
                held.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        looks += len(held)
        if looks == LOOKS:
            os.write(held[0], b"go on\n")

    kept: list[int] = []
    detach = Programs.detach

    def counting(programs: Programs) -> None:
        detach(programs)
        kept.append(sum(1 for _ in programs.loaded.keys("runtime_layouts", KEY)))

    monkeypatch.setattr(Programs, "detach", counting)
    many = f"i=0; while [ $i -lt {half} ]; do {binary} 1; i=$((i+1)); done"
    script = f"{many}; read -r line < {fifo}; {many}"
    record(["sh", "-c", script], output=tmp_path / "t", options=CaptureOptions(), progress=told)
    os.close(held[0])
    trace = Trace(tmp_path / "t")
    assert trace.manifest.exit_status == 0
    assert not any(trace.manifest.lost.values())
    reach, tasks = trace.frame("reach"), trace.frame("task")
    execs = tasks[(tasks["kind"] == "exec") & (tasks["comm"] == "twin_a")]
    twins = reach[reach["comm"] == "twin_a"]
    assert len(twins) == len(execs) == 2 * half
    assert set(twins["pid"]) == set(execs["pid"])
    # Those that end before one was looked at are known for what they were; once it was, each is
    # in reach from its exec.
    assert set(twins["version"]) == {f"go{toolchains.VERSIONS[-1]}"}
    ordered = twins.sort_values("exec_ns")
    at_once = (ordered["ts_ns"] == ordered["exec_ns"]).fillna(value=False).to_numpy(bool)
    assert at_once[half:].all()
    assert at_once[at_once.argmax() :].all()
    # The layout of each went with it.
    assert kept == [0]


def test_running_out_of_descriptors_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    binary, count = toolchains.build("twin_a"), 80 * ROUNDS
    most = 60 + binaries._RESERVED
    copies = f"cp {binary} {tmp_path}/p$i; {tmp_path}/p$i 1; rm {tmp_path}/p$i"
    script = f"i=0; while [ $i -lt {count} ]; do {copies}; i=$((i+1)); done"
    pretake = [sys.executable, "-m", "pretake", "record", "-q", "-o", str(tmp_path / "t")]
    subprocess.run(
        ["prlimit", f"--nofile={most}:{most}", *pretake, "--", "sh", "-c", script], check=True
    )
    trace = Trace(tmp_path / "t")
    assert trace.manifest.exit_status == 0
    twins = trace.frame("reach").query("comm.str.startswith('p')")
    assert len(twins) == count
    known = int(twins["version"].notna().sum())
    missing = {lack.what: lack.why for lack in trace.manifest.missing}
    if known > 60:
        # One that was written while it was looked at is not what its process ran: looked at, and
        # not known.
        (told,) = (w for w in missing if w.endswith(" binaries, if they are gone"))
        assert known - 60 <= int(told.split()[2]) <= count - 60
    if known < count:
        assert "before they were looked at" in str(missing)
