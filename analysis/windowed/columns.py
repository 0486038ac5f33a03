"""A trace's tables as numpy columns, piece by piece: what the pass computes on, without pandas.

Null is :data:`tracer.trace.schema.UNKNOWN` and a word is its number, as in the records that the
tracer drained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.trace.columns import Column
from tracer.trace.reader import RowGroup, Trace, numbers_of
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = [
    "LAST_NS",
    "TIME_COLUMN",
    "WINDOW_ROWS",
    "ColumnWindow",
    "Columns",
    "bounded",
    "capture_span",
    "column_windows",
    "from_arrow",
    "from_records",
    "plain_array",
    "read",
]

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Rows of one table: whole numbers by name of the column (texts: objects), all of one length."""

TIME_COLUMN: Mapping[str, str] = {
    name: {"syscall": "exit_ns", "loss": "begin_ns"}.get(name, "ts_ns")
    for name, table in TABLES.items()
    if table.ring or name == "loss"
}
"""The column by which a table's rows stand in time: when the row became known. The tables that
explain what others mention (stacks, symbols) have no time and are not here."""

WINDOW_ROWS = 500_000
"""Rows of all tables together that a window of DataFrames holds, about."""

LAST_NS = (1 << 61) - 1
"""73 years of uptime: no event of a capture is later."""

_MOST_PS = 1 << 16
"""No process has more; a larger number is not known."""

_AHEAD = 2
"""Pieces that are decoded while the window before is computed; decoding needs no GIL."""

_ALWAYS = -(1 << 63)
_NEVER = (1 << 63) - 1


@dataclass(frozen=True)
class ColumnWindow:
    """Rows by table, in the order of time: all up to ``until_ns`` that no earlier window had."""

    until_ns: int
    tables: Mapping[str, Columns]


def from_arrow(table: str, rows: pa.Table, narrow: bool = False) -> dict[str, npt.NDArray[Any]]:
    """Rows of a trace's table, of any of its columns, in the order of time.

    Args:
        table: its name.
        rows: the rows.
        narrow: whether numbers keep the width that they are stored in; else they are int64.
    """
    declared = TABLES[table]
    columns = {
        name: plain_array(declared.column(name), rows.column(name), narrow)
        for name in rows.column_names
    }
    return _in_order(table, columns)


