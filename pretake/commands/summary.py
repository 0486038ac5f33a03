"""``pretake summary``: the numbers of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.views import (
    bytes_text,
    console,
    duration,
    print_json,
    quantiles,
    table,
)

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.answers.summary import Summary


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def command(trace: Path, as_json: bool) -> None:
    """Tell how long blocked threads held Ps in TRACE, and what it cost.

    \b
    Examples:
      pretake summary server.pretake
      pretake summary server.pretake --json | jq .retake_ns.p99

    '≥' before a sum: the episodes that are counted as unknown would add to it.
    """
    from analysis import load
    from analysis.units import runtime_text

    summary = load(trace).summary()
    if as_json:
        print_json(summary)
        return
    terminal = console()
    target = summary["target"]
    runtime = runtime_text(target["runtime"], target["version"])
    terminal.print(f"{trace}: {target['path'] or 'unknown program'} ({runtime})", markup=False)
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


def _print_times(terminal: Console, summary: Summary) -> None:
    names = ("p50", "p90", "p99", "max")
    rows = [("P-retake latency", *quantiles(summary["retake_ns"], *names), None, None)]
    for name, spread in (("hold", summary["hold_ns"]), ("harm", summary["harm_ns"])):
        known = summary["episodes"] - summary["untrusted"] - spread["unknown"]
        # Quantiles of a small part of the episodes would pass for those of all.
        told = quantiles(spread if known >= spread["unknown"] else {}, *names)
        at_least = "≥ " if spread["unknown"] and spread["sum"] is not None else ""
        total = f"{at_least}{duration(spread['sum'])}"
        rows.append((name, *told, total, f"{spread['unknown']:,}"))
    terminal.print(table("How long", ("", *names, "sum", "unknown"), rows))
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
