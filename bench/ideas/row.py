"""A row of docs/the-discussion.md, and what the figures of several are made with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import results
from bench.ideas.pictures import Draw
from reference_runtime import Runtime
from reference_runtime.sim.costs import Costs
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.workloads import make_workload, run_workload

ROUNDS = 3
GoTimes = dict[tuple[int, str], float]
"""Round trips of gVisor's pattern in real Go, ns, by GOMAXPROCS and call; empty without Go."""


@dataclass(frozen=True)
class Row:
    """One idea: what the discussion says, what was measured, and what that means.

    Args:
        draw: its picture, if it has one, for the page.
    """

    idea: str
    said: str
    here: str
    go: str
    means: str
    draw: Draw | None = None

    def told(self) -> dict[str, str]:
        """Its texts, by name."""
        return {name: text for name, text in vars(self).items() if name != "draw"}


def echo(policy: str, **parameters: Any) -> float:  # noqa: ANN401  whatever the workload takes
    """Median round trip, ns, of the rounds' median."""
    told: list[float] = []
    for _ in range(ROUNDS):
        result: Any = run_workload("echo", policy=policy, seconds=0.7, **parameters)
        told.append(result["round_trip_ns"]["p50"])
    return median(told)


def simulated(workload: str, policy: Any, procs: int = 1, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
    """A workload on the simulated host; of the parameters ``costs`` is the machine's."""
    costs = parameters.pop("costs", Costs())
    runtime = Runtime(procs, policy, host=SimHost(2, costs))
    begin_ns = int(runtime.host.nanotime())
    result: Any = runtime.run(make_workload(workload, **parameters).main)
    return {
        "result": result,
        "record": runtime.record,
        "clock_ns": int(runtime.host.nanotime()) - begin_ns,
    }


def ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f}"


def overlay(way: str) -> str:
    """A way of retaking in real Go: its round trip against sysmon's, where that was measured."""
    file = results.FOLDER / "retake_go.json"
    if not file.exists():
        return "–"
    told = json.loads(file.read_text())
    ratios = [
        f"{row['netstack-1p'][way]['p50_ns'] / row['netstack-1p']['sysmon']['p50_ns']:.2f} "
        f"(Go {version})"
        for version, row in told.items()
        if version != "machine"
    ]
    return f"[another run](retake-in-go.md): {', '.join(ratios)}"
