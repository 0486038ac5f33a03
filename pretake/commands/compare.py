"""``pretake compare``: the figures of many traces in a table; on a cluster if there is one."""

from __future__ import annotations

from pathlib import Path

import click

from analysis.units import count_text
from pretake.sides import (
    SidesCommand,
    condition_option,
    sides_options,
    tell_difference,
    their_traces,
)
from pretake.views import at_least, cells, console, duration, table, write_rows

_SPARE = ("hold p50", "p90", "harm unknown", "episodes", "lost")
"""Columns that a narrow terminal does without, the first of them first."""


@click.command(cls=SidesCommand)
@click.argument("traces", nargs=-1, metavar="TRACE...")
@sides_options
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler to give the work to. Without it, this process does the work.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object per line; of two sides one document, as from 'pretake diff'.",
)
@condition_option("the runs of b")
def command(
    traces: tuple[str, ...],
    a_side: tuple[Path, ...],
    b_side: tuple[Path, ...],
    scheduler: str | None,
    as_json: bool,
    conditions: tuple[str, ...],
) -> int:
    """Show the figures of many traces in one table, a row for each trace.

    \b
    Examples:
      pretake compare *.pretake
      pretake compare s3://traces/host{1..9}.pretake --scheduler tcp://10.0.0.1:8786
      pretake compare --a old-*.pretake --b new-*.pretake

    A TRACE is a folder, or an address that fsspec can open (s3://, gs://, sftp:// …). With --a
    and --b it says whether the two sides differ, as 'pretake diff' does.
    """
    if a_side or b_side:
        from analysis import load

        sides = their_traces([Path(trace) for trace in traces], a_side, b_side)
        before, after = ([load(path).trace for path in side] for side in sides)
        return tell_difference(before, after, as_json, conditions)
    if conditions:
        raise click.UsageError(
            "--fail-if judges the runs of two sides: name them with --a and --b"
        )
    if not traces:
        raise click.UsageError("Missing argument 'TRACE...'.")
    from analysis.answers.cluster import compare_all

    compared = compare_all(traces, scheduler)
    if as_json:
        write_rows(compared)
        return 0
    head = (
        *("trace", "retake p50", "p90", "p99", "unknown", "hold p50", "harm", "episodes"),
        *("harm unknown", "lost"),
    )
    rows = [
        (
            row["trace"],
            *(duration(row[f"retake_{name}_ns"]) for name in ("p50", "p90", "p99")),
            f"{row['retake_unknown']:,}",
            duration(row["hold_p50_ns"]),
            at_least(row["harm_sum_ns"], row["harm_unknown"]),
            f"{row['episodes']:,}",
            f"{row['harm_unknown']:,}",
            count_text(row["lost"]),
        )
        for row in cells(compared)
    ]
    terminal = console()
    terminal.print(table(f"{len(rows)} traces", head, rows, spare=_SPARE))
    terminal.print("unknown: latencies; '≥': the episodes whose harm is unknown would add to it")
    return 0
