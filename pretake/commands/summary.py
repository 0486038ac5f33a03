"""``pretake summary``: the numbers of a trace."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.views import (
    at_least,
    bytes_text,
    console,
    duration,
    pressure_sheet,
    print_json,
    quantiles,
    table,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding

    from analysis.answers.budget import Budget, Process
    from analysis.answers.now import Verdict
    from analysis.answers.summary import Summary


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def command(trace: Path, as_json: bool) -> None:
    """Say how much P time was lost in TRACE, to what, and what helps.

    \b
    Examples:
      pretake summary server.pretake
      pretake summary server.pretake --json | jq .retake_ns.p99

    P time is lost while a P runs nothing although a goroutine is ready and no other P can take it.
    '≥' before a sum means that it is a least value: the episodes counted as unknown would add.
    """
    from analysis import load
    from analysis.answers.now import what_now
    from analysis.units import runtime_text

    loaded = load(trace)
    summary, budget = loaded.summary_and_budget()
    verdict = what_now(budget, summary["target"]["runtime"])
    if as_json:
        told = dataclasses.asdict(verdict)
        print_json({"verdict": told, "processes": budget["processes"], **summary})
        return
    terminal = console()
    target = summary["target"]
    runtime = runtime_text(target["runtime"], target["version"])
    terminal.print(f"{trace}: {target['path'] or 'unknown program'} ({runtime})", markup=False)
    _print_verdict(terminal, verdict, budget)
    if summary["p_known"]:
        _print_times(terminal, summary)
    else:
        terminal.print("Which of the threads that blocked held a P is not known; see below.")
    rows = [
        (f"{what} ({reason})", f"{count:,}")
        for what, counts in (("handoff", summary["handoffs"]), ("retake", summary["retakes"]))
        for reason, count in counts.items()
    ]
    if rows:
        terminal.print(table("What the runtime did", ("transition", "times"), rows))
    capture = summary["capture"]
    cost = f", {bytes_text(capture['bytes_per_event'])} each" if summary["events"] else ""
    terminal.print(
        f"{summary['events']:,} events{cost}, {summary['lost']:,} lost, "
        f"{capture['cpu_s'] or 0:.2f} s of CPU in {capture['wall_s'] or 0:.1f} s of capture"
    )
    if not summary["complete"]:
        terminal.print("the capture did not end in order: the last seconds may be missing")
    if summary["suspended_ns"]:
        asleep = duration(summary["suspended_ns"])
        terminal.print(f"the machine was suspended for {asleep} of it, which no time here counts")
    for missing in summary["missing"]:
        terminal.print(f"not captured: {missing}", markup=False)


def _print_verdict(terminal: Console, verdict: Verdict, budget: Budget) -> None:
    from analysis.answers.now import range_text
    from analysis.units import percent_text

    terminal.print(f"\n{verdict.sentence}", style="bold", markup=False)
    helps: dict[str, list[str]] = {}
    for finding in verdict.findings:
        share = range_text(finding.least_percent, finding.most_percent)
        helps.setdefault(finding.today, []).append(f"{share} of P time {finding.what}")
    apart = helps.pop("", [])
    for today, causes in helps.items():
        for cause in causes:
            terminal.print(_indented(cause, 2))
        terminal.print(_indented(f"What helps: {today}.", 4))
    if verdict.stood:
        terminal.print("No other goroutine waited, but the P's own could not go on:")
    for finding in verdict.stood:
        share = range_text(finding.least_percent, finding.most_percent)
        terminal.print(_indented(f"{share} of P time {finding.what}", 2))
        if finding.today not in helps:
            terminal.print(_indented(f"What helps: {finding.today}.", 4))
    if verdict.stops:
        terminal.print(verdict.stops, markup=False)
    apart += [verdict.by_runtime] if verdict.by_runtime else []
    if apart:
        terminal.print("What only the runtime could change:")
    for cause in apart:
        terminal.print(_indented(cause, 2))
    if verdict.others:
        terminal.print(verdict.others, markup=False)
    if not budget["processes"]:
        return
    process = budget["processes"][0]
    rows = [
        (state, duration(ns), percent_text(100 * ns / process["p_ns"]))
        for state, ns in process["states"].items()
        if ns
    ]
    title = f"Where its {duration(process['p_ns'])} of P time went"
    terminal.print(table(title, ("state", "P time", "share"), rows))
    _print_pressure(terminal, process)


def _print_pressure(terminal: Console, process: Process) -> None:
    from analysis.units import percent_text

    told = process["pressure"]
    if not told or not told["total"]["some_most"]:
        return
    title = "Pressure: a P was lost while work waited (some); in addition no P ran (full)"
    terminal.print(pressure_sheet(told, title))
    unknown = percent_text(told["total"]["unknown"])
    terminal.print(f"Shares of time. For {unknown} of P time the state of P is not known.")


def _indented(text: str, columns: int) -> Padding:
    from rich.padding import Padding
    from rich.text import Text

    from pretake.views import printable

    return Padding(Text(printable(text)), (0, 0, 0, columns))


def _print_times(terminal: Console, summary: Summary) -> None:
    from analysis.schema import CLASS_MEANINGS

    names = ("p50", "p90", "p99", "max")
    latency = summary["retake_ns"]
    unknown = f"{latency['unknown']:,}"
    rows = [("P-retake latency", *quantiles(latency, *names), None, unknown)]
    for name, spread in (("hold", summary["hold_ns"]), ("harm", summary["harm_ns"])):
        known = summary["episodes"] - summary["untrusted"] - spread["unknown"]
        # Quantiles of a small part of the episodes would pass for those of all.
        told = quantiles(spread if known >= spread["unknown"] else {}, *names)
        total = at_least(spread["sum"], spread["unknown"])
        rows.append((name, *told, total, f"{spread['unknown']:,}"))
    terminal.print(table("How long", ("", *names, "sum", "unknown"), rows, spare=("p90", "max")))
    parts = [
        (meaning, duration(part["mean_ns"]), f"{part['episodes']:,}")
        for meaning, part in summary["parts"].items()
        if part["episodes"]
    ]
    if parts:
        head = ("part", "mean", "episodes")
        terminal.print(table("Where the latency goes", head, parts))
    terminal.print(
        table(
            f"{summary['episodes']:,} episodes",
            ("class", "episodes", "held"),
            [
                (name, f"{share['episodes']:,}", duration(share["hold_ns"]))
                for name, share in summary["classes"].items()
                if share["episodes"]
            ],
        )
    )
    for name, meaning in CLASS_MEANINGS.items():
        if summary["classes"][name]["episodes"]:
            terminal.print(f"{name}: {meaning}")
