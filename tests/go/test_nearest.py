"""Stripped programs of versions that the table of offsets lacks are read by their neighbours'."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from analysis import load
from tests.go import toolchains
from tests.go.looked import built, inspected
from tests.go.other_rows import parsed_by
from tracer.capture.assumed import Assumed, ProcessMemory
from tracer.capture.binaries import Known
from tracer.capture.doctor import diagnose
from tracer.capture.images import Image
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.capture.target_files import TargetFiles
from tracer.targets.find import load_bias
from tracer.targets.go import GO_FIELDS
from tracer.targets.go_offsets import shipped_offsets
from tracer.targets.self_check import Memory, SelfCheck
from tracer.trace.reader import Trace

NR_READ, NR_NANOSLEEP = 0, 35
CALLS = 23
MANY = 1000
MANY_TICKS = 500
MANY_OPEN = 60
"""Looks after which a check may stay open: what is read by a wrong offset may be 0."""

Rows = Mapping[str, Mapping[str, int]]


def without(*versions: str) -> dict[str, dict[str, int]]:
    return {name: dict(row) for name, row in shipped_offsets().items() if name not in versions}


def sleeps(output: Path, version: str, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """A capture of a stripped program that runs already, and then makes 23 blocking calls."""
    binary = built(toolchains.build, "sleeps", version, "stripped")
    honest = SelfCheck.look
    with (
        monkeypatch.context() as patched,
        parsed_by(rows, output.parent, monkeypatch),
        subprocess.Popen(
            [binary, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as program,
    ):
        stdin, stdout = program.stdin, program.stdout
        assert stdin is not None
        assert stdout is not None

        looks = 0
        decided = False

        def look(check: SelfCheck, memory: Memory) -> None:
            nonlocal looks, decided
            honest(check, memory)
            looks += 1
            decided = check.passed or check.refused is not None

        def go_on(_: Progress) -> None:
            if (decided or looks > MANY_OPEN) and not stdin.closed:
                stdin.write(b"x")
                stdin.close()

        patched.setattr(SelfCheck, "look", look)
        record(pid=program.pid, output=output, options=CaptureOptions(), progress=go_on)
        calls = int(stdout.read())
    assert calls >= CALLS
    trace = Trace(output)
    assert not any(trace.manifest.lost.values())
    blocks = trace.frame("block")
    # A call that had no CPU before it blocked may have lost its P; it is a call all the same. One
    # that a signal ended early may not have blocked.
    seen = (blocks["nr"] == NR_NANOSLEEP).sum()
    assert seen == 0 or CALLS <= seen <= calls
    return trace


def is_read(trace: Trace) -> bool:
    """Whether the calls were seen, as those of goroutine 1, which held P 0."""
    blocks = trace.frame("block")
    blocks = blocks[blocks["nr"] == NR_NANOSLEEP]
    reach = trace.frame("reach")
    assert len(reach) == 1
    if reach["ts_ns"].isna().all():
        assert blocks.empty
        return False
    assert set(blocks["goid"]) == {1}
    assert set(blocks["p"]) == {0}
    assert (blocks["p_use"] == "syscall").sum() > CALLS / 2
    retakes = trace.frame("runtime").query("kind == 'retake'")
    assert len(retakes) > CALLS / 2
    return True


# Later than its series' last row; between two series, as Go 1.20 is, whose rows differ in a field
# that is needed (m.syscalltick) and that the program's code tells; and earlier than the first.
@pytest.mark.parametrize(
    ("version", "dropped", "told"),
    [
        ("1.27.3", ("go1.27.3",), "assumed from go1.27.0"),
        ("1.21.13", ("go1.21.13",), "assumed from go1.19.8 and go1.22.10"),
        ("1.25.5", ("go1.25.5",), "assumed from go1.25.0"),
        ("1.26.6", ("go1.26.0", "go1.26.6", "go1.27.0", "go1.27.3"), None),
    ],
)
def test_the_neighbours_rows_are_used_where_memory_confirms_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    dropped: tuple[str, ...],
    told: str | None,
) -> None:
    trace = sleeps(tmp_path / "t", version, without(*dropped), monkeypatch)
    target = trace.manifest.target
    assert target.version == f"go{version}"
    assert target.offsets_from == told
    assert is_read(trace) == (told is not None)
    lacks = [missing for missing in trace.manifest.missing if "assumed from" in missing.why]
    # go1.25.5's row is the nearest to go1.26.6 then, and not what it has.
    assert all("go1.25.5" in missing.why and missing.mend for missing in lacks)
    assert (not lacks) == (told is not None)


def test_a_release_that_is_not_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = sleeps(tmp_path / "t", "1.26.3", shipped_offsets(), monkeypatch)
    assert trace.manifest.target.offsets_from == "assumed from go1.26.0 and go1.26.6"
    assert is_read(trace)


@pytest.mark.parametrize(
    "wrong",
    [{"m_procid": 72}, {"m_procid": 184}, {"g_m": 56}, {"p_m": 56}],
)
def test_rows_that_are_wrong_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int]
) -> None:
    rows = without("go1.27.3")
    rows["go1.27.0"] |= wrong
    trace = sleeps(tmp_path / "t", "1.27.3", rows, monkeypatch)
    assert trace.manifest.target.offsets_from is None
    assert not is_read(trace)
    (lack,) = [m for m in trace.manifest.missing if "assumed from go1.27.0" in m.why]
    assert lack.mend
    assert "\n" not in f"{lack}"


def test_what_needs_no_offset_is_told_of_a_refused_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = without("go1.27.3")
    rows["go1.27.0"] |= {"m_procid": 184}
    binary = built(toolchains.build, "blockread", "1.27.3", "stripped")
    with parsed_by(rows, tmp_path, monkeypatch):
        options = CaptureOptions(probes="exact")
        record([str(binary), "300"], output=tmp_path / "t", options=options)
    trace = load(tmp_path / "t")
    assert trace.manifest.target.offsets_from is None
    assert not trace.summary()["p_known"]
    assert len(trace.frame("block")) == 0
    runtime = trace.frame("runtime")
    assert (runtime["kind"] == "retake").sum() > 2
    assert runtime[["p", "m", "goid", "npidle", "global_runq"]].isna().all(axis=None)
    # A read whose timer was due before the thread came to it does not block: few of them.
    assert (trace.frame("syscall")["nr"] == NR_READ).sum() > 240


def test_a_command_is_in_reach_once_its_memory_confirms_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = built(toolchains.build, "blockread", "1.27.3", "stripped")
    # And another process of it from its exec on.
    command = ["sh", "-c", f"{binary} 1000; {binary} 50"]
    confirmed_ns = []
    step = Assumed.step

    def noted(self: Assumed) -> list[tuple[Image, Known, int]]:
        passed = step(self)
        confirmed_ns.extend([time.clock_gettime_ns(time.CLOCK_MONOTONIC)] * len(passed))
        return passed

    with parsed_by(without("go1.27.3"), tmp_path, monkeypatch):
        monkeypatch.setattr(Assumed, "step", noted)
        record(command, output=tmp_path / "t", options=CaptureOptions())
    trace = Trace(tmp_path / "t")
    assert trace.manifest.target.offsets_from == "assumed from go1.27.0"
    reach = trace.frame("reach")
    first, second = reach[reach["runtime"] == "go"].sort_values("exec_ns").itertuples()
    assert first.ts_ns > first.exec_ns
    assert second.ts_ns == second.exec_ns
    # Elsewhere a thread may wait for a page, or for a lock of the runtime that another M has.
    blocks = trace.frame("block").query("nr == @NR_READ")
    blocks = blocks.merge(trace.frame("task")[["tid", "pid"]].drop_duplicates())
    assert set(blocks["goid"]) == {1}
    # Not a block before; those of the moment in which the capture is told so may be there.
    (confirmed,) = confirmed_ns
    assert first.exec_ns < confirmed <= first.ts_ns
    blocks = blocks[blocks["pid"] == first.pid]
    assert len(blocks) > 10
    assert (blocks["ts_ns"] > confirmed).all()


def test_the_doctor_tells_what_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = built(toolchains.build, "blockread", "1.27.3", "stripped")
    monkeypatch.setattr("tracer.capture.doctor.MODES", {})
    with parsed_by(without("go1.27.3"), tmp_path, monkeypatch):
        *_, program, offsets = diagnose(binary)
    assert (program.name, program.detail) == (str(binary), "go1.27.3")
    assert offsets.ok
    assert offsets.detail.startswith("assumed from go1.27.0")


# What a program that runs does not always show: it is 0, or empty, or a counter.
UNSEEN = ("m_syscalltick", "p_syscalltick", "p_timer", "p_timer_modified")
UNSEEN += ("sched_runqsize", "sched_gcwaiting")
NEEDED = set(GO_FIELDS).difference(UNSEEN)


def cpu_ticks(pid: int) -> int:
    """The CPU time that a process has had, in hundredths of a second."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(told[11]) + int(told[12])


