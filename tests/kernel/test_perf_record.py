"""Captures by perf events: without privilege of one's own program, and of the whole machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis.ptime.episodes import episodes
from reference_runtime.current import COMPILED
from tests.cpus import on_cpu
from tests.forced import KERNEL, lacking
from tests.kernel.started import PRETAKE, python
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.perf_record import record_by_perf
from tracer.capture.record import record
from tracer.errors import PretakeError
from tracer.kernel.perf_events import paranoid
from tracer.trace.reader import Trace

ROOT = Path(__file__).parents[2]
NOBODY = 65534


def left(trace: Trace, result: dict[str, int]) -> pd.DataFrame:
    switches = trace.frame("sched_switch")
    mine = switches[switches["prev_tid"] == result["tid"]]
    return mine[mine["ts_ns"].between(result["begin_ns"], result["end_ns"])]


@pytest.mark.parametrize("host", [False, True])
def test_switches_agree_with_the_kernels_own_count(tmp_path: Path, host: bool) -> None:
    options = CaptureOptions(host=host)
    command = python("prime_reads", 101, tmp_path / "result")
    trace = Trace(record_by_perf(command, output=tmp_path / "x.pretake", options=options))
    result = json.loads((tmp_path / "result").read_text())
    counts = left(trace, result)["prev_state"].value_counts()
    assert counts["blocked"] == result["voluntary"] == 101
    assert counts["preempted"] == result["forced"]
    assert trace.manifest.backend == "perf"
    assert trace.manifest.lost == {"sched_switch": 0}
    # Only a machine-wide record tells who came instead.
    assert left(trace, result)["next_tid"].notna().all() == host


def test_a_target_is_seen_on_cpus_that_the_tracer_may_not_use(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        lacking("there are no two CPUs", KERNEL)
    own, other, *_ = sorted(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(other), *python("prime_reads", 101, tmp_path / "result")]
    with on_cpu(own):
        trace = Trace(record_by_perf(command, output=tmp_path / "x.pretake"))
    result = json.loads((tmp_path / "result").read_text())
    switches = left(trace, result)
    assert (switches["prev_state"] == "blocked").sum() == result["voluntary"] == 101
    assert set(switches["cpu"]) == {other}
    assert trace.manifest.lost == {"sched_switch": 0}


def test_threads_and_children_are_followed(tmp_path: Path) -> None:
    trace = Trace(record_by_perf(python("family", 5, 3), output=tmp_path / "x.pretake"))
    tasks, pid = trace.frame("task"), trace.manifest.pid
    born = tasks[tasks["kind"] == "fork"]
    assert (born["pid"] == pid).sum() == 5
    assert (born["pid"] != pid).sum() == 3
    ended = tasks[tasks["kind"] == "exit"]
    assert sorted(ended["tid"]) == sorted([pid, *born["tid"]])
    named = tasks[(tasks["kind"] == "name") & tasks["comm"].str.startswith("reader-")]
    assert sorted(named["comm"]) == [f"reader-{n}" for n in range(5)]
    assert trace.manifest.exit_status == 0


def run_of(workload: str, *arguments: object) -> list[str]:
    """``pretake run`` on the reference runtime, with its own record beside it."""
    return [*PRETAKE, "run", workload, *map(str, arguments), "--witness", "witness.jsonl"]


class Nobody:
    """An ordinary user, in a folder of his own, with a Python that he can run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chown(folder, NOBODY, NOBODY)
        # One below somebody's home folder is closed to others.
        pythons = [sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"]
        imports = "import click, pandas, pyarrow, reference_runtime.current, tracer.trace.reader"
        for self.python in pythons:
            with contextlib.suppress(PermissionError, FileNotFoundError):
                if self.run([self.python, "-c", imports], check=False).returncode == 0:
                    return
        lacking("an ordinary user can reach no Python with these packages", KERNEL)

    def run(self, command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        paths = [str(ROOT), sysconfig.get_path("purelib")]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=check,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": ":".join(paths), "HOME": str(self.folder)},
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )

    def pretake(self, *arguments: str) -> str:
        return self.run([self.python, "-m", "pretake", *arguments]).stdout


@pytest.fixture
def nobody() -> Iterator[Nobody]:
    with tempfile.TemporaryDirectory(prefix="pretake-") as folder:
        yield Nobody(Path(folder))


@pytest.mark.skipif(paranoid() > 2, reason="kernel.perf_event_paranoid forbids it")
def test_an_ordinary_user_captures_a_program_of_his_own(nobody: Nobody) -> None:
    nobody.pretake("record", "-q", "--backend", "perf", "-o", "x.pretake", "--", "sleep", "0.01")
    path = nobody.folder / "x.pretake"
    events = Trace(path).manifest.events
    assert events["sched_switch"] > 0
    assert events["task"] > 0
    assert {part.stat().st_uid for part in (path, *path.rglob("*"))} == {NOBODY}


@pytest.mark.skipif(paranoid() > 2, reason="kernel.perf_event_paranoid forbids it")
def test_an_ordinary_user_finds_the_retakes_of_the_reference_runtime(nobody: Nobody) -> None:
    held = nobody.run([nobody.python, "-c", "print(open('/proc/self/status').read())"]).stdout
    assert "CapEff:\t0000000000000000" in held
    run = [nobody.python, *run_of("echo", "--rounds", 300)[1:]]
    nobody.pretake("record", "-q", "--backend", "perf", "-o", "x.pretake", "--", *run)
    manifest = Trace(nobody.folder / "x.pretake").manifest
    assert manifest.workload is not None
    own = manifest.workload["runtime"]["retakes"]
    records = (nobody.folder / "witness.jsonl").read_text().splitlines()
    assert len(records) == own > 100
    told = json.loads(nobody.pretake("summary", "x.pretake", "--json"))
    assert told["retakes"] == {"sysmon": own}
    assert told["target"]["runtime"] == "reference"
    # All but those of calls that had not blocked, which the trace tells of.
    blocked = own - sum(
        int(missing.what.split()[3]) for missing in manifest.missing if "block of" in missing.what
    )
    assert told["episodes"] == told["retaken"] == blocked > 0.95 * own
    # What no record tells is null.
    assert told["harm_ns"]["p50"] is None
    assert told["harm_ns"]["unknown"] == told["episodes"]
    checked = json.loads(
        nobody.pretake("check", "x.pretake", "--witness", "witness.jsonl", "--json")
    )
    assert checked["witness"]["matched"] == blocked
    assert checked["witness"]["precision"] == 1
    lines = nobody.pretake("episodes", "x.pretake", "--json").splitlines()
    assert len(lines) == blocked
    assert {(row["syscall"], row["p"], row["kept"]) for row in map(_row, lines)} == {
        (None, 0, False)
    }
    for command in ("callsites", "factors", "advise", "preemptions"):
        nobody.pretake(command, "x.pretake")
    nobody.pretake("report", "x.pretake", "-o", "x.html")
    nobody.pretake("export", "x.pretake", "--to", "perfetto", "-o", "x.pftrace")


def _row(line: str) -> dict[str, object]:
    row = json.loads(line)
    return row | {"kept": row["outcome"] == "kept"}


RUNS = 4
"""Where a thread loses its CPU in a call that has yet to block, or between the runtime's clock and
the uprobe, its retake has no pair. So one of so many runs has to be near."""


@pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe")
@pytest.mark.parametrize("policy", ["sysmon", "sched_out"])
def test_retakes_are_those_that_bpf_sees_of_the_same_run(tmp_path: Path, policy: str) -> None:
    told = []
    for run in range(RUNS):
        folder = tmp_path / str(run)
        folder.mkdir()
        told.append(both_backends(folder, policy))
        paired, on_time, apart_ns, retake_ns, of_own = told[-1]
        # The uprobe's own 4 µs stand between the two clocks; on a slow machine all takes longer.
        near = abs(apart_ns) <= max(10_000, retake_ns / 4)
        if near and paired >= 0.98 and on_time >= 0.98 and of_own <= 0.02:
            return
    pytest.fail(f"pairs, blocks in time, ns apart of so many, from the runtime's own: {told}")


def both_backends(folder: Path, policy: str) -> tuple[float, float, float, float, float]:
    """How near perf and BPF are in one run.

    Returns:
        The share of the retakes that both tell; of those, the share whose block both tell within a
        millisecond; the ns between the two lengths of a retake, and the length; and the
        difference to the runtime's own figure, as a share of it.
    """
    # One capture inside of the other: so both look at the very same calls.
    inner = [*PRETAKE, "record", "-q", "--backend", "perf", "-o", "perf.pretake", "--"]
    outer = [*PRETAKE, "record", "-q", "-o", "bpf.pretake", "--"]
    run = run_of("echo", "--rounds", 300, "--retake", policy)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*outer, *inner, *run], check=True, cwd=folder, env=environment, capture_output=True
    )
    traces = {name: Trace(folder / f"{name}.pretake") for name in ("perf", "bpf")}
    found = {name: episodes(trace) for name, trace in traces.items()}
    retaken = {
        # Without those whose goroutine was stopped: that is no retake of the runtime's.
        name: rows.query("outcome == 'retaken' and reason != 'async'").sort_values("release_ns")
        for name, rows in found.items()
    }
    records = len((folder / "witness.jsonl").read_text().splitlines())
    for name, trace in traces.items():
        told = (trace.frame("runtime")["kind"] == "retake").sum()
        assert told == records > 100, (name, trace.manifest.lost, trace.manifest.events)
    # Each retake that perf tells of is one that the uprobes saw, and the other way about.
    sides = [
        rows[["tid", "p", "goid", "reason", "block_ns", "release_ns", "run_ns", "retake_ns"]]
        .astype({"reason": str, "release_ns": "int64", "tid": "int64"})
        .assign(at_ns=lambda rows: rows["release_ns"])
        for rows in retaken.values()
    ]
    pairs = pd.merge_asof(
        *sides,
        on="at_ns",
        by=["tid", "p", "goid", "reason"],
        direction="nearest",
        tolerance=1_000_000,
        suffixes=("", "_bpf"),
    ).dropna(subset=["release_ns_bpf"])
    assert all(len(side) <= records for side in sides)
    # Both tell the same switch off the CPU, one after the other.
    later_ns = (pairs["block_ns"] - pairs["block_ns_bpf"]).astype("int64")
    # Of the same retake, not of two medians, each of which may lie at another one. A retake after
    # which nothing ran on the P has no length.
    both = pairs.dropna(subset=["retake_ns", "retake_ns_bpf"])
    apart_ns = float((both["retake_ns"] - both["retake_ns_bpf"]).astype("int64").median())
    assert len(both) > 0
    # From the call's entry it is the runtime's own figure.
    own = traces["perf"].manifest.workload
    assert own is not None
    rows = retaken["perf"].dropna(subset=["run_ns"])
    since_entry = (rows["run_ns"] - rows["enter_ns"]).median()
    own_ns = own["retake_ns"]["p50"]
    return (
        len(pairs) / records,
        float(later_ns.between(0, 1_000_000).mean()),
        apart_ns,
        float(both["retake_ns"].median()),
        float(abs(since_entry - own_ns) / own_ns),
    )