def from_records(
    table: str, records: npt.NDArray[Any], columns: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """Rows as a ring had them, without Arrow between: what :func:`from_arrow` gives of them.

    Args:
        table: its name.
        records: of the table's record type.
        columns: those that are wanted; no texts.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for name in columns:
        unknown = TABLES[table].column(name).unknown
        numbers = records[name].astype(np.int64)
        if unknown != UNKNOWN:
            numbers[numbers == unknown] = UNKNOWN
        found[name] = numbers
    return found


def read(
    trace: Trace, table: str, columns: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """All of a table that is known to be small."""
    return from_arrow(table, trace.arrow(table, columns))


def column_windows(
    trace: Trace, columns: Mapping[str, Sequence[str]], rows: int
) -> Iterator[ColumnWindow]:
    """Cut a trace into windows of about as many rows each.

    Args:
        trace: the trace.
        columns: tables to read and their columns; the one that a table's rows are ordered by
            (:data:`TIME_COLUMN`) must be among them.
        rows: how many a window shall hold. Numbers have the width that they are stored in.

    Row groups may overlap in time (rings are drained one after the other); a row waits until
    its time has come.
    """
    pieces = [
        (name, group) for name in columns for group in trace.row_groups(name, TIME_COLUMN[name])
    ]
    pieces.sort(key=lambda piece: _begin(piece[1]))
    waiting = {
        name: {column: np.empty(0, np.int64) for column in wanted}
        for name, wanted in columns.items()
    }
    decoded = _decoded(trace, columns, tuple(pieces))
    for until_ns in _cuts([group for _, group in pieces], rows):
        while pieces and _begin(pieces[0][1]) <= until_ns:
            name, _ = pieces.pop(0)
            news = next(decoded)
            held = waiting[name]
            if len(held[TIME_COLUMN[name]]):
                news = {column: np.concatenate([held[column], news[column]]) for column in news}
            waiting[name] = news
        ready = {}
        for name, held in list(waiting.items()):
            held = _in_order(name, held)
            due = int(np.searchsorted(held[TIME_COLUMN[name]], until_ns, "right"))
            ready[name] = {column: values[:due] for column, values in held.items()}
            waiting[name] = {column: values[due:] for column, values in held.items()}
        yield from _pieces(ColumnWindow(min(until_ns, _last_ns(ready)), ready), rows)


def _pieces(window: ColumnWindow, rows: int) -> Iterator[ColumnWindow]:
    """A window in pieces of about as many rows each: row groups may be larger than that."""
    times = {name: held[TIME_COLUMN[name]] for name, held in window.tables.items()}
    count = sum(map(len, times.values())) // max(rows, 1)
    if count < 2:
        yield window
        return
    longest = max(times.values(), key=len)
    begins = dict.fromkeys(times, 0)
    for piece in range(1, count + 1):
        until_ns = window.until_ns
        if piece < count:
            until_ns = int(longest[len(longest) * piece // count])
        ends = {
            name: len(own) if piece == count else int(np.searchsorted(own, until_ns, "right"))
            for name, own in times.items()
        }
        yield ColumnWindow(
            until_ns,
            {
                name: {column: own[begins[name] : ends[name]] for column, own in held.items()}
                for name, held in window.tables.items()
            },
        )
        begins = ends


def bounded(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values that the engine can take: whoever made the trace may have written any number."""
    if name in ("p", "gomaxprocs"):
        # It keeps room for each P.
        if len(values) and values.max() >= _MOST_PS:
            return np.where(values < _MOST_PS, values, UNKNOWN)
    elif name.endswith("_ns") and len(values) and values.max() > LAST_NS:
        return np.asarray(np.minimum(values, LAST_NS))
    return values


def plain_array(column: Column, values: pa.ChunkedArray, narrow: bool = False) -> npt.NDArray[Any]:
    """One column's values, int64 or, where ``narrow``, of the width that they are stored in."""
    if column.is_text:
        # Not by its own to_numpy, which imports pandas.
        return np.array(values.to_pylist(), object)
    chunks = [
        numbers_of(_codes(column, chunk) if column.words else chunk, UNKNOWN)
        for chunk in values.chunks
    ]
    if len(chunks) == 1:
        numbers = chunks[0]
    else:
        numbers = np.concatenate(chunks) if chunks else np.empty(0, np.int64)
    return numbers if narrow else np.asarray(numbers, np.int64)


def _codes(column: Column, values: pa.DictionaryArray) -> pa.Array:
    """The number of each word; a trace read by ``Trace`` has the declared words already."""
    if values.dictionary.to_pylist() == list(column.words):
        return values.indices
    import pyarrow.compute as pc

    declared = pa.array(column.words, pa.string())
    return pc.index_in(values.dictionary, declared).take(values.indices)


def capture_span(trace: Trace) -> tuple[int, int]:
    """When the capture began and ended; without a manifest's word, the first and last row.

    Both are from 0 to :data:`LAST_NS`, and the end is not before the begin.
    """
    manifest = trace.manifest
    begins: list[int] = []
    ends: list[int] = []
    for name, time_column in TIME_COLUMN.items():
        for group in trace.row_groups(name, time_column):
            if group.begin_ns is not None and group.end_ns is not None:
                begins.append(group.begin_ns)
                ends.append(group.end_ns)
    begin_ns = min(begins, default=0) if manifest.begin_ns is None else manifest.begin_ns
    end_ns = max(ends, default=begin_ns) if manifest.end_ns is None else manifest.end_ns
    if end_ns < begin_ns:
        # No capture ends before it begins: then the rows are the better word.
        begin_ns, end_ns = min(begins, default=0), max(ends, default=0)
    begin_ns = min(max(begin_ns, 0), LAST_NS)
    return begin_ns, min(max(begin_ns, end_ns), LAST_NS)


def _in_order(table: str, rows: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """``rows`` in the order of time; rings of several CPUs interleave, so they may not be."""
    key = TIME_COLUMN.get(table)
    if key is None or key not in rows:
        return rows
    times = rows[key]
    if bool((times[1:] >= times[:-1]).all()):
        return rows
    order = np.argsort(times, kind="stable")
    return {name: values[order] for name, values in rows.items()}


def _decoded(
    trace: Trace,
    columns: Mapping[str, Sequence[str]],
    pieces: Sequence[tuple[str, RowGroup]],
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The rows of each piece, in order, read by a thread that is a few pieces ahead."""

    def read_piece(name: str, group: RowGroup) -> dict[str, npt.NDArray[Any]]:
        return from_arrow(name, trace.read_row_group(name, group, columns[name]), narrow=True)

    with ThreadPoolExecutor(1) as reader:
        ahead: deque[Future[dict[str, npt.NDArray[Any]]]] = deque()
        for name, group in pieces:
            ahead.append(reader.submit(read_piece, name, group))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _cuts(groups: list[RowGroup], rows: int) -> Iterator[int]:
    """The ends of the windows, the last at the last row."""
    held = 0
    ends = sorted((_end(group), group.rows) for group in groups)
    for number, (end_ns, count) in enumerate(ends):
        held += count
        if held >= rows or number == len(ends) - 1:
            yield end_ns
            held = 0


def _last_ns(tables: Mapping[str, Columns]) -> int:
    """The last row's time: a file without statistics does not tell it before it is read."""
    lasts = [rows[TIME_COLUMN[name]] for name, rows in tables.items()]
    return max((int(times[-1]) for times in lasts if len(times)), default=_NEVER)


def _begin(group: RowGroup) -> int:
    return _ALWAYS if group.begin_ns is None else group.begin_ns


def _end(group: RowGroup) -> int:
    return _NEVER if group.end_ns is None else group.end_ns
