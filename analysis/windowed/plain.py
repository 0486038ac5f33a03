"""A trace's tables as plain int64 columns: what the analysis computes on.

Null is :data:`tracer.trace.schema.UNKNOWN` and a word is its number, as in the records of the
rings. pandas' nullable arrays would make every step several times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from analysis.windowed import columns
from analysis.windowed.columns import TIME_COLUMN
from tracer.trace.columns import Column
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["TIME_COLUMN", "empty", "from_arrow", "from_frame", "numbers"]


def from_arrow(table: str, rows: pa.Table) -> pd.DataFrame:
    """Rows of a trace's table, of any of its columns, in the order of time."""
    return pd.DataFrame(columns.from_arrow(table, rows), columns=rows.column_names)


def from_frame(table: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The same from :meth:`tracer.trace.reader.Trace.frame`, or from a frame made by hand."""
    declared = TABLES[table]
    return _frame_in_order(
        table,
        pd.DataFrame({n: _plain_series(declared.column(str(n)), rows[n]) for n in rows.columns}),
    )


def numbers(values: pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Plain values of a nullable column of whole numbers, as the analysis' tables have them."""
    return values.to_numpy(np.int64, na_value=UNKNOWN)


def empty(table: str, names: Sequence[str] | None = None) -> pd.DataFrame:
    """No rows, with the columns of ``table``."""
    names = TABLES[table].arrow_schema.names if names is None else list(names)
    return from_arrow(table, TABLES[table].arrow_schema.empty_table().select(names))


def _frame_in_order(table: str, rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` in the order of time; rings of several CPUs interleave, so they may not be."""
    key = TIME_COLUMN.get(table)
    if key is not None and key in rows and not rows[key].is_monotonic_increasing:
        rows = rows.sort_values(key, kind="stable")
    return rows.reset_index(drop=True)


def _plain_series(column: Column, values: pd.Series[Any]) -> Any:  # noqa: ANN401 - an array
    if column.is_text:
        return values.to_numpy(object)
    if column.words:
        return pd.Categorical(values, categories=list(column.words)).codes.astype(np.int64)
    return pd.array(values.array, dtype="Int64").to_numpy(np.int64, na_value=UNKNOWN)
