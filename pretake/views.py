"""How results look in the terminal. Renders what the analysis returns and computes nothing."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "bytes_text",
    "cells",
    "console",
    "duration",
    "interval",
    "no_episodes",
    "note",
    "print_json",
    "quantiles",
    "table",
    "write_rows",
]

UNKNOWN = "–"
_SHORT = 14
"""A column is not folded where its longest cell is no longer than this."""
_PAGE_WIDTH = 120
"""Characters of a line where no terminal tells: in a file, or on the way to a pager."""


def console(stderr: bool = False) -> Console:
    """A terminal as wide as it is; colours only where a terminal reads them."""
    # Late, so that a command which prints JSON starts without it.
    from rich.console import Console

    class Terminal(Console):
        """What it prints as text names paths and programs, and must not steer the terminal."""

        def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as rich has it
            plain = (_printable(o) if isinstance(o, str) else o for o in objects)
            super().print(*plain, **options)

    told = (sys.stderr if stderr else sys.stdout).isatty() or "COLUMNS" in os.environ
    return Terminal(stderr=stderr, highlight=False, width=None if told else _PAGE_WIDTH)


def note(text: str) -> None:
    """A message about the work itself: on stderr, so that stdout stays the result."""
    click.echo(_printable(text), err=True)


def print_json(value: object) -> None:
    """One JSON document on stdout, for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def duration(ns: float | None) -> str:
    """Nanoseconds with three significant figures and a unit; a dash for unknown."""
    # Late, so that a command which shows no duration starts without pandas.
    from analysis.units import duration_text

    return duration_text(ns)


def no_episodes(p_known: bool) -> str:
    """What it means that there are none."""
    if p_known:
        return "No thread blocked in a system call while it held a P."
    return (
        "Which of the threads that blocked held a P is not known; 'pretake summary' tells what "
        "is missing."
    )


def interval(low: float | None, high: float | None, text: Callable[[float | None], str]) -> str:
    """From one value to another, each as ``text`` has it; a dash for unknown."""
    return UNKNOWN if low is None or high is None else f"{text(low)} to {text(high)}"


def bytes_text(count: float | None) -> str:
    """A number of bytes with a binary unit; a dash for unknown."""
    if count is None:
        return UNKNOWN
    units = ("B", "KiB", "MiB", "GiB")
    step = min(int(math.log(max(abs(count), 1), 1024)), len(units) - 1)
    return f"{count / 1024**step:.3g} {units[step]}"


def cells(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A short frame as rows of plain values, None for null."""
    rows: list[dict[str, Any]] = (
        frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[assignment]
    )
    return rows


def write_rows(frame: pd.DataFrame) -> None:
    """Every row of a frame on stdout, one JSON object a line."""
    from analysis.formats.export import write_json_lines

    write_json_lines(frame, sys.stdout.buffer)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1
) -> Table:
    """A table whose first ``left`` columns are text and whose others are numbers."""
    from rich import box
    from rich.table import Table

    # A name comes from somebody's program: it must not be read as markup.
    grid = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        min_width=len(title) + 1,
    )
    texts = [[_plain(cell) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        longest = max((len(row[number]) for row in texts), default=0)
        grid.add_column(
            column,
            justify="left" if number < left else "right",
            overflow="fold",
            no_wrap=longest <= _SHORT,
        )
    for row in texts:
        grid.add_row(*row)
    return grid


def quantiles(values: Mapping[str, Any], *names: str) -> list[str]:
    """Durations out of ``{"p50": …}`` in the order of ``names``."""
    return [duration(values.get(name)) for name in names]


def _plain(cell: object) -> str:
    from rich.markup import escape

    text = UNKNOWN if cell is None else str(cell)
    return escape(_printable(text.replace("\n", "·")))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in text)
