"""The workloads of one subject each: what they report, on both hosts where they can run."""

from __future__ import annotations

from typing import Any

import pytest

from reference_runtime.runtime import Runtime
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.workloads import make_workload, run_workload
from tracer.errors import PretakeError

POLICIES = ["sysmon", "block", "raw", "sched_out", "thread_state", "integrated", "adaptive"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize(
    ("name", "latency", "parameters"),
    [
        ("files", "read_ns", {"readers": 3}),
        ("timers", "late_ns", {"sleepers": 7, "sleep_ns": 200_000}),
        ("fanout", "fan_out_ns", {"width": 5, "work_ns": 1_000}),
        ("fanout", "fan_out_ns", {"width": 5, "buffer": 2}),
        ("readiness", "message_ns", {"connections": 11}),
    ],
)
def test_each_round_has_its_time(
    policy: str, procs: int, name: str, latency: str, parameters: dict[str, Any]
) -> None:
    result: dict[str, Any] = run_workload(
        name, policy=policy, procs=procs, rounds=53, **parameters
    )
    # Goroutines look whether it is over before a round, so each may begin one too many.
    assert 53 <= result["rounds"] < 53 + 7
    assert result[latency]["count"] == result["rounds"]
    assert 0 < result[latency]["p50"] <= result[latency]["p99"] <= result[latency]["max"]


@pytest.mark.parametrize("policy", [*POLICIES, "ums", "upcall"])
@pytest.mark.parametrize(("kind", "long"), [("short", [0]), ("long", [211]), ("bimodal", None)])
def test_calls_have_the_share_of_long_ones_that_was_asked_for(
    policy: str, kind: str, long: list[int] | None
) -> None:
    workload = make_workload("calls", rounds=211, kind=kind)
    runtime = Runtime(2, policy, host=SimHost(2))
    result: Any = runtime.run(workload.main)
    counts = [result[name]["count"] for name in ("short_ns", "long_ns")]
    assert sum(counts) == result["rounds"] == 211
    # The seed's own: a tenth of 211 is 21.
    assert counts[1] in (long or range(10, 35))


@pytest.mark.parametrize("policy", [*POLICIES, "ums", "upcall"])
@pytest.mark.parametrize("poller", [False, True])
def test_echo_runs_on_the_simulated_host(policy: str, poller: bool) -> None:
    workload = make_workload("echo", rounds=31, poller=poller)
    procs = 2 if policy == "raw" else 1
    result: Any = Runtime(procs, policy, host=SimHost(2)).run(workload.main)
    assert result["round_trip_ns"]["count"] == 31


def test_echo_counts_what_its_busy_neighbour_gets_done() -> None:
    """With one P each wait of either side, two a round, leaves P to the neighbour for a slice."""
    told = []
    for busy in (0, 1):
        workload = make_workload("echo", rounds=31, busy=busy)
        result: Any = Runtime(1, host=SimHost(2)).run(workload.main)
        told.append(result["busy_slices"])
    assert told[0] is None
    assert told[1] >= 2 * 31


def test_readiness_holds_a_buffer_only_while_it_reads() -> None:
    # Without time slices: one that is stopped for its own while it reads holds a buffer meanwhile.
    result: dict[str, Any] = run_workload("readiness", rounds=53, connections=17, preempt="off")
    assert result["buffers"] == 1


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [({"kind": "odd"}, "no kind 'odd'"), ({"long_share": 2}, "2 is no share")],
)
def test_calls_refuse_what_they_cannot_do(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(PretakeError, match=problem):
        run_workload("calls", **parameters)
