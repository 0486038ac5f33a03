"""A trace as consecutive windows of time, so that it can be larger than memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from analysis.windowed.plain import TIME_COLUMN, empty, from_arrow
from tracer.trace.reader import RowGroup, Trace

__all__ = ["WINDOW_ROWS", "Window", "windows"]

WINDOW_ROWS = 500_000
"""Rows of all tables together that a window holds, about: some hundred bytes each."""

_AHEAD = 2
"""Pieces that are decoded while the window before is computed; decoding needs no GIL."""

_ALWAYS = -(1 << 63)
_NEVER = (1 << 63) - 1


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
            rows are ordered by (:data:`analysis.windowed.plain.TIME_COLUMN`) must be among them.
        rows: how many a window shall hold.

    Row groups may overlap in time (rings are drained one after the other); a row waits until
    its time has come.
    """
    pieces = [
        (name, group) for name in columns for group in trace.row_groups(name, TIME_COLUMN[name])
    ]
    pieces.sort(key=lambda piece: _begin(piece[1]))
    waiting = {name: empty(name, columns[name]) for name in columns}
    decoded = _decoded(trace, columns, tuple(pieces))
    for until_ns in _cuts([group for _, group in pieces], rows):
        while pieces and _begin(pieces[0][1]) <= until_ns:
            name, _ = pieces.pop(0)
            news = next(decoded)
            both = [waiting[name], news] if len(waiting[name]) else [news]
            waiting[name] = pd.concat(both, ignore_index=True)
        ready = {}
        for name, held in list(waiting.items()):
            key = TIME_COLUMN[name]
            if not held[key].is_monotonic_increasing:
                held = held.sort_values(key, kind="stable", ignore_index=True)
            due = int(held[key].searchsorted(until_ns, "right"))
            ready[name] = held.iloc[:due]
            waiting[name] = held.iloc[due:]
        yield Window(min(until_ns, _last_ns(ready)), ready)


def _decoded(
    trace: Trace,
    columns: Mapping[str, Sequence[str] | None],
    pieces: Sequence[tuple[str, RowGroup]],
) -> Iterator[pd.DataFrame]:
    """The rows of each piece, in order, read by a thread that is a few pieces ahead."""

    def read(name: str, group: RowGroup) -> pd.DataFrame:
        return from_arrow(name, trace.read_row_group(name, group, columns[name]))

    with ThreadPoolExecutor(1) as reader:
        ahead: deque[Future[pd.DataFrame]] = deque()
        for name, group in pieces:
            ahead.append(reader.submit(read, name, group))
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


def _last_ns(tables: Mapping[str, pd.DataFrame]) -> int:
    """The last row's time: a file without statistics does not tell it before it is read."""
    lasts = [rows[TIME_COLUMN[name]].iloc[-1] for name, rows in tables.items() if len(rows)]
    return int(max(lasts, default=_NEVER))


def _begin(group: RowGroup) -> int:
    return _ALWAYS if group.begin_ns is None else group.begin_ns


def _end(group: RowGroup) -> int:
    return _NEVER if group.end_ns is None else group.end_ns
