"""``pretake callsites``: which calls hold Ps, for how long, at what harm."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pretake.views import cells, console, duration, table, write_rows


@click.command(epilog="Example: pretake callsites server.pretake --folded | flamegraph.pl > p.svg")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--folded", is_flag=True, help="Folded stacks of harm in µs, for flame graphs.")
def command(trace: Path, as_json: bool, folded: bool) -> None:
    """Show which calls of TRACE held Ps, the most harmful first."""
    from analysis import load
    from analysis.export import write_folded

    loaded = load(trace)
    if folded:
        write_folded(loaded.episodes(), sys.stdout)
        return
    sites = loaded.sites()
    if as_json:
        write_rows(sites)
        return
    counts = ("episodes", "harmful", "kept", "needless")
    times = ("blocked_p50_ns", "hold_p50_ns", "harm_sum_ns")
    rows = [
        (
            row["syscall"],
            *(f"{row[name]:,}" for name in counts),
            *(duration(row[name]) for name in times),
        )
        for row in cells(sites)
    ]
    head = ("call", *counts, "blocked", "hold p50", "harm")
    console().print(table("Calls that blocked with a P", head, rows))
