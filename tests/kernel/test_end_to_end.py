"""The command over everything: the reference runtime, captured, against its own record."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reference_runtime.current import COMPILED
from tests.kernel.started import PRETAKE
from tracer.trace.reader import Trace

pytestmark = [
    pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe"),
]


def pretake(*arguments: object, expect: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [*PRETAKE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode in expect, done.stderr
    return done.stdout


def capture(trace: Path, workload: str, policy: str, *arguments: object) -> Path:
    """Capture a workload; where its own record of retakes went."""
    witness = trace.with_suffix(".jsonl")
    run = [*PRETAKE, "run", workload, "--retake", policy, "--witness", witness, *arguments]
    pretake("record", "-q", "-o", trace, "--", *run)
    return witness


RUNS = 4
"""Where a thread loses its CPU in a call that has yet to block, or between the runtime's clock and
the probe, its retake has no pair. So one of so many runs has to be near."""


@pytest.mark.parametrize("workload", ["echo", "mix"])
def test_retakes_are_those_that_the_runtime_recorded_itself(tmp_path: Path, workload: str) -> None:
    shares = []
    for run in range(RUNS):
        trace = tmp_path / f"{run}.pretake"
        witness = capture(trace, workload, "sysmon", "--seconds", 1)
        both = json.loads(pretake("check", trace, "--witness", witness, "--json", expect=(0, 1)))
        # A kernel may hide the switches of its hypervisor's own agent, from perf too; then a
        # thread enters a CPU unseen. Every other rule must hold.
        broken = {rule["rule"] for rule in both["rules"] if rule["broken"]}
        assert broken <= {"switches_alternate"}
        told = both["witness"]
        recorded = len(witness.read_text().splitlines())
        assert told["records"] + told["unblocked"] == recorded > 0
        assert told["lost"] == 0
        # Each retake that it recorded is told, and nothing else is one.
        kinds = Trace(trace).frame("runtime", ["kind"])["kind"]
        assert (kinds == "retake").sum() == recorded
        shares.append((told["recall"], told["precision"]))
        if min(shares[-1]) >= 0.99:
            return
    pytest.fail(f"recall and precision of the runs: {shares}")


def test_a_prime_number_of_blocking_calls_makes_as_many_episodes(tmp_path: Path) -> None:
    trace = tmp_path / "x.pretake"
    capture(trace, "prime", "block", "--rounds", 23)
    lines = pretake("episodes", trace, "--json").splitlines()
    episodes: list[dict[str, Any]] = [json.loads(line) for line in lines]
    reads = [e for e in episodes if e["syscall"] == "read" and e["p_use"] == "handed_off"]
    assert len(reads) == 23
    assert {e["outcome"] for e in reads} == {"handed_off"}
    assert {e["hold_ns"] for e in reads} == {0}


def test_a_summary_has_what_a_program_reads(tmp_path: Path) -> None:
    trace = tmp_path / "x.pretake"
    capture(trace, "echo", "sysmon", "--rounds", 200)
    told = json.loads(pretake("summary", trace, "--json"))
    for key in ("episodes", "retaken", "kept", "handoffs", "events", "lost"):
        assert key in told
    assert set(told["retake_ns"]) >= {"p50", "p90", "p99", "max"}
    for spread in ("hold_ns", "harm_ns"):
        assert set(told[spread]) >= {"p50", "p99", "sum"}
    assert set(told["capture"]) >= {"wall_s", "cpu_s", "events_per_s", "bytes_per_event"}
    assert told["target"]["runtime"] == "reference"
    manifest = Trace(trace).manifest
    assert manifest.workload is not None
    # A P may be taken from a call that has yet to block, because its thread lost its CPU; and that
    # of a goroutine that was stopped may be given on while its thread is blocked.
    stopped = manifest.workload["runtime"]["preempted_async"]
    assert 0 < told["retaken"] <= told["retakes"]["sysmon"] + stopped
    assert manifest.workload["rounds"] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "-o", "x", "--", "no-such-program"], "there is no program"),
        (["record", "-o", "x", "--pid", str(2**22 - 1)], "there is no process"),
        (["record", "-o", "."], ". exists"),
        (["record", "-o", "x"], "there is nothing to trace"),
        (["record", "-o", "no/such/folder", "--", "true"], "there is no folder"),
        (["summary", "no.pretake"], "does not exist"),
        (["summary", "."], "is no trace"),
        (["run", "no-workload"], "no workload"),
        (["run", "echo", "--retake", "no-policy"], "no retake policy"),
        (["run", "echo", "--procs", "0"], "0 is no number of Ps"),
        (["no-command"], "No such command"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = subprocess.run(
        [*PRETAKE, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("pretake")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