def ran_ns(pid: int) -> int:
    """For how long the threads of a process have run."""
    told = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(words.split()[0]) for words in told)


@pytest.mark.parametrize("version", toolchains.VERSIONS)
def test_no_row_is_confirmed_that_differs_in_what_is_needed(version: str) -> None:
    binary = inspected("blockread", version, "stripped")
    own = shipped_offsets()[f"go{version}"]
    others = {tuple(row.values()): (name, row) for name, row in shipped_offsets().items()}
    with subprocess.Popen([binary.path, "1000000"], stdout=subprocess.DEVNULL) as program:
        try:
            memory = ProcessMemory(TargetFiles(), program.pid)
            bias = load_bias(program.pid, binary.layout.first_code)
            looked_at = 0
            for name, row in others.values():
                # The code tells where the lock is, and so where the struct begins.
                sched = binary.layout.sched + own["sched_lock"] - row["sched_lock"]
                layout = dataclasses.replace(binary.layout.at(bias).with_offsets(row), sched=sched)
                differ = {field for field in NEEDED if row[field] != own[field]}
                check = SelfCheck(layout)
                for looks in itertools.count():
                    # A program that has no CPU may stand between two steps, as out of order at
                    # each of many looks as at the first.
                    while (has_run := ran_ns(program.pid)) == looked_at:
                        os.sched_yield()
                    looked_at = has_run
                    check.look(memory)
                    # The program's own row is right, but nothing is seen of one that has no CPU.
                    waits = row == own and cpu_ticks(program.pid) < MANY_TICKS
                    if check.passed or check.refused or (looks > MANY and not waits):
                        break
                if differ:
                    assert not check.passed, (name, differ)
                if row == own:
                    assert check.passed, (check.refused, check.open)
        finally:
            program.kill()


