"""Workloads: their results, and what they refuse."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from reference_runtime.workloads import WORKLOADS, make_workload, run_workload
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


@pytest.mark.parametrize(
    ("name", "parameter", "value", "mend"),
    [
        ("echo", "message_bytes", "abc", "give a whole number from 0 to"),
        ("echo", "message_bytes", 1.5, "give a whole number from 0 to"),
        ("echo", "message_bytes", -1, "give a whole number from 0 to"),
        ("echo", "busy", True, "give a whole number from 0 to"),
        ("echo", "poller", 7, "give true or false"),
        ("echo", "seed", "abc", "give a whole number"),
        ("echo", "seconds", float("nan"), "give a number from 0 to"),
        ("calls", "kind", 0, "give a word"),
        ("calls", "long_share", "half", "give a number from 0 to"),
        ("cpu", "limit_s", float("inf"), "give a number from 0 to"),
        ("mix", "block_ns", 0, "give a whole number from 1 to"),
        ("mix", "block_ns", 10**13, "give a whole number from 1 to"),
        ("files", "read_bytes", 0, "give a whole number from 1 to"),
        ("timers", "sleep_ns", 0, "give a whole number from 1 to"),
        ("readiness", "connections", 0, "give a whole number from 1 to"),
        ("readiness", "message_bytes", 0, "give a whole number from 1 to"),
    ],
)
def test_a_value_that_is_none_for_its_parameter(
    name: str, parameter: str, value: object, mend: str
) -> None:
    with pytest.raises(PretakeError, match=f"is no {parameter} of workload {name}") as caught:
        make_workload(name, **{parameter: value})
    assert caught.value.mend is not None
    assert caught.value.mend.startswith(mend)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_takes_the_least_of_each_number(name: str) -> None:
    cls = WORKLOADS[name]
    kinds = get_type_hints(cls)
    numbers = [
        f.name for f in fields(cls) if {int, float} & {kinds[f.name], *get_args(kinds[f.name])}
    ]
    least = {number: int(number in cls.not_zero) for number in numbers}
    assert cls.not_zero <= set(numbers)
    made = make_workload(name, **least)
    assert [getattr(made, number) for number in numbers] == list(least.values())


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
