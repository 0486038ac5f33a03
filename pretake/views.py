"""How results look in the terminal. Renders what the analysis returns and computes nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from analysis.answers.pressure import Pressure

__all__ = [
    "Sheet",
    "at_least",
    "bytes_text",
    "call_text",
    "cells",
    "console",
    "duration",
    "interval",
    "no_episodes",
    "note",
    "pressure_sheet",
    "print_json",
    "printable",
    "quantiles",
    "table",
    "write_rows",
]

UNKNOWN = "–"
_SHORT = 14
"""A column is not folded where its longest cell is no longer than this."""
_FOLDED = 20
"""A column of names is not folded to less than this."""
_BETWEEN = 3
_EDGES = 2
"""Characters that rich's ``SIMPLE_HEAD`` puts between two columns, and at both ends of a row."""
_PAGE_WIDTH = 120
"""Characters of a line where no terminal tells: in a file, or on the way to a pager."""


def console(stderr: bool = False) -> Console:
    """A terminal as wide as it is; colours only where a terminal reads them."""
    # Late, so that a command which prints JSON starts without it.
    from rich.console import Console

    class Terminal(Console):
        """What it prints as text names paths and programs, and must not steer the terminal."""

        def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as rich has it
            plain = (printable(o) if isinstance(o, str) else o for o in objects)
            super().print(*plain, **options)

        def on_broken_pipe(self) -> None:
            """The reader left; who began the command knows what to do (rich ends it: status 1)."""
            raise

    told = (sys.stderr if stderr else sys.stdout).isatty() or "COLUMNS" in os.environ
    return Terminal(stderr=stderr, highlight=False, width=None if told else _PAGE_WIDTH)


def note(text: str) -> None:
    """A message about the work itself: on stderr, so that stdout stays the result.

    Nobody may read it any more (``2>&1 | head``), and the work goes on.
    """
    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)


def print_json(value: object) -> None:
    """One JSON document on stdout, for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def duration(ns: float | None) -> str:
    """Nanoseconds with three significant figures and a unit; a dash for unknown."""
    # Late, so that a command which shows no duration starts without pandas.
    from analysis.units import duration_text

    return duration_text(ns)


def at_least(ns: float | None, unknown: int) -> str:
    """A sum of durations, of which some are ``unknown`` and would add to it."""
    return f"≥ {duration(ns)}" if unknown and ns is not None else duration(ns)


def call_text(call: str, runtime_wait: bool, raw: bool = False) -> str:
    """A system call as tables name it.

    Args:
        call: its name, or the state that stands for it.
        runtime_wait: the runtime itself sleeps in it (:class:`analysis.answers.where.Site`).
        raw: the runtime was not told of it.
    """
    if runtime_wait:
        return f"{call}, the runtime's"
    return f"{call}, raw" if raw else call


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
    if count is None or not math.isfinite(count):
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
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    left: int = 1,
    spare: Sequence[str] = (),
) -> Sheet:
    """A table whose first ``left`` columns are text and whose others are numbers.

    A number is never cut off or folded. Where the terminal is too narrow for all columns, those
    in ``spare`` are left out, the first of them first; then the others, the rightmost first. The
    line below the table tells which.
    """
    return Sheet(title, columns, [[_cell_text(cell) for cell in row] for row in rows], left, spare)


class Sheet:
    """What :func:`table` returns: rich asks it for a table of the width that there is."""

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        left: int,
        spare: Sequence[str],
    ) -> None:
        self._title = printable(title)
        self._columns = columns
        self._rows = rows
        self._left = left
        named = [columns.index(name) for name in spare]
        numbers = [n for n in reversed(range(left, len(columns))) if n not in named]
        # One number at least: a table of names alone tells nothing.
        self._spare = [*named, *numbers[:-1]]
        self._widths = [
            max(map(len, (*columns[number].split("\n"), *(row[number] for row in rows))))
            for number in range(len(columns))
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and the line that tells what it leaves out."""
        from rich.text import Text

        shown = list(range(len(self._columns)))
        left_out = []
        for number in self._spare:
            if self._least_width(shown) <= options.max_width:
                break
            shown.remove(number)
            left_out.append(self._columns[number].replace("\n", ""))
        yield self._grid(shown, options.max_width)
        if left_out:
            names = ", ".join(left_out)
            yield Text(f"Too narrow for: {names}. A wider terminal or --json shows them.")

    def _least_width(self, shown: Sequence[int]) -> int:
        """Characters that these columns need: a name may be folded, a number may not."""
        widths = [
            min(self._widths[number], _FOLDED) if number < self._left else self._widths[number]
            for number in shown
        ]
        return sum(widths) + _BETWEEN * (len(shown) - 1) + _EDGES

    def _grid(self, shown: Sequence[int], width: int) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        # A name comes from somebody's program: it must not be read as markup.
        grid = Table(
            title=Text(self._title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            min_width=min(len(self._title) + 1, width),
        )
        for number in shown:
            is_text = number < self._left
            grid.add_column(
                Text(self._columns[number]),
                justify="left" if is_text else "right",
                overflow="fold",
                no_wrap=not is_text or self._widths[number] <= _SHORT,
            )
        for row in self._rows:
            grid.add_row(*(Text(row[number]) for number in shown))
        return grid


def pressure_sheet(told: Mapping[str, Pressure], title: str) -> Sheet:
    """Stall time by cause: a column a window, of which the whole time cannot be left out."""
    from analysis.answers.now import range_text
    from analysis.answers.pressure import distinct_windows, stalls_of

    windows = distinct_windows(told)
    rows = [
        (stall.cause, stall.kind, *(range_text(*stall.over[window]) for window in windows))
        for stall in stalls_of(told)
    ]
    names = list(windows.values())
    return table(title, ("cause", "", *names), rows, left=2, spare=names[:-1])


def quantiles(values: Mapping[str, Any], *names: str) -> list[str]:
    """Durations out of ``{"p50": …}`` in the order of ``names``."""
    return [duration(values.get(name)) for name in names]


def _cell_text(cell: object) -> str:
    text = UNKNOWN if cell is None else str(cell)
    return printable(text.replace("\n", "·"))


def printable(text: str) -> str:
    """``text`` with a dot for what would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in text)
