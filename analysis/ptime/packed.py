"""A window's rows as the compiled loops read them: made once, and read by each of the loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis.ptime.engine.rows import COLUMNS, Rows
from analysis.windowed.columns import Columns, bounded
from tracer.trace.schema import UNKNOWN

__all__ = ["Packed", "pack", "rows_of"]


class Packed(NamedTuple):
    """One table: the bytes of its columns, one after the other, and how many rows it has."""

    numbers: bytes
    rows: int


def pack(tables: Mapping[str, Columns]) -> list[Packed]:
    """Columns by table as bytes, in the order of :data:`analysis.ptime.engine.rows.COLUMNS`."""
    return [_packed(tables.get(name), columns) for name, columns in COLUMNS]


def rows_of(packed: Sequence[Packed]) -> list[Rows]:
    """The same for one loop, which goes from row to row by itself."""
    return [Rows(table.numbers, table.rows) for table in packed]


def _packed(held: Columns | None, names: Sequence[str]) -> Packed:
    rows = 0 if held is None else len(held[names[0]])
    if held is None or not rows:
        return Packed(b"", 0)
    # A column that the trace does not have is not known.
    unknown = np.full(rows, UNKNOWN, np.int64)
    columns = [bounded(name, held[name]) if name in held else unknown for name in names]
    return Packed(b"".join([np.ascontiguousarray(own, np.int64).data for own in columns]), rows)
