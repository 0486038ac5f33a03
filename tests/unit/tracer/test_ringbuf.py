"""The walk over ring memory, on rings made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tracer.kernel.ringbuf import RingError, committed
from tracer.trace.schema import TABLES

BUSY, DISCARD = 1 << 31, 1 << 30
DTYPE = np.dtype([("a", "<i8"), ("b", "<i2")], align=True)  # 16 bytes


def ring(*records: tuple[int, int, int]) -> np.ndarray:
    """Memory of records (flags, a, b), each header 8 bytes: length with flags, page offset."""
    memory = b""
    for flags, a, b in records:
        memory += np.array([16 | flags, 3], "<u4").tobytes()
        memory += np.array([(a, b)], DTYPE).tobytes()
    return np.frombuffer(memory, np.uint8)


def test_records_are_a_view_of_the_memory() -> None:
    memory = ring((0, 1, 10), (0, 2, 20), (0, 3, 30))
    records, used = committed(memory, DTYPE)
    assert records["a"].tolist() == [1, 2, 3]
    assert records["b"].tolist() == [10, 20, 30]
    assert used == 3 * 24
    assert np.shares_memory(records, memory)


def test_reading_stops_at_a_record_that_is_not_written_yet() -> None:
    records, used = committed(ring((0, 1, 1), (BUSY, 2, 2), (0, 3, 3)), DTYPE)
    assert records["a"].tolist() == [1]
    assert used == 24


def test_a_ring_whose_first_record_is_busy_has_nothing() -> None:
    records, used = committed(ring((BUSY, 1, 1), (0, 2, 2)), DTYPE)
    assert len(records) == 0
    assert used == 0


def test_discarded_records_are_passed_over() -> None:
    records, used = committed(ring((0, 1, 1), (DISCARD, 2, 2), (0, 3, 3)), DTYPE)
    assert records["a"].tolist() == [1, 3]
    assert used == 3 * 24


def test_an_empty_ring_has_nothing() -> None:
    records, used = committed(ring(), DTYPE)
    assert len(records) == 0
    assert used == 0


def test_a_size_that_is_no_multiple_of_8_is_rounded_up() -> None:
    dtype = np.dtype([("a", "<i4")])
    memory = np.array([4, 0, 11, 0, 4, 0, 22, 0], "<u4").view(np.uint8)
    records, used = committed(memory, dtype)
    assert records["a"].tolist() == [11, 22]
    assert used == 32


@pytest.mark.parametrize("memory", [ring((0, 1, 1))[:-8], ring((8, 1, 1))])
def test_what_is_no_ring_of_these_records_is_refused(memory: np.ndarray) -> None:
    with pytest.raises(RingError):
        committed(memory, DTYPE)


@pytest.mark.parametrize("table", [table for table in TABLES.values() if table.ring])
def test_a_table_is_read_from_a_ring_without_a_copy(table: object) -> None:
    dtype = table.dtype  # type: ignore[attr-defined]
    stride = 8 + -(-dtype.itemsize // 8) * 8
    memory = np.zeros(5 * stride, np.uint8)
    memory.view("<u4")[:: stride // 4] = dtype.itemsize
    records, used = committed(memory, dtype)
    assert len(records) == 5
    assert used == len(memory)
    assert np.shares_memory(records, memory)
