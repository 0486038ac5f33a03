"""Tables of the analysis, for other programs."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import PretakeError

__all__ = [
    "folded",
    "folded_lines",
    "whole_file",
    "write_csv",
    "write_json_lines",
    "write_parquet",
    "write_table",
    "write_text",
]

_PIECE = 20_000
"""Rows that are turned into text at once."""


def write_json_lines(table: pd.DataFrame, out: BinaryIO) -> None:
    """Write one JSON object a row and line; null for unknown."""
    for begin in range(0, len(table), _PIECE):
        _write_lines(
            pa.Table.from_pandas(table[begin : begin + _PIECE], preserve_index=False), out
        )


def _write_lines(rows: pa.Table, out: BinaryIO) -> None:
    """The same of some rows, column by column: a loop over cells takes ten times as long."""
    columns = []
    for name in rows.column_names:
        texts = _json_texts(rows.column(name).combine_chunks())
        columns.append(pc.binary_join_element_wise(json.dumps(name), texts, ":"))
    inner = pc.binary_join_element_wise(*columns, ",")
    lines = pc.binary_join_element_wise("{", inner, "}\n", "")
    for line in lines.to_pylist():
        out.write(line.encode("utf-8", "replace"))


def _json_texts(values: pa.Array) -> pa.Array:
    """Each value as JSON has it."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        # Few words and names, many rows.
        known = values.dictionary_encode()
        words = [json.dumps(word, ensure_ascii=False) for word in known.dictionary.to_pylist()]
        texts = pa.array(words, pa.string()).take(known.indices)
    else:
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
        texts = values.cast(pa.string())
    return pc.fill_null(texts, "null")


def write_csv(table: pd.DataFrame, out: TextIO, header: bool = True) -> None:
    """Write a table as CSV; an empty field for unknown."""
    table.to_csv(out, index=False, header=header, lineterminator="\n")


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


def folded_lines(
    episodes: pd.DataFrame, weight: str = "harm_ns", places: pd.DataFrame | None = None
) -> Iterator[str]:
    """:func:`folded` stacks as lines for flame graphs, in microseconds."""
    for stack, width_ns in folded(episodes, weight, places).items():
        if width_ns >= 1_000:
            yield f"{stack} {width_ns // 1_000}\n"


def write_parquet(pieces: Iterable[pd.DataFrame], path: Path) -> int:
    """Write a table, which comes in pieces, to one Parquet file, as a whole or not at all.

    Returns:
        How many rows there are.

    Raises:
        PretakeError: the file cannot be written.
    """
    count = 0
    with whole_file(path) as file, contextlib.ExitStack() as stack:
        writer = None
        for piece in pieces:
            rows = pa.Table.from_pandas(piece, preserve_index=False)
            if writer is None:
                writer = pq.ParquetWriter(file, rows.schema, compression="zstd")
                stack.enter_context(writer)
            writer.write_table(rows)
            count += len(piece)
    return count


def write_table(pieces: Iterable[pd.DataFrame], form: str, path: Path) -> None:
    """Write a table, which comes in pieces, as ``parquet``, ``csv`` or ``json`` (lines), whole.

    Raises:
        PretakeError: the file cannot be written.
    """
    if form == "parquet":
        write_parquet(pieces, path)
        return
    with whole_file(path) as file:
        if form == "json":
            for piece in pieces:
                write_json_lines(piece, file)
            return
        text = io.TextIOWrapper(file, "utf-8", newline="")
        for number, piece in enumerate(pieces):
            write_csv(piece, text, header=number == 0)
        text.detach()


def write_text(text: str, path: Path) -> None:
    """Write a text file, as a whole or not at all.

    Raises:
        PretakeError: the file cannot be written.
    """
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "replace"))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole; PretakeError if it cannot be written."""
    if not path.name:
        raise PretakeError(f"'{path}' is no file name", "choose another output file")
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
