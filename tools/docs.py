"""Writes the pages of the documentation that are made from the code.

``python -m tools.docs`` writes them; ``--check`` fails where one of them is not what the code
says, so that CI keeps them true.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from pretake.cli import group
from tools.daemonset import daemonset
from tools.deploy import dashboard, rules
from tools.man import man_page
from tracer.trace.columns import Column
from tracer.trace.schema import SCHEMA_VERSION, TABLES

ROOT = Path(__file__).resolve().parent.parent
MADE = "<!-- Made by `make docs`; edit the code instead. -->"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(column: Column) -> str:
    if column.words:
        return "word"
    return "text" if column.is_text else column.type.replace("i", "int")


def trace_format() -> str:
    """The page on a trace's layout, from the schema."""

    def lines() -> Iterator[str]:
        yield "# The format of a trace"
        yield MADE
        yield f"""
A trace is a folder with a file `manifest.json` and one Parquet dataset for each table. For
example, `server.pretake/block/part-00000.parquet` has the first rows of table `block`. Any tool
that reads Parquet can read it ([examples](queries.md)). A table without rows has no folder.

- Times are nanoseconds of `CLOCK_MONOTONIC`.
- A value that is not known is null. It is never 0.
- A thread or process has its number in the machine's first pid namespace. In a container the
  program itself sees another number.
- A column of type *word* is an Arrow dictionary of strings.
- This is version {SCHEMA_VERSION} of the format. A reader refuses a trace of a higher version."""
        for table in TABLES.values():
            yield f"\n## `{table.name}`\n\nA row is {table.meaning}."
            if table.ring:
                yield (
                    f"In the kernel it is a record of {table.dtype.itemsize} bytes, "
                    f"in a ring of its own."
                )
            yield "\n" + _row(("column", "type", "null", "meaning"))
            yield _row("----")
            for column in table.columns:
                null = "yes" if column.nullable else ""
                yield _row((f"`{column.name}`", _type(column), null, column.meaning))
            for column in table.columns:
                if column.words:
                    words = ", ".join(f"`{word}`" for word in column.words)
                    yield f"\nWords of `{column.name}`: {words}."

    return "\n".join(lines()) + "\n"


def analysis_tables() -> str:
    """The page on the tables that the analysis makes, from their declarations."""
    from analysis.formats.frames import FRAMES

    def lines() -> Iterator[str]:
        yield "# The tables of the analysis"
        yield MADE
        yield """
For example, `load("server.pretake").episodes()` of package `analysis` returns the table
`episodes`. Each table is a pandas DataFrame there, and a file of `pretake export`. Times are
nanoseconds of `CLOCK_MONOTONIC`. A value that is not known is `<NA>` (null in a file), never 0.
[analysis.md](analysis.md) explains how the tables are made, and how far to trust them."""
        for frame in FRAMES:
            yield f"\n## `{frame.name}`\n\nA row is {frame.meaning}.\n"
            yield _row(("column", "type", "meaning"))
            yield _row("---")
            for column in frame.fields:
                kind = "word" if column.words else column.type
                yield _row((f"`{column.name}`", kind, column.meaning))
            for column in frame.fields:
                if column.words:
                    words = ", ".join(f"`{word}`" for word in column.words)
                    yield f"\nWords of `{column.name}`: {words}."

    return "\n".join(lines()) + "\n"


def command_reference() -> str:
    """The page on the command line, from the commands themselves."""

    def page(command: click.Command, context: click.Context) -> Iterator[str]:
        yield f"\n## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```"
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None:
                    yield from page(child, click.Context(child, info_name=name, parent=context))

    top = click.Context(group, info_name="pretake", terminal_width=96, max_content_width=96)
    return "\n".join(["# The command", MADE, *page(group, top)]) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "docs/trace-format.md": trace_format,
    "docs/tables.md": analysis_tables,
    "docs/command.md": command_reference,
    "deploy/prometheus/pretake.rules.yml": rules,
    "deploy/grafana/pretake.json": dashboard,
    "deploy/kubernetes/daemonset.yaml": daemonset,
    "docs/pretake.1": lambda: man_page(group, "pretake", "where the P time of a Go program goes"),
}


def main() -> int:
    """Write the pages, or tell which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text)
    if check and stale:
        print(f"stale, run 'make docs': {', '.join(stale)}", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