def test_a_run_that_is_ended_leaves_its_record_and_one_that_cannot_is_told(tmp_path: Path) -> None:
    def enough(progress: Progress) -> None:
        # More than Python makes while it starts, however slowly.
        if progress.events > 20_000:
            os.kill(os.getpid(), signal.SIGINT)

    run = [*PRETAKE, "run", "echo", "--seconds", "1000"]
    trace = Trace(record_by_perf(run, output=tmp_path / "ended", progress=enough))
    assert trace.manifest.exit_status == -15
    assert trace.arrow("block").num_rows > 0
    assert trace.manifest.target.runtime == "reference"
    shell = ["sh", "-c", 'echo \'{"ts_ns": 1, "p"\' >>$PRETAKE_RECORD']
    for name, command, why in (
        ("other", ["true"], "the program left no record of a runtime"),
        ("damaged", shell, "the runtime's own record is damaged"),
    ):
        trace = Trace(record_by_perf(command, output=tmp_path / name))
        assert trace.arrow("runtime").num_rows == 0
        assert trace.manifest.target.runtime == "none"
        assert why in [missing.why for missing in trace.manifest.missing]


def test_both_backends_tell_the_same_of_the_whole_machine(tmp_path: Path) -> None:
    options = CaptureOptions(host=True, runtime="none")
    command = python("prime_reads", 101, tmp_path / "result")
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
