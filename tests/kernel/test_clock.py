"""Time namespaces: what a trace tells is on the machine's clock, whoever has one of his own."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from reference_runtime.current import COMPILED
from tests.kernel.started import PRETAKE
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

AHEAD_S = 100_000
# The two clocks apart, so that one is not taken for the other.
ELSEWHEN = ["unshare", "--time", f"--monotonic={AHEAD_S}", f"--boottime={2 * AHEAD_S}", "--fork"]


def captured(trace: Path, before: list[str], *command: object, backend: str = "bpf") -> Trace:
    """A capture by a tracer that stands behind ``before``, on the machine's clock."""
    record = [*PRETAKE, "record", "-q", "--backend", backend, "-o", trace, "--", *command]
    begin_ns = time.monotonic_ns()
    subprocess.run([*before, *map(str, record)], check=True, stdout=subprocess.DEVNULL)
    end_ns = time.monotonic_ns()
    read = Trace(trace)
    manifest = read.manifest
    assert manifest.begin_ns is not None
    assert manifest.end_ns is not None
    assert begin_ns < manifest.begin_ns < manifest.end_ns < end_ns
    assert manifest.suspended_ns == 0
    for name, table in TABLES.items():
        if table.columns[0].name == "ts_ns":
            times = read.frame(name, ["ts_ns"])["ts_ns"]
            assert times.between(begin_ns, end_ns).all()
    return read


@pytest.mark.parametrize("backend", ["bpf", "perf"])
def test_a_tracer_with_a_clock_of_its_own(tmp_path: Path, backend: str) -> None:
    # By perf events a program's clock is asked for while it lives.
    trace = captured(tmp_path / "x.pretake", ELSEWHEN, "sleep", "1", backend=backend)
    assert len(trace.frame("sched_switch")) > 0
    # Its command has the same.
    [ahead_ns] = trace.manifest.clocks_ahead_ns.values()
    assert ahead_ns == AHEAD_S * 10**9


@pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe")
@pytest.mark.parametrize("tracer_too", [False, True])
def test_what_a_target_with_a_clock_of_its_own_recorded(tmp_path: Path, tracer_too: bool) -> None:
    path, witness = tmp_path / "x.pretake", tmp_path / "x.jsonl"
    run = [*PRETAKE, "run", "echo", "--retake", "sysmon", "--witness", witness, "--seconds", "1"]
    before, within = (ELSEWHEN, []) if tracer_too else ([], ELSEWHEN)
    trace = captured(path, before, *within, *run)
    assert set(trace.manifest.clocks_ahead_ns.values()) == {AHEAD_S * 10**9}
    # The record is on the target's clock, and the trace is not.
    first_ns = json.loads(witness.read_text().splitlines()[0])["ts_ns"]
    assert first_ns > AHEAD_S * 10**9 + (trace.manifest.begin_ns or 0)
    told = subprocess.run(
        [*PRETAKE, "check", path, "--witness", witness, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    agreement = json.loads(told.stdout)["witness"]
    records = agreement["records"] + agreement["unblocked"]
    assert records == len(witness.read_text().splitlines()) > 0
    assert agreement["recall"] >= 0.99
    assert agreement["precision"] >= 0.99


def test_the_clock_of_a_program_that_is_gone_at_once_is_known(tmp_path: Path) -> None:
    count = 200
    # Each of the children has ended long before the tracer reads of its exec.
    script = f"i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done"
    trace = captured(tmp_path / "x.pretake", [], *ELSEWHEN, "sh", "-c", script)
    tasks = trace.frame("task")
    gone = tasks.loc[(tasks["kind"] == "exec") & (tasks["comm"] == "true"), "pid"]
    assert len(gone) == count
    ahead_ns = trace.manifest.clocks_ahead_ns
    assert {ahead_ns.get(str(pid)) for pid in gone} == {AHEAD_S * 10**9}
    # unshare itself has the machine's clock.
    assert set(ahead_ns) < set(map(str, tasks["pid"]))
    assert str(trace.manifest.pid) not in ahead_ns
