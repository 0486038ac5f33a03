"""``pretake episodes``: every system call that blocked with a P."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.views import console, duration, note, table

SHOWN = 30


@click.command(epilog="Example: pretake episodes server.pretake --parquet episodes.parquet")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--parquet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the table to a Parquet file.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=SHOWN,
    show_default=True,
    help="Rows shown in the terminal.",
)
def command(trace: Path, as_json: bool, parquet: Path | None, limit: int) -> None:
    """Show the episodes of TRACE: one system call each that blocked with a P.

    The terminal shows those that were held longest; --json and --parquet give all of them in
    the order of time, with every column.
    """
    from analysis import load
    from analysis.export import write_json_lines, write_parquet

    episodes = load(trace).episodes()
    if parquet is not None:
        write_parquet(episodes, parquet)
        note(f"{len(episodes):,} episodes in {parquet}")
    if as_json:
        write_json_lines(episodes, click.get_binary_stream("stdout"))
    if as_json or parquet is not None:
        return
    worst = episodes.sort_values("hold_ns", ascending=False).head(limit)
    cells = worst.astype(object).where(worst.notna(), None).to_dict("records")
    head = ("call", "G", "P", "outcome", "class", "hold", "retake", "harm", "runq", "thread")
    rows = [
        (
            *(row[name] for name in ("syscall", "goid", "p", "outcome", "class")),
            *(duration(row[name]) for name in ("hold_ns", "retake_ns", "harm_ns")),
            *(row[name] for name in ("runq", "tid")),
        )
        for row in cells
    ]
    console().print(table(f"{len(episodes):,} episodes, the longest holds first", head, rows))
