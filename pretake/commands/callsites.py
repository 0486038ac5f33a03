"""``pretake callsites``: which calls hold Ps, for how long, at what harm."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pretake.types import refuse_existing
from pretake.views import (
    at_least,
    call_text,
    cells,
    console,
    duration,
    no_episodes,
    note,
    table,
    write_rows,
)

_SPARE = ("harm unknown", "harmful", "hold p50", "episodes")
"""Columns that a narrow terminal does without, the first of them first."""


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--folded", "as_folded", is_flag=True, help="Print folded stacks, in µs.")
@click.option(
    "--flame",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw a flame graph (SVG) of P time held by blocked threads.",
)
@click.option(
    "--weight",
    type=click.Choice(("hold", "harm")),
    default="hold",
    show_default=True,
    help="Time that the width of a stack stands for.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(
    trace: Path, as_json: bool, as_folded: bool, flame: Path | None, weight: str, force: bool
) -> None:
    """Show which calls of TRACE held Ps, the most harmful first.

    \b
    Examples:
      pretake callsites server.pretake
      pretake callsites server.pretake --flame held.svg
      pretake callsites server.pretake --folded | flamegraph.pl > held.svg

    The call site is the innermost function that does not belong to runtime, syscall, internal or
    os. It is found by frame pointers, which Go programs have.
    """
    from analysis import load
    from analysis.answers.flame import flame_svg
    from analysis.answers.summary import tells_of_ps
    from analysis.formats.export import folded, folded_lines, write_text
    from analysis.schema import CLASS_MEANINGS

    loaded = load(trace)
    if as_folded:
        sys.stdout.writelines(folded_lines(loaded.episodes(), f"{weight}_ns", loaded.places()))
        return
    if flame is not None:
        refuse_existing(flame, force)
        stacks = folded(loaded.episodes(), f"{weight}_ns", loaded.places())
        what = "P time held by blocked threads" if weight == "hold" else "harm"
        write_text(flame_svg(stacks, f"{trace}: {what}"), flame)
        note(f"{flame} is written")
        return
    sites = loaded.sites()
    if as_json:
        write_rows(sites)
        return
    if sites.empty:
        console().print(no_episodes(tells_of_ps(loaded.manifest)))
        return
    rows = [
        (
            _named(row["site"], row["file"], row["line"]),
            call_text(row["syscall"], row["runtime_wait"]),
            f"{row['episodes']:,}",
            f"{row['harmful']:,}",
            duration(row["hold_p50_ns"]),
            at_least(row["hold_sum_ns"], row["hold_unknown"]),
            at_least(row["harm_sum_ns"], row["harm_unknown"]),
            f"{row['harm_unknown']:,}",
        )
        for row in cells(sites)
    ]
    head = ("site", "call", "episodes", "harmful", "hold p50", "hold", "harm", "harm unknown")
    terminal = console()
    terminal.print(table("Calls that blocked with a P", head, rows, left=2, spare=_SPARE))
    if sites[["hold_unknown", "harm_unknown"]].any(axis=None):
        terminal.print("≥: a least value, to which the unknown episodes would add")
    if sites["harmful"].any():
        terminal.print(f"harmful: {CLASS_MEANINGS['harmful']}")


def _named(site: str | None, file: str | None, line: int | None) -> str | None:
    return site if file is None else f"{site} ({Path(file).name}:{line})"
