"""``pretake advise``: raw, normal or block, for each call site of a trace."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.views import cells, console, duration, table, write_rows


@click.command(epilog="Example: pretake advise server.pretake")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(trace: Path, as_json: bool) -> None:
    """Say for each call site of TRACE which of raw, normal and block fits it, and why.

    The gain is P time for each call, with a 95 % interval.
    """
    from analysis import load

    advice = load(trace).advise()
    if as_json:
        write_rows(advice)
        return
    terminal = console()
    head = ("site", "now", "best", "calls", "blocked p50", "gain a call", "from", "to")
    rows = [
        (
            *(row[name] for name in ("site", "way_now", "way_best")),
            f"{row['calls']:,}",
            duration(row["blocked_p50_ns"]),
            f"{duration(row['gain_low_ns'])} to {duration(row['gain_high_ns'])}",
            duration(row["pays_from_ns"]),
            duration(row["pays_to_ns"]),
        )
        for row in cells(advice)
    ]
    terminal.print(table("Which way to make a call", head, rows, left=3))
    for row in cells(advice):
        terminal.print(f"{row['site']}: {row['evidence']}", markup=False)
