"""What a person is told to change, cause by cause, of real programs in which it is the cause."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from analysis.answers.budget import budget
from analysis.answers.now import Finding, Verdict, what_now
from analysis.whatif.predict import machine_text, whatif
from tests.go import toolchains
from tests.go.capture import capture
from tests.replays import Kept
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

VERSION = toolchains.VERSIONS[-1]


def verdict(trace: Trace) -> Verdict:
    told = what_now(budget(trace), "go")
    assert not told.good
    return told


def of(told: Verdict, cause: str) -> list[Finding]:
    return [f for f in (*told.findings, *told.stood) if f.cause == cause]


def test_a_call_on_a_pollable_descriptor_and_one_p_more(tmp_path: Path) -> None:
    """One P, one goroutine that blocks in raw reads, and others that wait for the P."""
    trace = capture(
        tmp_path / "t", "truth", ["one-p", str(tmp_path / "told")], VERSION, probes="none"
    )
    told = verdict(trace)
    (found,) = (f for f in of(told, "syscall") if "timer.go" in f.what)
    assert found.today.startswith("a descriptor that the network poller waits for")
    assert "fewer of these calls at a time" in found.today
    gain = re.search(
        r"GOMAXPROCS 1 → 2 \(that P would have had work for up to (\S+) %", found.today
    )
    assert gain is not None
    # With one P the time in which it was lost is the lost P time, to which others wait, too.
    assert float(gain[1]) >= found.least_percent - 0.5
    # The runtime was not told of these calls: no sysmon, however soon it came, would take P.
    assert "or syscall.Syscall in place of the raw call, so that sysmon can" in found.today
    assert told.by_runtime == ""


def test_a_mapping_that_is_read_instead(tmp_path: Path) -> None:
    trace = capture(tmp_path / "t", "faults", ["40"], VERSION, probes="none")
    found = of(verdict(trace), "fault")
    # What was lost, or what only its own goroutine waited, or both: at the same place. Beside
    # these faults, one of the program's own text may have to wait, for a disk or for a lock.
    places = Counter[str]()
    for one in found:
        places[re.sub(r":\d+", "", one.what)] += one.most_percent
    assert places.most_common(1)[0][0] == "at main.go (a page fault)"
    assert places["at main.go (a page fault)"] > 0.9 * places.total()
    assert all("MADV_POPULATE_READ" in f.today for f in found)


def test_a_stop_that_waits_for_a_long_clear(tmp_path: Path) -> None:
    trace = capture(
        tmp_path / "t", "truth", ["stops", str(tmp_path / "told")], VERSION, probes="none"
    )
    told = verdict(trace)
    assert re.match(r"At least \d+ stop-the-worlds took ", told.stops)
    assert "waited longest for runtime.memclrNoHeapPointers (" in told.stops
    assert "in smaller pieces" in told.stops


def throttled(group: Path, case: str, folder: Path) -> Trace:
    """A capture of a program that runs in a cgroup from its first instruction on."""
    program = toolchains.build("truth", VERSION, "static")
    inside = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    command = ["bash", "-c", inside, "bash", str(program), case, str(folder / "told")]
    record(command, output=folder / "t", options=CaptureOptions(probes="none"))
    trace = Trace(folder / "t")
    assert trace.manifest.exit_status == 0
    return trace


def test_a_quota_is_raised_by_what_it_took(five_percent: Path, tmp_path: Path) -> None:
    """The only goroutine uses 0.15 s of CPU, and has 5 ms of each 100."""
    trace = throttled(five_percent, "without-cpu", tmp_path)
    process = budget(trace)["processes"][0]
    assert process["of_which"]["throttled"]
    told = [f for f in of(verdict(trace), "no_cpu") if "CPU quota (cpu.max) larger by" in f.today]
    assert told
    more = re.search(r"larger by (\S+) CPUs, which is \S+ .s more in each period", told[0].today)
    assert more is not None
    wall_s = process["pressure"]["total"]["seconds"]
    assert float(more[1]) == pytest.approx(
        process["of_which"]["throttled"] / 1e9 / wall_s, abs=0.006
    )


def test_a_throttled_run_is_replayed_without_its_quota(five_percent: Path, tmp_path: Path) -> None:
    """480 calls on eight Ps; between them goroutines compute, and are throttled."""
    trace = throttled(five_percent, "eight-ps", tmp_path)
    simulator = Kept()
    captured, *replayed = whatif(trace, ["sysmon"], simulator).astype(object).to_dict("records")
    asked = trace.frame("throttle")
    assert 0 < captured["throttled_ns"] <= asked["throttled_ns"].sum()
    assert [machine_text(row, captured) for row in replayed] == [", no quota"]
    # The calls are the same, and in less time.
    without = simulator.last["sysmon"]
    assert without.calls / without.elapsed_ns * 1e9 > captured["calls_per_s"]
