"""``pretake check``: a trace against the rules of the model, and against a second witness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.views import cells, console, duration, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.trust.p_time import PTime
    from analysis.trust.probes import ProbesCompared
    from analysis.trust.witness import Check


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--witness",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A second record of the run: Go's execution trace, or that of 'pretake run --witness'. "
    "A dump of 'pretake watch --flight' has its own.",
)
@click.option(
    "--probes",
    is_flag=True,
    help="Compare the retakes inferred without uprobes with those that uprobes recorded "
    "('record --probes both').",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def command(trace: Path, witness: Path | None, probes: bool, as_json: bool) -> int:
    """Check TRACE against the rules of the scheduler, and against a second record of the run.

    \b
    Examples:
      pretake check server.pretake
      pretake check server.pretake --witness go.trace
      pretake check both.pretake --probes

    An example of a rule: two threads cannot be blocked with the same P at the same time. The exit
    status is 1 if a rule about the runtime is broken. A rule about the kernel can be broken in a
    correct trace, because some machines hide threads from every tracer.
    """
    from analysis import load

    loaded = load(trace)
    rules = cells(loaded.validate())
    agreement, why_not = None, ""
    if witness is not None:
        agreement = loaded.check(witness)
    elif loaded.trace.go_trace is not None:
        witness = loaded.trace.go_trace
        agreement, why_not = loaded.check_own()
    compared = loaded.compare_probes() if probes else None
    broken = any(rule["broken"] for rule in rules if rule["kind"] == "runtime")
    asleep_ns = loaded.manifest.suspended_ns
    if as_json:
        told = compared.as_json() if compared is not None else {}
        print_json(
            {"rules": rules, "witness": agreement, "suspended_ns": asleep_ns} | told,
        )
        return int(broken)
    terminal = console()
    head = ("rule", "about", "checked", "broken")
    rows = [
        (rule["meaning"], rule["kind"], f"{rule['checked']:,}", f"{rule['broken']:,}")
        for rule in rules
    ]
    terminal.print(table("The model's rules", head, rows, left=2))
    if agreement is not None:
        terminal.print(table(f"Against {witness}", ("", "value"), _agreement(agreement)))
        if agreement["p_time"]:
            _print_p_time(terminal, agreement["p_time"])
    if why_not:
        terminal.print(f"what Go's own flight recorder gave was not compared: {why_not}")
    if compared is not None:
        terminal.print(table("Without uprobes", ("", "value"), _comparison(compared)))
    if asleep_ns:
        asleep = duration(asleep_ns)
        terminal.print(f"the machine was suspended for {asleep} of it, which no time here counts")
    return int(broken)


def _agreement(check: Check) -> list[tuple[str, str | None]]:
    difference = check["difference_ns"]
    return [
        ("retakes in the record", f"{check['records']:,}"),
        ("retake episodes in the trace", f"{check['episodes']:,}"),
        ("in both", f"{check['matched']:,}"),
        ("recall: share of the record's that are in the trace", _share_text(check["recall"])),
        (
            "precision: share of the trace's that are in the record",
            _share_text(check["precision"]),
        ),
        ("difference in time, median", duration(difference["p50"])),
        ("difference in time, p99", duration(difference["p99"])),
    ]


def _comparison(compared: ProbesCompared) -> list[tuple[str, str | None]]:
    by_reason = [
        (f"{what}, {reason}", f"{count:,}")
        for what, counts in (("missed", compared.missed), ("invented", compared.invented))
        for reason, count in counts.items()
    ]
    return [
        ("retakes by uprobes", f"{compared.exact:,}"),
        ("retakes inferred without them", f"{compared.inferred:,}"),
        ("found by both", f"{compared.matched:,}"),
        ("recall: share of the uprobes' retakes", _share_text(compared.recall)),
        ("precision: share of the inferred ones", _share_text(compared.precision)),
        ("true time inside the interval", _share_text(compared.inside)),
        ("width of the interval, median", duration(compared.interval_p50_ns)),
        ("taken back, which no uprobe sees here", f"{compared.without_witness:,}"),
        *by_reason,
    ]


def _print_p_time(terminal: Console, rows: list[PTime]) -> None:
    """Sums over all Ps, and how far the P that is furthest apart is."""
    states = dict.fromkeys(row["state"] for row in rows)
    lines = []
    for state in states:
        its = [row for row in rows if row["state"] == state]
        lines.append(
            (
                state,
                duration(sum(row["trace_ns"] for row in its)),
                duration(sum(row["go_ns"] for row in its)),
                f"{max(row['apart_percent'] for row in its):.2f} %",
            )
        )
    head = ("P time", "trace", "Go's own", "furthest P apart")
    terminal.print(table("What Ps did", head, lines))


def _share_text(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
