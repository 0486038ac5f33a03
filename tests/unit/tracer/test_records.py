"""Records are moved whole, and what a ring had is what Arrow would tell."""

from __future__ import annotations

import numpy as np

from analysis.windowed.columns import from_arrow, from_records
from tracer.trace.records import copied, joined, picked
from tracer.trace.schema import TABLES, UNKNOWN


def some(table: str, count: int, seed: int = 1) -> np.ndarray:
    """Records of any values that their columns can have; one of each column is unknown."""
    rng = np.random.default_rng(seed)
    declared = TABLES[table]
    records = np.zeros(count, declared.dtype)
    for column in declared.columns:
        if column.is_text:
            records[column.name] = b"name"
        elif column.words:
            records[column.name] = rng.integers(0, len(column.words), count)
        else:
            info = np.iinfo(column.numpy_type)
            records[column.name] = rng.integers(0, info.max, count)
        if column.nullable:
            records[column.name][0] = column.unknown
    return records


def test_copies_are_equal_and_share_nothing() -> None:
    records = some("block", 50)
    # A part of a ring is no array of its own.
    part = np.concatenate([records, records])[::2]
    for copy in (copied(part), joined([part[:20], part[20:]]), picked(part, np.arange(50))):
        assert copy.dtype == records.dtype
        assert copy.tolist() == part.tolist()
        assert not np.shares_memory(copy, part)
    assert picked(records, np.array([3, 1])).tolist() == [records[3].item(), records[1].item()]
    assert joined([records]) is records


def test_records_tell_what_arrow_tells_of_them() -> None:
    for name, table in TABLES.items():
        if not table.ring:
            continue
        records = some(name, 40)
        time = {"syscall": "exit_ns"}.get(name, "ts_ns")
        records[time] = np.arange(40)
        columns = [column.name for column in table.columns if not column.is_text]
        told = from_records(name, records, columns)
        arrow = from_arrow(name, table.to_arrow(records).select(columns))
        for column in columns:
            assert told[column].dtype == np.int64
            assert told[column].tolist() == arrow[column].tolist(), (name, column)
        nullable = [c.name for c in table.columns if c.nullable and not c.is_text]
        assert all(told[column][0] == UNKNOWN for column in nullable)
