"""Captures that meet with an accident: nothing stored is lost, and nobody else is captured."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.kernel.started import PROGRAMS, assert_all_accounted_for, python
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.errors import PretakeError
from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES
from tracer.trace.writer import TraceWriter

NR_GETPPID = 110


@pytest.fixture
def gated() -> Iterator[subprocess.Popen[bytes]]:
    """A running program with three threads, which ends when its input does."""
    process = subprocess.Popen(python("gated", 2), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_a_target_that_is_killed(tmp_path: Path, gated: subprocess.Popen[bytes]) -> None:
    path = record(
        pid=gated.pid,
        output=tmp_path / "x.pretake",
        options=CaptureOptions(runtime="none"),
        progress=lambda _: gated.kill(),
    )
    trace = Trace(path)
    assert gated.wait() == -signal.SIGKILL
    tasks = trace.frame("task")
    present = tasks[tasks["kind"] == "present"]
    assert len(present) == 3
    assert sorted(tasks.loc[tasks["kind"] == "exit", "tid"]) == sorted(present["tid"])
    assert trace.manifest.complete
    assert trace.manifest.error is None
    assert_all_accounted_for(trace)


def test_a_command_that_is_killed(tmp_path: Path) -> None:
    path = record(["sh", "-c", "kill -9 $$"], output=tmp_path / "x.pretake")
    trace = Trace(path)
    assert trace.manifest.exit_status == -signal.SIGKILL
    assert trace.manifest.complete
    assert_all_accounted_for(trace)


def test_ten_thousand_threads_come_and_go(tmp_path: Path) -> None:
    # Room for few at a time: so each one's place is given back when it ends.
    options = CaptureOptions(runtime="none", max_threads=512)
    command = python("many_threads", 10_000)
    trace = Trace(record(command, output=tmp_path / "x.pretake", options=options))
    tasks = trace.frame("task", ["tid", "kind"])
    assert (tasks["kind"] == "fork").sum() == 10_000
    assert (tasks["kind"] == "exit").sum() == 10_001
    assert trace.manifest.missing == []
    assert not any(trace.manifest.lost.values())
    assert_all_accounted_for(trace)


def test_a_stranger_with_the_process_id_of_a_target_that_ended(tmp_path: Path) -> None:
    told, end = tmp_path / "told", tmp_path / "end"
    os.mkfifo(told)
    os.mkfifo(end)
    options = CaptureOptions(runtime="none", detail="full")
    with ThreadPoolExecutor() as pool:
        capture = pool.submit(
            record,
            python("lost_child", told, end),
            output=tmp_path / "x.pretake",
            options=options,
        )
        pid = int(told.read_text())
        subprocess.run(python("start_as", pid, *python("calls", 1009, 0)), check=True)
        end.write_text("")
        trace = Trace(capture.result())
    tasks, calls = trace.frame("task"), trace.frame("syscall")
    assert tasks.loc[tasks["tid"] == pid, "kind"].tolist() == ["fork", "exit"]
    assert NR_GETPPID not in set(calls["nr"])
    assert_all_accounted_for(trace)


def test_two_captures_of_one_process(tmp_path: Path, gated: subprocess.Popen[bytes]) -> None:
    assert gated.stdin is not None
    both = threading.Barrier(2, action=gated.stdin.close)

    def capture(name: str) -> Trace:
        told: list[Progress] = []

        def tell(progress: Progress) -> None:
            if not told:
                both.wait()
            told.append(progress)

        options = CaptureOptions(runtime="none")
        return Trace(record(pid=gated.pid, output=tmp_path / name, options=options, progress=tell))

    with ThreadPoolExecutor() as pool:
        one, other = pool.map(capture, ["one.pretake", "other.pretake"])
    for trace in (one, other):
        assert (trace.frame("task")["kind"] == "exit").sum() == 3
        assert_all_accounted_for(trace)
    ends = [t.frame("task").query("kind == 'exit'").sort_values("tid") for t in (one, other)]
    assert ends[0]["tid"].tolist() == ends[1]["tid"].tolist()


def test_memory_stays_flat_however_many_parts_are_written(tmp_path: Path) -> None:
    path = tmp_path / "x.pretake"
    # A part each tenth of a second: as many as a capture of ten minutes writes.
    own_memory = [sys.executable, str(PROGRAMS / "own_memory.py"), str(path), "45", "0.1"]
    told = subprocess.run(
        [*own_memory, *python("calls", 10**9, 400_000)],
        # What is freed is given back, so that what is left is what somebody keeps.
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    samples = np.array([line.split() for line in told.stdout.splitlines()], int)
    parts = samples[:, 1]
    # By how much was written, since how fast that goes hangs on who else wants the machine.
    calm, last = samples[(parts >= 15) & (parts < 30)], samples[parts >= 30]
    assert len(calm) >= 1
    rows = [pq.read_metadata(part).num_rows for part in sorted(path.glob("syscall/part-*"))]
    kib = np.array(rows) * TABLES["syscall"].dtype.itemsize / 1024
    begin, end = int(np.median(calm[:, 1])), int(np.median(last[:, 1]))
    assert end > begin
    # Whoever kept a row group of each part would grow by all that was written. The heap grows to a
    # larger part than any before, which has records, columns and bytes at one time: how large one
    # becomes hangs on how long the tracer had to wait for a CPU.
    larger_kib = max(kib[begin:].max() - kib[:begin].max(), 0)
    grown_kib = np.median(last[:, 0]) - np.median(calm[:, 0])
    written_kib = kib[begin:end].sum()
    assert grown_kib < written_kib / 8 + 4 * larger_kib, f"{grown_kib} of {written_kib:.0f} KiB"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    # Several times a first part, however long a slow machine lets that one grow.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_has_room_for_what_ends_a_trace(small_disk: Path) -> None:
    """Whatever else filled it, and however little the part that found no room gives back."""
    path = small_disk / "x.pretake"
    writer = TraceWriter(path, Manifest(), part_seconds=0)
    declared = TABLES["sched_wakeup"]
    wakeups = declared.to_arrow(np.zeros(1000, declared.dtype))
    writer.write("sched_wakeup", wakeups)
    writer.rotate()
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        with contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        writer.write("sched_wakeup", wakeups)
        with pytest.raises(PretakeError, match="no room left on the disk"):
            writer.close(Manifest(sent={"sched_wakeup": 2000}, workload={"text": "x" * 50_000}))
    manifest = Trace(path).manifest
    assert manifest.complete
    assert manifest.events["sched_wakeup"] == manifest.lost["sched_wakeup"] == 1000
    assert manifest.error is not None


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    path = small_disk / "x.pretake"
    options = CaptureOptions(runtime="none", detail="full", part_seconds=0.1)
    with pytest.raises(PretakeError, match="no room left on the disk"):
        record(python("calls", 10**9, 0), output=path, options=options)
    trace = Trace(path)
    manifest = trace.manifest
    assert manifest.complete
    assert manifest.error is not None
    assert manifest.error.startswith("no room left")
    # What was stored can be read, and what was not is counted.
    assert trace.arrow("syscall").num_rows == manifest.events["syscall"] > 0
    assert manifest.lost["syscall"] > 0
    assert_all_accounted_for(trace)
    names = {entry.name for entry in path.rglob("*") if entry.is_file()}
    assert all(name == "manifest.json" or name.startswith("part-") for name in names)
