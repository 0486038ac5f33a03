"""``pretake report``: one HTML file, with pictures, that works offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.types import refuse_existing
from pretake.views import note
from tracer.errors import PretakeError

if TYPE_CHECKING:
    import pandas as pd

    from tracer.trace.reader import Trace

_REPLAYED = 4_000
"""Calls of a run that a report replays: about a second for each trace."""


@click.command()
@click.argument(
    "traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.html",
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(traces: tuple[Path, ...], output: Path, force: bool) -> None:
    """Draw one or more traces into one HTML file, which works offline.

    \b
    Example:
      pretake report before.pretake after.pretake -o compared.html
    """
    from analysis.report import report
    from tracer.trace.reader import Trace

    refuse_existing(output, force)
    report([Trace(path) for path in traces], output, _predict)
    note(f"{output} is written: open it in a browser")


def _predict(trace: Trace) -> pd.DataFrame | None:
    """The what-if table of a trace, or None where too little of its run is known."""
    from analysis.whatif.predict import whatif
    from pretake.commands.whatif import play, usual_policies

    policies = usual_policies(trace.manifest.target.runtime)
    try:
        return whatif(trace, policies, play, limit=_REPLAYED, one_more=True)
    except PretakeError:
        return None
