"""A Go program that somebody else starts: a shell, or several at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.go import toolchains
from tracer.options import CaptureOptions
from tracer.record import record
from tracer.trace import Trace

READS = 150


def test_programs_that_a_shell_execs_are_in_reach_soon(tmp_path: Path) -> None:
    binary = tmp_path / "served"
    shutil.copy(toolchains.build("blockread"), binary)
    # Two at once, so that one execs while the other's binary is still being looked at; then one
    # more, which is in reach from its exec on.
    script = f"{binary} {READS} & {binary} {READS} & wait; exec {binary} {READS}"
    record(["sh", "-c", script], output=tmp_path / "t", options=CaptureOptions())
    trace = Trace(tmp_path / "t")
    assert trace.manifest.exit_status == 0
    assert trace.manifest.target.runtime == "go"
    tasks, blocks = trace.frame("task"), trace.frame("block")
    execs = tasks[(tasks["kind"] == "exec") & (tasks["comm"] == "served")].sort_values("ts_ns")
    assert len(execs) == 3
    pid_of = tasks.drop_duplicates("tid").set_index("tid")["pid"]
    by_process = blocks.groupby(blocks["tid"].map(pid_of))
    assert set(by_process.groups) == set(execs["pid"])
    # Of the last one each read that blocked is there, and of the others nearly all.
    calls = trace.frame("syscall")
    reads = calls[(calls["nr"] == 0) & (calls["blocks"] > 0)]
    blocked = reads["tid"].map(pid_of)
    last = execs["pid"].iloc[-1]
    told = by_process["enter_ns"].nunique()
    assert told[last] >= (blocked == last).sum() - 1
    assert (told > 10).all()
    assert set(blocks["goid"]) == {1}
