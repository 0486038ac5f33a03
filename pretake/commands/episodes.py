"""``pretake episodes``: every system call that blocked with a P."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.types import refuse_existing
from pretake.views import cells, console, duration, no_episodes, note, table, write_rows

if TYPE_CHECKING:
    import pandas as pd

    from analysis import LoadedTrace

SHOWN = 30
_SPARE = ("thread", "runq", "G", "outcome", "P")
"""Columns that a narrow terminal does without, the first of them first."""


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
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
    from analysis.schema import CLASS_MEANINGS

    if parquet is not None:
        refuse_existing(parquet, force)
    loaded = load(trace)
    if parquet is not None:
        count = write_parquet(loaded.episodes_in_pieces(), parquet)
        note(f"{count:,} episodes in {parquet}")
    if as_json:
        for piece in loaded.episodes_in_pieces():
            write_rows(piece)
    if as_json or parquet is not None:
        return
    count, worst = _longest(loaded, limit)
    if not count:
        console().print(no_episodes(tells_of_ps(loaded.manifest)))
        return
    head = ("call", "G", "P", "outcome", "class", "hold", "retake", "harm", "runq", "thread")
    rows = [
        (
            *(row[name] for name in ("syscall", "goid", "p", "outcome", "class")),
            *(duration(row[name]) for name in ("hold_ns", "retake_ns", "harm_ns")),
            *(row[name] for name in ("runq", "tid")),
        )
        for row in cells(worst)
    ]
    terminal = console()
    terminal.print(table(f"{count:,} episodes, the longest holds first", head, rows, spare=_SPARE))
    for name, meaning in CLASS_MEANINGS.items():
        if (worst["class"] == name).any():
            terminal.print(f"{name}: {meaning}")


def _longest(loaded: LoadedTrace, limit: int) -> tuple[int, pd.DataFrame]:
    """How many episodes there are, and those with the longest holds."""
    import pandas as pd

    from analysis.ptime.episodes import episode_windows

    count, worst = 0, None
    for piece in episode_windows(loaded.trace):
        count += len(piece)
        both = [rows for rows in (worst, piece) if rows is not None and len(rows)]
        rows = pd.concat(both, ignore_index=True) if both else piece
        order = ["hold_ns", "block_ns", "tid"]
        worst = rows.sort_values(order, ascending=[False, True, True]).head(limit)
    assert worst is not None
    return count, worst
