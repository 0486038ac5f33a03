"""``pretake whatif``: a captured run, replayed under other policies and on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pretake.types import Number
from pretake.views import cells, console, duration, table, write_rows

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.whatif.predict import Machine, Replay
    from analysis.whatif.scripts import Goroutine, Step
    from reference_runtime.sim import replay as sim

_MOST_CPUS = 1 << 16
_HEADS = {
    "retake_p50_ns": "retake p50",
    "retake_p90_ns": "p90",
    "retake_p99_ns": "p99",
    "without_p50_ns": "P without G",
    "harm_ns": "lost P",
    "calls_per_s": "calls/s",
    "handoffs": "handoffs",
}
_SPARE = ("p90", "handoffs", "calls/s", "p99", "P without G")
"""Columns that a narrow terminal does without, the first of them first."""


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--retake",
    metavar="POLICY,…",
    help="Policies to replay the run under. 'oracle' knows the length of each call beforehand. "
    "Default: those that the program's runtime could have, and the captured one with one P "
    "and with one CPU more.",
)
@click.option("--procs", type=click.IntRange(1), help="Number of Ps. Default: as captured.")
@click.option(
    "--cpus", type=click.IntRange(1, _MOST_CPUS), help="Number of CPUs. Default: as captured."
)
@click.option(
    "--syscall-cost",
    type=Number(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Cost of a system call, as a multiple of the captured machine's (2 to 3 under KVM).",
)
@click.option(
    "--calls",
    type=click.IntRange(40),
    default=20_000,
    show_default=True,
    help="How many calls of the run to replay.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(
    trace: Path,
    retake: str | None,
    procs: int | None,
    cpus: int | None,
    syscall_cost: float,
    calls: int,
    as_json: bool,
) -> None:
    """Replay the run in TRACE under other retake policies, on a simulated machine.

    \b
    Example:
      pretake whatif server.pretake --retake sched_out,block --procs 8

    The first half of the run shows what each step costs on its machine, such as waking a thread.
    The second half is replayed under each policy. It is also replayed under the policy that was
    really used, and each column of that replay is compared with the run. A column that is more
    than 25 % off there is not predicted for any policy.
    """
    from analysis import load
    from analysis.whatif.errors import (
        COLUMNS,
        LIMIT_PERCENT,
        error_name,
        signed_text,
        withheld,
    )

    loaded = load(trace)
    policies = retake.split(",") if retake else usual_policies(loaded.manifest.target.runtime)
    predicted = loaded.whatif(
        [name.strip() for name in policies],
        play,
        procs=procs,
        cpus=cpus,
        syscall_cost=syscall_cost,
        limit=calls,
        one_more=retake is None,
    )
    if as_json:
        write_rows(predicted)
        return
    captured, *replayed = cells(predicted)
    rows = [
        (
            _name(row, captured),
            *(_text(column, row[column]) if row["ends"] else "no end" for column in COLUMNS),
        )
        for row in (captured, *replayed)
    ]
    errors = [signed_text(replayed[0][error_name(column)]) for column in COLUMNS]
    rows.insert(1, ("error of a replay", *errors))
    terminal = console()
    title = f"What if: {captured['calls']:,} calls"
    terminal.print(table(title, ("policy", *_HEADS.values()), rows, spare=_SPARE))
    terminal.print(
        "(run): as captured. error of a replay: how far a replay of the captured policy is above "
        f"the run. A column with more than {LIMIT_PERCENT:g} % is not told."
    )
    for line in withheld((captured, *replayed), _HEADS):
        terminal.print(line, markup=False)
    _tell_quota(terminal, captured)
    if syscall_cost != 1 and loaded.manifest.asked.get("detail") != "full":
        terminal.print(
            "Calls that did not block are not more expensive here, because they were not "
            "captured: 'pretake record --detail full' captures them."
        )


def _tell_quota(terminal: Console, captured: dict[str, Any]) -> None:
    taken_ns = captured["throttled_ns"]
    if taken_ns is None:
        terminal.print("a quota: not predicted, since no cgroup was asked what its quota took")
    elif taken_ns:
        terminal.print(
            f"no quota: CPU quotas throttled the run for {duration(taken_ns)}, and a replay has "
            "no quota. Its errors are of the part which was not throttled. A larger quota is "
            "not predicted, because the trace does not say how large the quota was."
        )


def usual_policies(runtime: str) -> list[str]:
    """What to replay if nobody says; for Go not what needs another kernel or sees the future."""
    from reference_runtime.policies import POLICIES

    if runtime == "go":
        return [name for name in POLICIES if name not in ("ums", "upcall", "integrated")]
    return [*POLICIES, "oracle"]


def _name(row: dict[str, Any], captured: dict[str, Any]) -> str:
    if row is captured:
        return f"{row['policy']} (run)"
    from analysis.whatif.predict import machine_text

    return f"{row['policy']}{machine_text(row, captured)}"


def _text(column: str, value: float | None) -> str | None:
    if column.endswith("_ns"):
        return duration(value)
    return None if value is None else f"{value:,.0f}"


def play(
    goroutines: Sequence[Goroutine], policy: str, machine: Machine, max_ns: int
) -> Replay | None:
    """Play scripts on the simulated host: a :class:`analysis.whatif.predict.Replayer`."""
    from dataclasses import replace

    import numpy as np

    from analysis.whatif.predict import Replay
    from reference_runtime.sim import replay as sim
    from reference_runtime.sim.costs import Costs
    from reference_runtime.sim.errors import DeadlockError, LivelockError
    from tracer.trace.schema import UNKNOWN

    # What a call that did not block costs more than it did: its own time is CPU time already.
    dearer_ns = Costs().syscall_ns * (machine.syscall_cost - 1)
    scripts = [
        sim.Script([_step(step, dearer_ns) for step in goroutine.steps], goroutine.start_ns)
        for goroutine in goroutines
    ]
    prices: dict[str, Any] = dict(machine.costs)
    try:
        told = sim.replay(
            scripts,
            policy,
            procs=machine.procs,
            cpus=machine.cpus,
            costs=replace(Costs(syscall_scale=machine.syscall_cost), **prices),
            max_ns=max_ns,
        )
    except (DeadlockError, LivelockError):
        return None
    known = [e for e in told.episodes if e.release_ns != UNKNOWN]
    ran = [e for e in known if e.run_ns != UNKNOWN]
    given = [e for e in ran if e.outcome() == "handed_off"]
    return Replay(
        np.array(told.retake_ns, np.int64),
        np.array([e.hold_ns() for e in known if e.outcome() == "retaken"], np.int64),
        np.array([e.run_ns - e.release_ns for e in ran], np.int64),
        np.array([e.block_ns - e.release_ns for e in given], np.int64),
        np.array([e.run_ns - min(e.block_ns, e.release_ns) for e in ran], np.int64),
        told.harm_ns,
        told.calls,
        told.elapsed_ns,
        told.handoffs,
    )


def _step(step: Step, dearer_ns: float) -> sim.Step:
    from reference_runtime.sim import replay as sim
    from tracer.trace.schema import UNKNOWN

    if step.kind == "cpu":
        return sim.Cpu(max(step.ns + round(step.calls * dearer_ns), 0))
    if step.kind == "sleep":
        return sim.Sleep(step.ns)
    if step.kind == "yield":
        return sim.Yield()
    if step.kind == "fire":
        return sim.Fire(step.event)
    until = None if step.event == UNKNOWN else step.event
    return sim.Call(step.site, step.ns, step.cpu_ns, until, step.after_ns)
