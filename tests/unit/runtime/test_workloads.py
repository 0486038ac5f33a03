"""Workloads: their results, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reference_runtime.workloads import WORKLOADS, run_workload
from reference_runtime.workloads.latency import distribution
from tracer.errors import PretakeError


def test_distribution_by_hand() -> None:
    assert distribution([]) == {"count": 0, "p50": None, "p90": None, "p99": None, "max": None}
    assert distribution(range(1, 101)) == {
        "count": 100,
        "p50": 50,
        "p90": 90,
        "p99": 99,
        "max": 100,
    }


@pytest.mark.parametrize("policy", ["sysmon", "block"])
@pytest.mark.parametrize("poller", [False, True])
@pytest.mark.parametrize("procs", [1, 2])
def test_echo_counts_its_round_trips(policy: str, poller: bool, procs: int) -> None:
    result: dict[str, Any] = run_workload(
        "echo", policy=policy, procs=procs, rounds=97, poller=poller, message_bytes=64
    )
    assert result["rounds"] == result["round_trip_ns"]["count"] == 97
    assert (result["workload"], result["policy"], result["procs"]) == ("echo", policy, procs)
    if procs == 1 and not poller:
        # Every poll of either side that blocked gave its P away, one way or the other.
        lost = "retakes" if policy == "sysmon" else "handoffs"
        assert result["runtime"][lost] >= 97


@pytest.mark.parametrize("policy", ["sysmon", "block"])
@pytest.mark.parametrize("procs", [1, 2])
def test_mix_makes_each_kind_of_call(policy: str, procs: int) -> None:
    result: dict[str, Any] = run_workload(
        "mix", policy=policy, procs=procs, rounds=101, block_ns=20_000, cpu_ns=5_000
    )
    counts = {kind: times["count"] for kind, times in result["call_ns"].items()}
    # Workers look whether it is over before each call, and count it only then: each of the four
    # that lost its CPU in between makes one too many.
    assert sum(counts.values()) == result["rounds"]
    assert 101 <= result["rounds"] < 101 + 4
    assert set(counts) == {"short", "file", "pipe", "sleep"}
    assert min(counts.values()) > 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "nothing"}, "no workload is called 'nothing'"),
        ({"name": "echo", "policy": "psychic"}, "no retake policy is called 'psychic'"),
        ({"name": "echo", "procs": 0}, "0 is no number of Ps"),
        ({"name": "echo", "colour": "red"}, "workload echo has no parameter 'colour'"),
        ({"name": "echo", "policy": "raw"}, "may wait for ever with 1 P: give --procs 2"),
        ({"name": "echo", "policy": "raw", "procs": 2, "busy": 1}, "give --procs 3"),
        ({"name": "prime", "policy": "raw"}, "waits for ever"),
        ({"name": "mix", "policy": "raw", "procs": 4}, "may wait for ever"),
        ({"name": "missing.py:main"}, "there is no file missing.py"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(PretakeError, match=problem) as caught:
        run_workload(**arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.mend


def test_a_file_of_the_users_runs(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from reference_runtime import Channel, go\n"
        "async def main():\n"
        "    channel = Channel()\n"
        "    go(channel.send(5))\n"
        "    return await channel.recv()\n"
    )
    result = run_workload(f"{file}:main", policy="block")
    assert (result["result"], result["rounds"]) == (5, None)
    with pytest.raises(PretakeError, match="no coroutine function 'other'"):
        run_workload(f"{file}:other")
    file.write_text("def main(:\n")
    with pytest.raises(PretakeError, match="line 1"):
        run_workload(f"{file}:main")


def test_what_a_file_returns_is_one_field_and_none_of_the_runs_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "async def main():\n    return {'policy': 'mine', 'runtime': 1, 'rounds': 2}\n"
    )
    result: dict[str, Any] = run_workload(f"{file}:main", policy="block")
    assert result["result"] == {"policy": "mine", "runtime": 1, "rounds": 2}
    assert (result["policy"], result["rounds"]) == ("block", None)
    assert result["runtime"]["threads"] == 1


def test_every_workload_says_what_it_does() -> None:
    assert all((cls.__doc__ or "").strip().splitlines()[0] for cls in WORKLOADS.values())
