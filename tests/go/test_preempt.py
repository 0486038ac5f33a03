"""Three ways of an endless loop, and who stops it: SIGURG, nobody, or not there.

The article's programs: a loop without a call ends by a signal; without signals it never does;
and a function in which the compiler allows no stop refuses every one of them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.answers.preemptions import interrupted_calls, preemptions
from tests.go import toolchains
from tests.go.capture import capture
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

# Both models of a P in a system call; the oldest.
VERSIONS = ("1.19.8", "1.25.5", "1.27.3")
ENOUGH = 10
RUNS = 20
NR_READ = 0


def requests_of(
    tmp_path: Path, how: str, version: str = VERSIONS[-1], seconds: float | None = None
) -> tuple[Trace, pd.DataFrame]:
    """A capture of ``preempt HOW``, to its end or for so long, and its requests."""
    binary = toolchains.build("preempt", version)
    options = CaptureOptions(force=True, seconds=seconds, probes="exact")
    record([str(binary), how], output=tmp_path / "t", options=options)
    trace = Trace(tmp_path / "t")
    return trace, preemptions(trace)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_endless_loop_is_ended_by_a_signal(version: str, tmp_path: Path) -> None:
    trace, requests = requests_of(tmp_path, "loop", version)
    assert trace.manifest.exit_status == 0
    stopped = requests[requests["outcome"] == "stopped"]
    assert set(stopped["how"]) == {"async"}
    # Where the program was slow to start, main was asked too.
    met = stopped[stopped["function"] == "main.main.func1"]
    assert len(met) >= 1
    assert set(met["reason"]) == {"time_slice"}
    assert set(met["point"]) == {"safe"}
    assert (met["asked_ns"] < met["delivered_ns"]).all()
    assert (met["delivered_ns"] < met["ended_ns"]).all()
    # While a signal is on its way, a request sends no other: so it may have been an earlier one's.
    sent = requests[requests["sent_ns"].notna()]
    assert len(sent) >= 1
    assert (sent["asked_ns"] < sent["sent_ns"]).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_without_signals_it_never_ends(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GODEBUG", "asyncpreemptoff=1")
    trace, requests = requests_of(tmp_path, "loop", version, seconds=2)
    # The capture ended it: it was still running, though asked again and again.
    assert trace.manifest.exit_status is not None
    assert trace.manifest.exit_status < 0
    assert len(requests) > ENOUGH
    assert set(requests["reason"]) == {"time_slice"}
    assert requests["sent_ns"].isna().all()
    assert requests["outcome"].isna().all()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_nosplit_loop_refuses_every_signal(version: str, tmp_path: Path) -> None:
    trace, requests = requests_of(tmp_path, "nosplit", version, seconds=2)
    assert trace.manifest.exit_status is not None
    assert trace.manifest.exit_status < 0
    there = requests[requests["function"] == "main.nosplit"]
    refused = there[there["outcome"] == "refused"]
    assert len(refused) > ENOUGH
    assert set(refused["how"]) == {"unsafe_point"}
    assert set(refused["why"]) == {"unsafe point in function main.nosplit"}
    # Where the loop begins, a signal may also meet the runtime; where the program was slow to
    # start, main was asked too, and may have stopped.
    loops = requests[requests["goid"].isin(set(there["goid"].dropna()))]
    assert len(loops) >= len(refused)
    assert (loops["outcome"] != "stopped").all()


def test_assembly_refuses(tmp_path: Path) -> None:
    trace, requests = requests_of(tmp_path, "assembly")
    assert trace.manifest.exit_status == 0
    there = requests[requests["function"] == "main.spin"]
    assert len(there) > ENOUGH
    # What came to the end of the program, or of the trace, is told no end.
    assert set(there["outcome"].dropna()) == {"refused"}
    assert set(there["why"].dropna()) == {"assembly function main.spin"}


def test_some_instructions_of_a_function_are_safe_and_some_not(tmp_path: Path) -> None:
    _, requests = requests_of(tmp_path, "barrier")
    there = requests[requests["function"] == "main.barrier"]
    assert len(there) > ENOUGH
    assert {"stopped", "refused"} == set(there["outcome"].dropna())
    # Where a goroutine stopped, the compiler's table says of the very instruction that it may.
    assert set(there.loc[there["outcome"] == "stopped", "point"]) == {"safe"}
    assert "unsafe_point" in set(there.loc[there["outcome"] == "refused", "point"])


def test_the_collector_and_stop_the_world_ask_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMAXPROCS", "3")
    reasons: set[str] = set()
    # A goroutine that has no CPU as the collector comes by need not be suspended.
    for _ in range(RUNS):
        trace, requests = requests_of(tmp_path, "collect")
        assert trace.manifest.exit_status == 0
        stopped = requests[requests["outcome"] == "stopped"]
        assert set(stopped["how"]) == {"async"}
        reasons |= set(stopped["reason"])
        if {"stw", "suspend"} <= reasons:
            return
    pytest.fail(f"in {RUNS} runs, goroutines stopped for {reasons}")


@pytest.mark.parametrize("version", VERSIONS)
def test_calls_that_failed_with_eintr_are_those_that_the_program_counted(
    version: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = capture(tmp_path / "t", "eintr", version=version)
    told = dict(map(_numbers, capfd.readouterr().out.splitlines()))
    # What the kernel begins again does not fail; all else did.
    assert told.pop(NR_READ) == 0
    assert min(told.values()) > 0
    ours = interrupted_calls(trace)
    assert dict(zip(ours["nr"], ours["times"], strict=True)) == told
    # The read was interrupted as well, and each signal was a request's.
    requests = preemptions(trace)
    assert requests["interrupted_nr"].value_counts().to_dict() == told
    assert requests["delivered_ns"].count() > sum(told.values())
    assert set(requests["outcome"].dropna()) == {"refused"}


def _numbers(line: str) -> tuple[int, int]:
    nr, times = line.split()
    return int(nr), int(times)
