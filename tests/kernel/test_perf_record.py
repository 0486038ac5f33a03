"""Captures by perf events: without privilege of one's own program, and of the whole machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tracer.errors import PretakeError
from tracer.options import CaptureOptions
from tracer.perf_events import paranoid
from tracer.perf_record import record_by_perf
from tracer.record import record
from tracer.trace import Trace

pytestmark = pytest.mark.kernel

PROGRAMS = Path(__file__).parent / "programs"
NOBODY = 65534


def program(name: str, *args: object) -> list[str]:
    return [sys.executable, "-I", "-S", str(PROGRAMS / f"{name}.py"), *map(str, args)]


def left(trace: Trace, result: dict[str, int]) -> pd.DataFrame:
    switches = trace.frame("sched_switch")
    mine = switches[switches["prev_tid"] == result["tid"]]
    return mine[mine["ts_ns"].between(result["begin_ns"], result["end_ns"])]


@pytest.mark.parametrize("host", [False, True])
def test_switches_agree_with_the_kernels_own_count(tmp_path: Path, host: bool) -> None:
    options = CaptureOptions(host=host)
    command = program("prime_reads", 101, tmp_path / "result")
    trace = Trace(record_by_perf(command, output=tmp_path / "x.pretake", options=options))
    result = json.loads((tmp_path / "result").read_text())
    counts = left(trace, result)["prev_state"].value_counts()
    assert counts["blocked"] == result["voluntary"] == 101
    assert counts["preempted"] == result["forced"]
    assert trace.manifest.backend == "perf"
    assert trace.manifest.lost == {"sched_switch": 0}
    # Only a machine-wide record tells who came instead.
    assert left(trace, result)["next_tid"].notna().all() == host


def test_threads_and_children_are_followed(tmp_path: Path) -> None:
    trace = Trace(record_by_perf(program("family", 5, 3), output=tmp_path / "x.pretake"))
    tasks, pid = trace.frame("task"), trace.manifest.pid
    born = tasks[tasks["kind"] == "fork"]
    assert (born["pid"] == pid).sum() == 5
    assert (born["pid"] != pid).sum() == 3
    ended = tasks[tasks["kind"] == "exit"]
    assert sorted(ended["tid"]) == sorted([pid, *born["tid"]])
    named = tasks[(tasks["kind"] == "name") & tasks["comm"].str.startswith("reader-")]
    assert sorted(named["comm"]) == [f"reader-{n}" for n in range(5)]
    assert trace.manifest.exit_status == 0


@pytest.mark.skipif(paranoid() > 2, reason="kernel.perf_event_paranoid forbids it")
def test_an_ordinary_user_captures_a_program_of_his_own(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir("/")
            tmp_path.chmod(0o777)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            path = record_by_perf(["sleep", "0.01"], output=f"/tmp/pretake-{os.getpid()}")
            trace = Trace(path)
            os.write(writer, json.dumps([str(path), trace.manifest.events]).encode())
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    path, events = json.loads(os.read(reader, 1 << 16))
    os.close(reader)
    os.close(writer)
    assert events["sched_switch"] > 0
    assert events["task"] > 0
    assert Path(path).stat().st_uid == NOBODY
    subprocess.run(["rm", "-r", path], check=True)


def test_both_backends_tell_the_same_of_the_whole_machine(tmp_path: Path) -> None:
    options = CaptureOptions(host=True, runtime="none")
    command = program("prime_reads", 101, tmp_path / "result")
    for capture in (record, record_by_perf):
        trace = Trace(capture(command, output=tmp_path / capture.__name__, options=options))
        result = json.loads((tmp_path / "result").read_text())
        switches = trace.frame("sched_switch")
        assert (left(trace, result)["prev_state"] == "blocked").sum() == 101
        # Of others, too: some thread came whose process is no target.
        targets = set(trace.frame("task")["tid"]) | {0}
        assert not set(switches["next_tid"].dropna()) <= targets or len(switches) > 202


def test_what_cannot_be_traced_is_told(tmp_path: Path) -> None:
    with pytest.raises(PretakeError, match="nothing to trace"):
        record_by_perf(output=tmp_path / "x.pretake")
    with pytest.raises(PretakeError, match="there is no process"):
        record_by_perf(pid=2**22 - 1, output=tmp_path / "x.pretake")
    assert list(tmp_path.iterdir()) == []
