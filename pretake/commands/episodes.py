"""``pretake episodes``: every system call that blocked with a P."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.types import refuse_existing
from pretake.views import cells, console, duration, no_episodes, note, table, write_rows

SHOWN = 30


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--parquet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the table to a Parquet file.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=SHOWN,
    show_default=True,
    help="Number of rows shown in the terminal.",
)
def command(trace: Path, as_json: bool, parquet: Path | None, force: bool, limit: int) -> None:
    """Show the episodes of TRACE: each system call that blocked with a P.

    \b
    Examples:
      pretake episodes server.pretake
      pretake episodes server.pretake --parquet episodes.parquet

    The terminal shows the episodes that were held longest. With --json and --parquet you get all
    of them, in the order of time and with every column.
    """
    from analysis import load
    from analysis.answers.summary import tells_of_ps
    from analysis.formats.export import write_parquet

    if parquet is not None:
        refuse_existing(parquet, force)
    loaded = load(trace)
    episodes = loaded.episodes()
    if parquet is not None:
        write_parquet(episodes, parquet)
        note(f"{len(episodes):,} episodes in {parquet}")
    if as_json:
        write_rows(episodes)
    if as_json or parquet is not None:
        return
    if episodes.empty:
        console().print(no_episodes(tells_of_ps(loaded.manifest)))
        return
    worst = episodes.sort_values("hold_ns", ascending=False).head(limit)
    head = ("call", "G", "P", "outcome", "class", "hold", "retake", "harm", "runq", "thread")
    rows = [
        (
            *(row[name] for name in ("syscall", "goid", "p", "outcome", "class")),
            *(duration(row[name]) for name in ("hold_ns", "retake_ns", "harm_ns")),
            *(row[name] for name in ("runq", "tid")),
        )
        for row in cells(worst)
    ]
    console().print(table(f"{len(episodes):,} episodes, the longest holds first", head, rows))
