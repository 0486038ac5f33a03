"""The capture against the program's own execution trace: retakes, one by one, on one clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.trust.witness import Check, check
from tests.go import toolchains
from tests.go.capture import capture
from tracer.trace.reader import Trace

# Go 1.22 brought the trace format that tells of a stolen P.
VERSIONS = [version for version in toolchains.VERSIONS if toolchains.minor(version) >= 22]


# With three Ps, Ms take them from each other in more ways; once for each model of a P in a call.
# There a read in four loses its P, and a share of 0.98 needs a hundred that do.
READS = {"1": "250", "3": "400"}
CASES = [*((version, "1") for version in VERSIONS), ("1.25.5", "3"), ("1.27.3", "3")]

FUTEX = 202
PARK_NS = 10_000
"""findRunnable gives P back before it looks at all queues once more and its thread sleeps. By Go's
time line that P is idle; no event of the kernel tells it from one that runs (docs/limits.md)."""


RUNS = 4
"""Where the host takes a CPU away between Go's clock and the capture's, a retake has no pair, and
a state is told for longer: 20 ms are 2 % of a second. So one of so many runs has to be near."""


@pytest.mark.usefixtures("ahead_of_others")
@pytest.mark.parametrize(("version", "procs"), CASES)
def test_retakes_agree_with_the_runtimes_own_trace(
    version: str, procs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMAXPROCS", procs)
    runs = []
    for run in range(RUNS):
        own = tmp_path / f"{run}.trace"
        trace = capture(tmp_path / f"{run}", "selftrace", [READS[procs], str(own)], version)
        told = check(trace, own)
        assert told["records"] > 20
        # The budget against Go's own time line of each P.
        assert {row["p"] for row in told["p_time"]} == set(range(int(procs)))
        runs.append(differences(trace, told))
        if not runs[-1]:
            return
    pytest.fail(f"differences in the runs: {runs}")


def differences(trace: Trace, told: Check) -> list[object]:
    """What the two tell differently."""
    found: list[object] = []
    if (told["recall"] or 0) < 0.98:
        found.append(("recall", told["recall"], told["missed"]))
    if (told["precision"] or 0) < 0.98:
        found.append(("precision", told["precision"], told["extra"]))
    apart_ns = told["difference_ns"]["p50"]
    if apart_ns is None or apart_ns >= 50_000:
        found.append(("release", apart_ns))
    whole_ns = sum(row["go_ns"] for row in told["p_time"] if row["state"] in ("with_m", "idle"))
    parks = int((trace.frame("syscall")["nr"] == FUTEX).sum())
    parked_percent = 100 * parks * PARK_NS / max(whole_ns, 1)
    for row in told["p_time"]:
        if row["state"] in ("with_m", "idle"):
            near = row["apart_percent"] <= 2 + parked_percent
        elif row["state"] == "stw":
            near = row["apart_percent"] <= 2
        elif row["state"] == "syscall":
            # A call in which the thread only waits for a CPU is one for Go alone.
            near = row["trace_ns"] <= row["go_ns"] * 1.02 + 1_000_000
        else:
            near = True  # running is a part of with_m
        if not near:
            found.append(row)
    return found


def test_stop_the_world_takes_ps_from_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMAXPROCS", "2")
    trace = capture(tmp_path / "t", "stwread", ["150"])
    runtime = trace.frame("runtime")
    starts = runtime[runtime["kind"] == "stw_start"]
    ends = runtime[runtime["kind"] == "stw_end"]
    assert len(starts) > 20
    assert abs(len(starts) - len(ends)) <= 1
    takes = runtime[(runtime["kind"] == "retake") & (runtime["reason"] == "stw")]
    assert len(takes) > 2
    # The goroutine in read is the first one, and its thread is another than the collector's.
    assert set(takes["goid"]) == {1}
    assert (takes["tid"] != takes["target_tid"]).all()
    blocks = trace.frame("block")
    assert set(takes["target_tid"]) <= set(blocks["tid"])