def test_a_program_in_a_pid_namespace_is_confirmed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = built(toolchains.build, "blockread", "1.27.3", "stripped")
    with (
        parsed_by(without("go1.27.3"), tmp_path, monkeypatch),
        subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", binary, "1000000"],
            stdout=subprocess.DEVNULL,
        ) as outside,
    ):
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        inside = ""
        while not inside or Path(f"/proc/{inside}/exe").readlink() != binary:
            inside = children.read_text().strip()
        pid = int(inside)
        decided = 0

        def look(check: SelfCheck, memory: Memory) -> None:
            nonlocal decided
            honest(check, memory)
            decided += check.passed or check.refused is not None

        honest = SelfCheck.look
        monkeypatch.setattr(SelfCheck, "look", look)
        told: list[Progress] = []

        def end(progress: Progress) -> None:
            if decided:
                told.append(progress)
            # A few blocks after it was decided.
            if told and progress.events > told[0].events + 1000:
                os.kill(pid, signal.SIGKILL)

        try:
            record(pid=pid, output=tmp_path / "t", options=CaptureOptions(), progress=end)
        finally:
            outside.kill()
    trace = Trace(tmp_path / "t")
    assert trace.manifest.target.offsets_from == "assumed from go1.27.0"
    assert trace.frame("reach")["ts_ns"].notna().all()
    assert set(trace.frame("block").query("nr == @NR_READ")["goid"]) == {1}
