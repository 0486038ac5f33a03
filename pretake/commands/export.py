"""``pretake export``: a trace for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.types import refuse_existing
from pretake.views import note

FORMATS = ("perfetto", "parquet", "csv", "json", "folded")
_TABULAR = ("parquet", "csv", "json")
TABLES = ("episodes", "sites", "factors", "advise")


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(FORMATS), required=True, help="Format to write.")
@click.option(
    "--table",
    "name",
    type=click.Choice(TABLES),
    help="Table to write, for parquet, csv and json. Default: episodes.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(trace: Path, form: str, name: str | None, output: Path, force: bool) -> None:
    """Write TRACE, or a table made from it, in the format of another program.

    \b
    Examples:
      pretake export server.pretake --to perfetto -o server.pftrace
      pretake export server.pretake --to csv --table sites -o sites.csv
    """
    from analysis import load
    from analysis.formats.export import folded_lines, write_table, write_text
    from analysis.formats.perfetto import write_perfetto

    if name is not None and form not in _TABULAR:
        raise click.UsageError(f"--to {form} writes the whole trace, and no --table of it")
    refuse_existing(output, force)
    loaded = load(trace)
    if form == "perfetto":
        write_perfetto(loaded.trace, output)
    elif form == "folded":
        write_text("".join(folded_lines(loaded.episodes())), output)
    elif name in (None, "episodes"):
        write_table(loaded.episodes_in_pieces(), form, output)
    else:
        make = {"sites": loaded.sites, "factors": loaded.factors, "advise": loaded.advise}
        write_table([make[name]()], form, output)
    note(f"{output} is written")
