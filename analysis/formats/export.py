"""Tables of the analysis, for other programs."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import PretakeError

__all__ = [
    "folded",
    "write_csv",
    "write_folded",
    "write_json_lines",
    "write_parquet",
    "write_table",
    "write_text",
]


def write_json_lines(table: pd.DataFrame, out: BinaryIO) -> None:
    """Write one JSON object a row and line; null for unknown."""
    # pandas writes a line for no row, which is no object.
    if len(table):
        table.to_json(out, orient="records", lines=True)


def write_csv(table: pd.DataFrame, out: TextIO) -> None:
    """Write a table as CSV; an empty field for unknown."""
    table.to_csv(out, index=False, lineterminator="\n")


def folded(
    episodes: pd.DataFrame, weight: str = "harm_ns", places: pd.DataFrame | None = None
) -> dict[str, int]:
    """Episodes as folded stacks: nanoseconds by ``program;…functions…;syscall;outcome;class``.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`.
        weight: column that says how wide an episode is; unknown counts for nothing.
        places: the trace's stacks (:data:`analysis.answers.places.PLACES`); None for no functions.
    """
    frames = {
        name: episodes[name].astype(object).where(episodes[name].notna(), "unknown").astype(str)
        for name in ("comm", "syscall", "outcome", "class")
    }
    # What separates frames and weights must not come out of a name.
    clean = {name: f.str.replace(r"[;\s]", "_", regex=True) for name, f in frames.items()}
    stacks = clean["comm"]
    if places is not None and len(places):
        by_id = places.set_index("stack_id")["stack"].astype(object)
        functions = episodes["stack_id"].map(by_id)
        stacks = stacks.str.cat((";" + functions).fillna(""))
    rest = pd.concat([clean[name] for name in ("syscall", "outcome", "class")], axis=1)
    stacks = stacks.str.cat(rest, sep=";")
    widths = episodes[weight].fillna(0).astype("int64").groupby(stacks).sum()
    return {str(stack): int(width) for stack, width in widths.items() if width > 0}


def write_folded(
    episodes: pd.DataFrame,
    out: TextIO,
    weight: str = "harm_ns",
    places: pd.DataFrame | None = None,
) -> None:
    """Write :func:`folded` stacks, for flame graphs, in microseconds."""
    for stack, width_ns in folded(episodes, weight, places).items():
        if width_ns >= 1_000:
            out.write(f"{stack} {width_ns // 1_000}\n")


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table to one Parquet file, as a whole or not at all.

    Raises:
        PretakeError: the file cannot be written.
    """
    with _whole_file(path) as file:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, compression="zstd")


def write_table(table: pd.DataFrame, form: str, path: Path) -> None:
    """Write a table as ``parquet``, ``csv``, ``json`` (lines) or ``folded`` stacks, whole.

    Raises:
        PretakeError: the file cannot be written.
    """
    if form == "parquet":
        write_parquet(table, path)
        return
    with _whole_file(path) as file:
        if form == "json":
            write_json_lines(table, file)
            return
        text = io.TextIOWrapper(file, "utf-8", newline="")
        if form == "csv":
            write_csv(table, text)
        else:
            write_folded(table, text)
        text.detach()


def write_text(text: str, path: Path) -> None:
    """Write a text file, as a whole or not at all.

    Raises:
        PretakeError: the file cannot be written.
    """
    with _whole_file(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole; PretakeError if it cannot be written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        reason = error.strerror or "the disk may be full"
        raise PretakeError(
            f"cannot write {path}: {reason}", "choose another output file"
        ) from None
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
