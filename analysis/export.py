"""Tables of the analysis, for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import PretakeError

__all__ = ["write_json_lines", "write_parquet"]


def write_json_lines(table: pd.DataFrame, out: BinaryIO) -> None:
    """Write one JSON object a row and line; null for unknown."""
    table.to_json(out, orient="records", lines=True)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table to one Parquet file, as a whole or not at all.

    Raises:
        PretakeError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False), aside, compression="zstd"
        )
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        reason = error.strerror or "the disk may be full"
        raise PretakeError(
            f"cannot write {path}: {reason}", "choose another output file"
        ) from None
