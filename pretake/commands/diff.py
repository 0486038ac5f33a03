"""``pretake diff``: whether the runs of two programs differ by more than chance."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.sides import (
    SidesCommand,
    condition_option,
    sides_options,
    tell_difference,
    their_traces,
)


@click.command(cls=SidesCommand)
@click.argument("traces", nargs=-1, type=click.Path(path_type=Path), metavar="[BASELINE TRACE]")
@sides_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
@condition_option("the runs of b")
def command(
    traces: tuple[Path, ...],
    a_side: tuple[Path, ...],
    b_side: tuple[Path, ...],
    as_json: bool,
    conditions: tuple[str, ...],
) -> int:
    """Say whether the runs of b differ from those of a by more than runs of one program do.

    \b
    Examples:
      pretake diff --a old-1.pretake old-2.pretake --b new-1.pretake new-2.pretake
      pretake diff --a old-1.pretake --a old-2.pretake --b new-1.pretake --b new-2.pretake
      pretake diff before.pretake after.pretake
      pretake diff --a old-*.pretake --b new-*.pretake --fail-if 'harm_ns.sum > 1.1 * baseline'

    Each run gives one number for each figure, and the verdict (lower, higher, same) is Welch's
    test over the runs. One run of each gives no verdict, and does not meet a condition with a
    baseline. Five of each are a good beginning; 'pretake bench' records them. The column "shows
    from" is the least change that this number of runs would show.
    """
    from analysis import load

    a, b = their_traces(traces, a_side, b_side)
    before, after = ([load(path).trace for path in side] for side in (a, b))
    return tell_difference(before, after, as_json, conditions)
