"""``pretake export``: a trace for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.types import refuse_existing
from pretake.views import note

FORMATS = ("perfetto", "pprof", "prometheus", "parquet", "csv", "json", "folded")
_TABULAR = ("parquet", "csv", "json")
TABLES = ("episodes", "sites", "latency", "factors", "advise")


class _Command(click.Command):
    """Takes ``--pprof FILE`` for ``--to pprof -o FILE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say the one by the other."""
        for at, word in enumerate(args):
            name, equals, file = word.partition("=")
            if name == "--pprof":
                args = [
                    *args[:at],
                    "--to",
                    "pprof",
                    "-o",
                    *([file] if equals else []),
                    *args[at + 1 :],
                ]
                break
        return super().parse_args(ctx, args)


@click.command(cls=_Command)
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
@click.option(
    "--pprof",
    type=click.Path(path_type=Path),
    expose_value=False,
    metavar="FILE.pb.gz",
    help="The same as --to pprof -o FILE.pb.gz.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(
    trace: Path,
    form: str,
    name: str | None,
    output: Path,
    force: bool,
) -> None:
    """Write TRACE, or a table made from it, in the format of another program.

    \b
    Examples:
      pretake export server.pretake --to perfetto -o server.pftrace
      pretake export server.pretake --to csv --table sites -o sites.csv
      pretake export server.pretake --pprof server.pb.gz
      go tool pprof -http=:8080 server.pb.gz
      pretake export server.pretake --to prometheus -o server.prom

    pprof: a sample for each stack with which calls and page faults blocked. Its values are holds,
    hold, harm, lost_p, fault and no_cpu; go tool pprof shows lost_p, and hold with
    -sample_index=hold. Its labels are process, pid, container, pod, cause, syscall and taker, for
    example -tagfocus=syscall=read.

    prometheus: stall time by cause (some and full, as in /proc/pressure) and P time by state, for
    node_exporter's textfile collector.
    """
    from analysis import load
    from analysis.formats.export import folded_lines, write_table, write_text
    from analysis.formats.perfetto import write_perfetto
    from analysis.formats.pprof import write_pprof

    if name is not None and form not in _TABULAR:
        raise click.UsageError(f"--to {form} writes the whole trace, and no --table of it")
    refuse_existing(output, force)
    loaded = load(trace)
    if form == "perfetto":
        write_perfetto(loaded.trace, output)
    elif form == "pprof":
        write_pprof(loaded.trace, output)
    elif form == "prometheus":
        from analysis.formats.prometheus import text

        write_text(text(loaded.budget()["processes"]), output)
    elif form == "folded":
        write_text("".join(folded_lines(loaded.episodes())), output)
    elif name in (None, "episodes"):
        write_table(loaded.episodes_in_pieces(), form, output)
    else:
        make = {
            "sites": loaded.sites,
            "latency": loaded.latency,
            "factors": loaded.factors,
            "advise": loaded.advise,
        }
        write_table([make[name]()], form, output)
    note(f"{output} is written")
