"""``pretake demo``: the reference runtime under several policies, captured and compared."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pretake.types import Number
from pretake.views import cells, console, duration, note, table
from tracer.errors import PretakeError

if TYPE_CHECKING:
    import pandas as pd

WORKLOADS = ("echo", "mix")
POLICIES = ("sysmon", "block", "sched_out", "thread_state", "integrated", "adaptive")
"""All that a real machine runs these workloads under: with ``raw`` they would wait for ever."""


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    metavar="FOLDER",
    help="Folder for the traces and the report.",
)
@click.option(
    "--retake",
    "policies",
    multiple=True,
    default=POLICIES,
    show_default=True,
    metavar="POLICY",
    help="A policy to capture. Repeat it for more.",
)
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    default=WORKLOADS,
    show_default=True,
    metavar="WORKLOAD",
    help="A workload to run. Repeat it for more.",
)
@click.option(
    "--procs", type=click.IntRange(1), default=1, show_default=True, help="Number of Ps."
)
@click.option(
    "--seconds", type=Number(0), default=2.0, show_default=True, help="Length of each capture."
)
def command(
    output: Path,
    policies: tuple[str, ...],
    workloads: tuple[str, ...],
    procs: int,
    seconds: float,
) -> None:
    """Capture the reference runtime under several retake policies, and compare them.

    \b
    Example:
      pretake demo --retake sysmon --retake block --seconds 5

    Each workload runs under each policy while it is captured. The command writes one trace for
    each run, prints a table that compares them, and draws a report. It replaces the traces of an
    earlier demo.
    """
    from analysis.answers.compare import compare
    from analysis.report import report
    from tracer.trace.reader import Trace

    output.mkdir(parents=True, exist_ok=True)
    terminal = console()
    traces: dict[tuple[str, str], Path] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Where nobody watches a spinner, each step is a line of its own.
    with Progress(*columns, console=console(stderr=True)) as progress:
        for workload in workloads:
            for policy in policies:
                step = progress.add_task(f"{workload} under {policy}", total=1)
                trace = output / f"{workload}-{policy}.pretake"
                _capture(trace, workload, policy, procs, seconds)
                traces[workload, policy] = trace
                progress.update(step, completed=1)
        step = progress.add_task("finding episodes, drawing the report", total=1)
        loaded = [Trace(path) for path in traces.values()]
        compared = compare(loaded)
        page = report(loaded, output / "report.html")
        progress.update(step, completed=1)
    for workload in workloads:
        rows = compared[compared["workload"] == workload]
        title = f"{workload}, {procs} P, {seconds:g} s under each policy"
        terminal.print(
            table(
                title,
                ("", *(policy.replace("_", "_\n") for policy in rows["policy"])),
                list(_rows(rows)),
            )
        )
    note(f"\n{page} has the pictures: open it in a browser")
    first = shlex.quote(str(traces[workloads[0], policies[0]]))
    note(f"next: pretake episodes {first}")


_FIGURES = {
    "retake p50": "retake_p50_ns",
    "retake p90": "retake_p90_ns",
    "retake p99": "retake_p99_ns",
    "hold p50": "hold_p50_ns",
    "harm, sum": "harm_sum_ns",
    "round trip p50": "round_trip_p50_ns",
    "round trip p99": "round_trip_p99_ns",
    "handoffs": "handoffs",
    "events": "events",
    "events lost": "lost",
}


def _rows(compared: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """One figure a row, one policy a column: so that many policies fit a terminal."""
    traces = cells(compared)
    for name, column in _FIGURES.items():
        values = [trace[column] for trace in traces]
        if column.endswith("_ns"):
            if any(value is not None for value in values):
                yield (name, *map(duration, values))
        else:
            yield (name, *(f"{value:,}" for value in values))
    yield (
        "capture CPU",
        *(_capture_share(trace["capture_cpu_ns"], trace["capture_wall_ns"]) for trace in traces),
    )


def _capture_share(part: object, whole: object) -> str:
    if not isinstance(part, int) or not isinstance(whole, int) or not whole:
        return duration(None)
    return f"{100 * part / whole:.1f} %"


def _capture(trace: Path, workload: str, policy: str, procs: int, seconds: float) -> None:
    """Capture one run, in a process of its own: only that needs privilege."""
    # -B: under sudo, Python would leave files of root's beside its sources.
    python = [sys.executable, "-B", "-m", "pretake"]
    run = [*python, "run", workload, "--retake", policy, "--procs", str(procs)]
    run += ["--seconds", str(seconds), "--json"]
    record = [*python, "record", "--quiet", "--force", "-o", str(trace), "--", *run]
    done = subprocess.run([*_privilege(), *record], capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["it said nothing"]
        raise PretakeError(
            f"cannot capture {workload} under {policy}: {told[-1].removeprefix('pretake: ')}",
            "pretake doctor tells what this machine lacks",
        )


def _privilege() -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise PretakeError("capture needs root, and there is no sudo", "run the demo as root")
