"""The runtime benchmark's ratios and tables, from its results."""

from __future__ import annotations

from typing import Any

from analysis.units import duration_text
from bench.policies import CASES, POLICIES

BEGIN = "<!-- tables: python -m bench.runtime --document -->"
END = "<!-- end of tables -->"

Results = dict[str, Any]


def targets(results: Results) -> list[tuple[str, float | None, str, float]]:
    """What is wanted: (name, measured, "<=" or ">=", bound); None where it was not measured."""
    rows: list[tuple[str, float | None, str, float]] = []
    switch = results.get("switch_ns", {})
    own = switch.get("runtime")
    rows.append(("switch, ns", own, "<=", 150))
    rows.append(("switch, asyncio's against ours", over(switch.get("asyncio"), own), ">=", 15))
    rows.append(("switch, ours against Go's", over(own, switch.get("go")), "<=", 1.2))
    for what, key, bound in (
        ("spawn", "spawn_peers_ns", 1.0),
        ("ping-pong", "ping_pong_ns", 2.3),
    ):
        told = results.get(key, {})
        against = over(told.get("runtime"), told.get("go"))
        rows.append((f"{what}, ours against Go's", against, "<=", bound))

    def figure(case: str, policy: str, key: str) -> float | None:
        value = results.get("policies", {}).get(case, {}).get(policy, {}).get(key)
        return None if value is None else float(value)

    def compared(case: str, policy: str, other: str, key: str) -> float | None:
        return over(figure(case, policy, key), figure(case, other, key))

    retake, trip, ops = "retake_p50_ns", "round_trip_p50_ns", "ops_per_s"
    rows += [
        (
            "echo: retake latency, sched_out against sysmon",
            compared("echo", "sched_out", "sysmon", retake),
            "<=",
            0.1,
        ),
        (
            "echo: retake latency, upcall against sysmon",
            compared("echo", "upcall", "sysmon", retake),
            "<=",
            0.1,
        ),
        (
            "echo: round trip, sched_out against sysmon",
            compared("echo", "sched_out", "sysmon", trip),
            "<=",
            0.3,
        ),
        (
            "echo: round trip, sched_out against block",
            compared("echo", "sched_out", "block", trip),
            "<=",
            1.5,
        ),
        (
            "short calls: throughput, sched_out against sysmon",
            compared("calls_short", "sched_out", "sysmon", ops),
            ">=",
            0.95,
        ),
        (
            "file reads: throughput, sched_out against sysmon",
            compared("files", "sched_out", "sysmon", ops),
            ">=",
            0.95,
        ),
        (
            "echo: retake latency, thread_state against sysmon",
            compared("echo", "thread_state", "sysmon", retake),
            "<=",
            0.6,
        ),
    ]
    for case, bound in (
        ("calls_short", 0.9),
        ("calls_25", 1.0),
        ("calls_50", 1.0),
        ("calls_75", 1.0),
        ("calls_long", 0.9),
    ):
        both = [figure(case, policy, ops) for policy in ("sysmon", "block")]
        best = max((value for value in both if value is not None), default=None)
        rows.append(
            (
                f"{CASES[case].title}: throughput, adaptive against the better of both",
                over(figure(case, "adaptive", ops), best),
                ">=",
                bound,
            )
        )
    rows.append(("simulated host, events a second", results.get("sim_events_per_s"), ">=", 3e5))
    return rows


def over(one: float | None, other: float | None) -> float | None:
    """A ratio; None where a side is not known."""
    return one / other if one is not None and other else None


def verdict(measured: float | None, sign: str, bound: float) -> str:
    if measured is None:
        return "not measured"
    return "reached" if (measured <= bound if sign == "<=" else measured >= bound) else "missed"


def ratios(results: Results) -> list[str]:
    """The targets, one a line, for a terminal."""
    return [
        f"{name:84} {number(measured):>10} {sign} {number(bound):>8}  "
        f"{verdict(measured, sign, bound)}"
        for name, measured, sign, bound in targets(results)
    ]


def number(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def markdown(results: Results) -> str:
    """All tables."""
    machine = results["machine"]
    lines = [
        f"Measured on {machine['cpus']} CPUs, Linux {machine['kernel']}, "
        f"Python {machine['python']}, at a load of {machine['load']:.1f} before the run.",
        "",
    ]
    lines += table(
        ["target", "measured", "wanted", ""],
        [
            [name, number(measured), f"{sign} {number(bound)}", verdict(measured, sign, bound)]
            for name, measured, sign, bound in targets(results)
        ],
    )
    if "switch_ns" in results:
        peers = list(results["switch_ns"])
        lines += ["", "**Peers**, ns; one thread", ""]
        lines += table(
            ["", *peers],
            [
                ["switch", *(number(results["switch_ns"].get(p)) for p in peers)],
                ["spawn", *(number(results["spawn_peers_ns"].get(p)) for p in peers)],
                ["ping-pong", *(number(results["ping_pong_ns"].get(p)) for p in peers)],
            ],
        )
        live = results["live"]
        lines += [
            "",
            f"{live['count']:,} live goroutines took {live['bytes_each']:.0f} B each.",
            "",
        ]
    if "parallel" in results:
        parallel = results["parallel"]
        lines += ["", "**Two Ps in Python code**, throughput against one P's", ""]
        lines += table(
            ["", "goroutines that compute", "pairs that talk over channels"],
            [
                [title, number(parallel[name]["compute"]), number(parallel[name]["messages"])]
                for name, title in (("gil", "with a GIL"), ("no_gil", "without"))
            ],
        )
    for case, policies in results.get("policies", {}).items():
        lines += ["", f"**{CASES[case].title}**", ""]
        head = ["", "retake p50", "latency p50", "p99", "ops/s", "CPU/op", "CPUs", "needless"]
        head += ["wake-ups", "policy wakes", "policy CPU"]
        lines += table(
            head,
            [row(policy, policies[policy]) for policy in POLICIES if policy in policies],
        )
    return "\n".join(lines)


def row(policy: str, figures: dict[str, Any]) -> list[str]:
    return [
        f"`{policy}`",
        duration_text(figures["retake_p50_ns"]),
        duration_text(figures["round_trip_p50_ns"]),
        duration_text(figures["round_trip_p99_ns"]),
        number(figures["ops_per_s"]),
        duration_text(figures["cpu_per_op_ns"]),
        f"{figures['cpu_s']:.2f}",
        f"{figures['needless']:,.0f}",
        f"{figures['wakeups']:,.0f}",
        f"{figures['policy_wakeups']:,.0f}",
        f"{figures['policy_cpu_s']:.3f} s",
    ]
