"""``pretake export``: a trace for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.types import refuse_existing
from pretake.views import note

FORMATS = ("perfetto", "parquet", "csv", "json", "folded")
TABLES = ("episodes", "sites", "factors", "advise")


@click.command(epilog="Example: pretake export server.pretake --to perfetto -o server.pftrace")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(FORMATS), required=True, help="Which format.")
@click.option(
    "--table",
    "name",
    type=click.Choice(TABLES),
    default="episodes",
    show_default=True,
    help="Which table, for parquet, csv and json.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(trace: Path, form: str, name: str, output: Path, force: bool) -> None:
    """Write TRACE, or a table made from it, in a format of another program."""
    from analysis import load
    from analysis.formats.export import write_table
    from analysis.formats.perfetto import write_perfetto

    refuse_existing(output, force)
    loaded = load(trace)
    if form == "perfetto":
        write_perfetto(loaded.trace, output)
    else:
        frame = {
            "episodes": loaded.episodes,
            "sites": loaded.sites,
            "factors": loaded.factors,
            "advise": loaded.advise,
        }["episodes" if form == "folded" else name]()
        write_table(frame, form, output)
    note(f"{output} is written")
