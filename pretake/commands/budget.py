"""``pretake budget``: where every P-second went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.views import call_text, console, duration, note, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.answers.budget import Process

SHOWN = 10


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def command(trace: Path, as_json: bool) -> None:
    """Show where the P time of each process in TRACE went, and whose work waited meanwhile.

    \b
    Examples:
      pretake budget server.pretake
      pretake budget server.pretake --json | jq '.processes[0].states'

    At each moment each P is in exactly one state, so the states add up to GOMAXPROCS x time. A P
    is lost while it neither runs nor is idle, and a goroutine waits that no idle P and no spinning
    M takes. P time whose state the trace does not show is 'unknown'. Figures that depend on it are
    printed as a least and a most.
    """
    from analysis import load
    from analysis.answers.budget import STATE_MEANINGS

    budget = load(trace).budget()
    if as_json:
        print_json(budget)
        return
    terminal = console()
    if not budget["processes"]:
        note("No process had a P that could be read; 'pretake summary' tells what is missing.")
    for process in budget["processes"]:
        _print(terminal, process)
    for state, meaning in STATE_MEANINGS.items():
        if any(process["states"][state] for process in budget["processes"]):
            terminal.print(f"{state}: {meaning}")


def _print(terminal: Console, process: Process) -> None:
    from analysis.answers.now import process_name

    total = process["p_ns"]
    of_which = process["of_which"]
    rows = []
    for state, ns in process["states"].items():
        lost = process["lost_ns"].get(state)
        rows.append((state, duration(ns), _percent(ns, total), *_range(lost)))
        if state == "no_cpu" and of_which["throttled"]:
            ns = of_which["throttled"]
            rows.append(("  of it throttled", duration(ns), _percent(ns, total), None, None))
        if state == "idle" and of_which["idle_beside_work"]:
            ns = of_which["idle_beside_work"]
            rows.append(("  of it beside work", duration(ns), _percent(ns, total), None, None))
    title = f"{process_name(process)}: {duration(total)} of P time"
    terminal.print(table(title, ("state", "P time", "share", "lost, least", "most"), rows))
    lost_at = [row for row in process["lost_at"] if row["most"]][:SHOWN]
    if lost_at:
        sites = [
            (
                _place(row["function"], row["file"], row["line"]),
                call_text(row["syscall"] or row["state"], row["runtime_wait"], row["raw"]),
                f"{row['holds']:,}",
                duration(row["least"]),
                duration(row["most"]),
            )
            for row in lost_at
        ]
        head = ("site", "call", "holds", "lost, least", "most")
        terminal.print(table("Lost P time by call site", head, sites))
    _print_rest(terminal, process)


def _print_rest(terminal: Console, process: Process) -> None:
    wait, taken, stops = process["wait_ns"], process["taken"], process["stops"]
    unknown = wait["unknown"]
    doubt = f" For {duration(unknown)} their number is not known." if unknown else ""
    terminal.print(
        f"Goroutines waited for {duration(wait['least'])} to {duration(wait['most'])} in all."
        f"{doubt}"
    )
    latency = process["without_goroutine_ns"]
    if latency["count"]:
        terminal.print(
            f"How long a P was without a goroutine: p50 {duration(latency['p50'])}, "
            f"p99 {duration(latency['p99'])}, max {duration(latency['max'])} "
            f"({latency['count']:,} times, {latency['unknown']:,} unknown)"
        )
    if any(taken.values()):
        terminal.print(f"Ps taken from threads in calls, by state of the thread: {_counts(taken)}")
    holds = process["holds"]
    if holds["count"]:
        terminal.print(
            f"Calls and faults held Ps {holds['count']:,} times ({holds['unknown']:,} with an "
            f"unknown end). Their threads were blocked for {duration(holds['blocked_ns'])}, "
            f"{duration(holds['monitor_no_cpu_ns'])} of it while sysmon waited for a CPU. Then "
            f"they waited for a CPU for {duration(holds['awake_ns'])}."
        )
    if stops["count"]:
        stopping = stops["stopping_ns"]
        what = "stop-the-world" if stops["count"] == 1 else "stop-the-worlds"
        terminal.print(
            f"{stops['count']:,} {what} took p50 {duration(stopping['p50'])}, p99 "
            f"{duration(stopping['p99'])}, max {duration(stopping['max'])} to stop "
            f"({stops['unknown']:,} unknown)"
        )
        for waited in stops["waited_for"][:SHOWN]:
            what = waited["function"] or waited["syscall"] or "a place that is not known"
            terminal.print(f"  waited {duration(waited['ns'])} for {what} ({waited['state']})")
    if not stops["every"]:
        terminal.print(
            "Stop-the-worlds that began and ended between two looks at the runtime are not "
            "counted: 'pretake record --probes exact' sees each of them."
        )


def _counts(taken: object) -> str:
    assert isinstance(taken, dict)
    return ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in taken.items())


def _range(lost: object) -> tuple[str | None, str | None]:
    if not isinstance(lost, dict):
        return None, None
    return duration(lost["least"]), duration(lost["most"])


def _percent(ns: int, total: int) -> str:
    from analysis.units import percent_text

    return percent_text(100 * ns / total if total else None)


def _place(function: str | None, file: str | None, line: int | None) -> str:
    where = "" if file is None else f" ({Path(file).name}{'' if line is None else f':{line}'})"
    return f"{function or '?'}{where}"
