"""Every retake policy on the same workloads: one run in a process of its own.

``python -m bench.policies '{"workload": …, "policy": …}'`` prints what one run measured.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass, field
from typing import Any

from reference_runtime.workloads import run_workload

POLICIES = (
    *("sysmon", "block", "raw", "sched_out", "upcall", "thread_state", "integrated", "adaptive"),
)
NEED_ROOT = ("upcall",)


@dataclass(frozen=True)
class Case:
    """A workload with its parameters, and the distribution that is its own latency."""

    title: str
    workload: str
    latency: str
    parameters: dict[str, object] = field(default_factory=dict)
    procs: int = 1
    skip: tuple[str, ...] = ()
    """Policies under which it would wait for ever."""


CASES = {
    "echo": Case("echo, netstack pattern", "echo", "round_trip_ns", skip=("raw",)),
    "echo_busy": Case(
        "the same, 2 Ps beside a busy goroutine",
        "echo",
        "round_trip_ns",
        {"busy": 1},
        procs=2,
        skip=("raw",),
    ),
    "echo_poller": Case("echo over the poller", "echo", "round_trip_ns", {"poller": True}),
    "calls_short": Case("calls, all short", "calls", "short_ns", {"long_share": 0.0}),
    "calls_25": Case("calls, 25 % long", "calls", "long_ns", {"long_share": 0.25}),
    "calls_50": Case("calls, 50 % long", "calls", "long_ns", {"long_share": 0.5}),
    "calls_75": Case("calls, 75 % long", "calls", "long_ns", {"long_share": 0.75}),
    "calls_long": Case("calls, all long", "calls", "long_ns", {"long_share": 1.0}),
    "calls_one_site": Case(
        "calls, 50 % long, from one site",
        "calls",
        "long_ns",
        {"long_share": 0.5, "one_site": True},
    ),
    "files": Case("file reads", "files", "read_ns"),
    "timers": Case("timers", "timers", "late_ns"),
    "fanout": Case("fan-out over channels", "fanout", "fan_out_ns"),
    "readiness": Case("readiness only", "readiness", "message_ns"),
}


def measure(name: str, policy: str, seconds: float) -> dict[str, Any]:
    """One run; times in ns, ``cpu_s`` user and system of the whole process meanwhile."""
    case = CASES[name]
    before = resource.getrusage(resource.RUSAGE_SELF)
    result: dict[str, Any] = run_workload(
        case.workload, policy, case.procs, seconds, None, None, **case.parameters
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counters = result["runtime"]
    return {
        "retake_p50_ns": result["retake_ns"]["p50"],
        "round_trip_p50_ns": result[case.latency]["p50"],
        "round_trip_p99_ns": result[case.latency]["p99"],
        "cpu_s": cpu_s / result["wall_s"],
        "cpu_per_op_ns": cpu_s * 1e9 / result["rounds"] if result["rounds"] else None,
        "ops_per_s": result["ops_per_s"],
        "needless": counters["needless"],
        "retakes": counters["retakes"],
        "handoffs": counters["handoffs"],
        "wakeups": counters["wakeups"],
        "policy_wakeups": counters["policy_wakeups"],
        "policy_cpu_s": counters["policy_cpu_ns"] / 1e9,
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(measure(asked["workload"], asked["policy"], asked["seconds"])))
