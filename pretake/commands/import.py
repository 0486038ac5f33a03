"""``pretake import``: what other tools recorded, as a trace."""

# ruff: noqa: N999 - the file has the command's name
from __future__ import annotations

import shutil
from pathlib import Path

import click

from pretake.views import note
from tracer.errors import PretakeError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="TRACE",
    help="Folder to write the trace to.",
)
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
def command(file: Path, output: Path, force: bool) -> None:
    """Make a trace from FILE, without root.

    \b
    Examples:
      pretake import go.trace -o a.pretake
      pretake import perf.data -o b.pretake

    FILE is a Go execution trace (runtime/trace, from Go 1.22 on), or what 'perf sched record'
    wrote, as perf.data or as the text of 'perf script'. A value that FILE does not have is null.
    """
    from analysis.formats.from_go import import_go_trace
    from analysis.formats.from_perf import import_perf
    from analysis.trust.go_trace import is_go_trace
    from tracer.trace.writer import check_output

    if not file.is_file():
        raise PretakeError(f"there is no file {file}", "name a file that perf or Go wrote")
    check_output(output, force)
    aside = output.with_name(f".{output.name}.import")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        imported = (import_go_trace if is_go_trace(file) else import_perf)(file, aside)
        rows = sum(imported.manifest.events.values())
        if force and output.exists():
            shutil.rmtree(output)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for missing in imported.manifest.missing:
        note(f"not told by {file}: {missing.what}")
    note(f"{rows:,} events in {output}; next: pretake summary {output}")
