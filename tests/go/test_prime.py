"""A known number of blocking calls, counted exactly."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.go.capture import capture

CALLS = 23
NR_READ = 0


def feed(to_program: Path, from_program: Path) -> None:
    """Write a byte to the program each time that its thread is really blocked in read."""
    with from_program.open("rb") as threads, to_program.open("wb", buffering=0) as bytes_:
        for line in threads:
            call = Path(f"/proc/{int(line)}/syscall")
            while not call.read_text().startswith(f"{NR_READ} "):
                time.sleep(0.0002)
            bytes_.write(b"x")


def test_23_blocking_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A signal that meets the thread in read would have it block there once more.
    monkeypatch.setenv("GODEBUG", "asyncpreemptoff=1")
    pipes = tmp_path / "in", tmp_path / "out"
    for pipe in pipes:
        os.mkfifo(pipe)
    feeder = threading.Thread(target=feed, args=pipes, daemon=True)
    feeder.start()
    trace = capture(tmp_path / "t", "prime", [str(pipe) for pipe in pipes])
    feeder.join()

    blocks = trace.frame("block")
    reads = blocks[blocks["nr"] == NR_READ]
    assert len(reads) == CALLS
    assert reads["enter_ns"].nunique() == CALLS
    assert reads["tid"].nunique() == 1
    assert set(reads["goid"]) == {1}
    # A thread that is kept off its CPU before it blocks may have lost its P by then.
    assert set(reads["p_use"]) <= {"syscall", "handed_off"}
    held = reads[reads["p_use"] == "syscall"]
    assert len(held) > CALLS / 2
    assert set(held["p"]) == {0}
