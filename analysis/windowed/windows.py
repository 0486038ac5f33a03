"""A trace as consecutive windows of time, so that it can be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.windowed.columns import WINDOW_ROWS, column_windows
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

__all__ = ["WINDOW_ROWS", "Window", "windows"]


@dataclass(frozen=True)
class Window:
    """Plain rows by table: all of the trace's up to ``until_ns`` that no earlier window had."""

    until_ns: int
    tables: Mapping[str, pd.DataFrame]


def windows(
    trace: Trace, columns: Mapping[str, Sequence[str] | None], rows: int = WINDOW_ROWS
) -> Iterator[Window]:
    """Cut a trace into windows of about as many rows each.

    Args:
        trace: the trace.
        columns: tables to read and their columns, None for all; the column that a table's
            rows are ordered by (:data:`analysis.windowed.columns.TIME_COLUMN`) must be among
            them.
        rows: how many a window shall hold.
    """
    wanted = {
        name: tuple(TABLES[name].arrow_schema.names if names is None else names)
        for name, names in columns.items()
    }
    for window in column_windows(trace, wanted, rows):
        frames = {
            name: pd.DataFrame(
                {
                    column: values if values.dtype == object else values.astype(np.int64)
                    for column, values in held.items()
                },
                columns=list(wanted[name]),
            )
            for name, held in window.tables.items()
        }
        yield Window(window.until_ns, frames)
