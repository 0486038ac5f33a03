"""Go programs that somebody else starts: a shell, two at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from tests.go import toolchains
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.trace.reader import Trace

READS = 100
FOR_EVER = 1_000_000
LOOKS = 4
NR_READ = 0


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_programs_that_a_shell_execs_are_in_reach(tmp_path: Path) -> None:
    binary, fifo = tmp_path / "served", tmp_path / "go-on"
    shutil.copy(toolchains.build("blockread"), binary)
    os.mkfifo(fifo)
    # Two at once, so that one execs while the other's binary is still being looked at, which go
    # on until they are told; then one more, which is in reach from its exec on.
    both = f"{binary} {FOR_EVER} & a=$!; {binary} {FOR_EVER} & b=$!"
    script = f"{both}; read -r line < {fifo}; kill $a $b; wait; exec {binary} {READS}"
    looks = 0

    def told(_: Progress) -> None:
        """Let the shell go on when the drain has come by a few times since both exec'd."""
        nonlocal looks
        if looks == LOOKS:
            return
        for shell in children(os.getpid()):
            # Of the others one may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                running = [Path(f"/proc/{pid}/comm").read_text() for pid in children(shell)]
                looks += running == ["served\n", "served\n"]
        if looks == LOOKS:
            fifo.write_text("go on\n")

    record(["sh", "-c", script], output=tmp_path / "t", options=CaptureOptions(), progress=told)
    trace = Trace(tmp_path / "t")
    assert trace.manifest.exit_status == 0
    assert trace.manifest.target.runtime == "go"
    tasks, blocks = trace.frame("task"), trace.frame("block")
    # Elsewhere a thread may wait for a page, or for a lock of the runtime that another M has.
    blocks = blocks[blocks["nr"] == NR_READ]
    execs = tasks[(tasks["kind"] == "exec") & (tasks["comm"] == "served")].sort_values("ts_ns")
    assert len(execs) == 3
    pid_of = tasks.drop_duplicates("tid").set_index("tid")["pid"]
    told_by = blocks.groupby(blocks["tid"].map(pid_of))["enter_ns"].nunique()
    assert set(told_by.index) == set(execs["pid"])
    assert (told_by > 10).all()
    # Of the last one each read that blocked is there.
    calls = trace.frame("syscall")
    reads = calls[(calls["nr"] == NR_READ) & (calls["blocks"] > 0)]
    last = execs["pid"].iloc[-1]
    assert told_by[last] >= (reads["tid"].map(pid_of) == last).sum() - 1
    assert set(blocks["goid"]) == {1}
