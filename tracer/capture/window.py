"""The last seconds of a watch's records, in memory, up to a number of bytes.

Example: with 30 s and 128 MiB, a program that makes 1 MB of records a second has its last 30 s
here. One that makes 10 MB a second has its last 12 s, and :attr:`Window.cut` says so.

Records stay as the ring had them, which is half of what Arrow needs for few rows at a time. They
lie in *slices* of about a second by when they came, in the pieces in which they came: most are
never asked for, so they are joined only then. Whole slices go, the oldest first, and who keeps
what was true before the window (:mod:`tracer.capture.head`) is given what goes.

The newest 16 MiB are kept as they came. What is older is compressed, to a third: it costs nothing
for a program with few records, and 0.06 us a record for one with many, whose window is longer.
zstd's first level makes a fifth of it, for 0.09 us.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from tracer.trace.records import gathered, joined
from tracer.trace.schema import TABLES

__all__ = ["Pieces", "Slice", "Window"]

_SLICE_NS: Final = 1_000_000_000
_SLICES: Final = 32
"""A slice has at most this part of the memory, so that no more than that goes at once."""
_LOOSE_BYTES: Final = 16 << 20
"""Records that are not compressed, at most and but for the slice that is open."""


class Pieces(Mapping[str, np.ndarray]):
    """Records by table, which are joined when they are asked for.

    Args:
        pieces: of each table one at least; nobody else changes them any more.
    """

    def __init__(self, pieces: dict[str, list[np.ndarray]]) -> None:
        self._pieces = pieces

    def __getitem__(self, table: str) -> np.ndarray:
        whole = joined(self._pieces[table])
        # Who writes a dump asks from another thread: one of the two is kept, and they are equal.
        self._pieces[table] = [whole]
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


class Packed(Mapping[str, np.ndarray]):
    """Records by table, compressed; each time that they are asked for they are unpacked.

    Args:
        records: what is to be compressed.
    """

    def __init__(self, records: Mapping[str, np.ndarray]) -> None:
        self._codec = pa.Codec("lz4_raw")
        # Copied: Arrow's own buffer keeps the memory of what is not compressed.
        self._packed = {
            name: (bytes(self._codec.compress(rows.view(np.uint8))), rows.nbytes)
            for name, rows in records.items()
        }

    @property
    def nbytes(self) -> int:
        """What they take."""
        return sum(len(packed) for packed, _ in self._packed.values())

    def __getitem__(self, table: str) -> np.ndarray:
        packed, size = self._packed[table]
        unpacked = self._codec.decompress(packed, decompressed_size=size)
        return np.frombuffer(unpacked, TABLES[table].dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


class Slice(NamedTuple):
    """What came in one span of time; nothing of it changes any more.

    Args:
        begin_ns: the first moment, CLOCK_MONOTONIC. Rows may be older than it: they came late.
        end_ns: the last one; no row is later.
        records: by table, in the order in which they came.
        tables: rows that came through no ring and have texts, by table.
        nbytes: of all.
    """

    begin_ns: int
    end_ns: int
    records: Mapping[str, np.ndarray]
    tables: Mapping[str, pa.Table]
    nbytes: int

    def packed(self) -> Slice:
        """The same with its records compressed."""
        records = Packed(self.records)
        texts = sum(rows.nbytes for rows in self.tables.values())
        return self._replace(records=records, nbytes=records.nbytes + texts)


@dataclass
class _Open:
    """The slice that rows are added to."""

    begin_ns: int
    records: dict[str, list[np.ndarray]] = field(default_factory=dict)
    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    nbytes: int = 0

    def sealed(self, end_ns: int) -> Slice:
        tables = {name: pa.concat_tables(pieces) for name, pieces in self.tables.items()}
        return Slice(self.begin_ns, end_ns, Pieces(self.records), tables, self.nbytes)


class Window:
    """Keeps the last seconds.

    Args:
        span_ns: how long the window is to be, at least while there is memory for it.
        limit_bytes: of records. One piece that is larger is kept alone.
        begin_ns: when the watch began, CLOCK_MONOTONIC.
        gone: is given each slice that goes.

    Attributes:
        cut: whether the window is shorter now than it was to be, for want of memory.
        nbytes: of all records that are kept.
        keep_ns: nothing that came at or after it goes for its age; None for no such moment.
    """

    def __init__(
        self, span_ns: int, limit_bytes: int, begin_ns: int, gone: Callable[[Slice], None]
    ) -> None:
        self.cut = False
        self.nbytes = 0
        self.keep_ns: int | None = None
        self._span_ns = span_ns
        self._limit_bytes = limit_bytes
        self._gone = gone
        self._slices: deque[Slice] = deque()
        self._packed = self._loose = 0
        """How many of the slices, the oldest ones, are compressed; and the bytes of the others."""
        self._open = _Open(begin_ns)

    @property
    def begin_ns(self) -> int:
        """From when on all that came is here."""
        return self._slices[0].begin_ns if self._slices else self._open.begin_ns

    def add(self, table: str, pieces: Sequence[np.ndarray], now_ns: int) -> np.ndarray:
        """Keep a copy of records that just came.

        Args:
            table: of them.
            pieces: one at least, of the table's record type; they may be the ring's own memory.
            now_ns: the time, CLOCK_MONOTONIC, later than each record's.

        Returns:
            The copy, which changes no more.
        """
        copy = gathered(pieces)
        if len(copy):
            self._make_room(copy.nbytes, now_ns)
            self._open.records.setdefault(table, []).append(copy)
            self._count(copy.nbytes)
        return copy

    def add_table(self, table: str, rows: pa.Table, now_ns: int) -> None:
        """Keep rows that came through no ring."""
        if rows.num_rows:
            self._make_room(rows.nbytes, now_ns)
            self._open.tables.setdefault(table, []).append(rows)
            self._count(rows.nbytes)

    def step(self, now_ns: int) -> None:
        """Let go of what is too old; call it often, also if nothing comes."""
        if now_ns - self._open.begin_ns >= _SLICE_NS:
            self._seal(now_ns)
        oldest_ns = now_ns - self._span_ns
        if self.keep_ns is not None:
            oldest_ns = min(oldest_ns, self.keep_ns)
        while self._slices and self._slices[0].end_ns < oldest_ns:
            self._let_go()
            self.cut = False
        if self.begin_ns <= oldest_ns:
            self.cut = False
        while self._loose > _LOOSE_BYTES:
            self._pack()

    def slices(self, now_ns: int) -> list[Slice]:
        """All that is here, by when it came."""
        self._seal(now_ns)
        return list(self._slices)

    def _count(self, nbytes: int) -> None:
        self._open.nbytes += nbytes
        self.nbytes += nbytes

    def _make_room(self, nbytes: int, now_ns: int) -> None:
        if self._open.nbytes >= self._limit_bytes // _SLICES:
            self._seal(now_ns)
        while self.nbytes and self.nbytes + nbytes > self._limit_bytes:
            if not self._slices:
                self._seal(now_ns)
            self._let_go()
            self.cut = True

    def _seal(self, now_ns: int) -> None:
        # The next one begins a moment later, so that each moment is in one of them.
        end_ns = max(now_ns, self._open.begin_ns)
        self._slices.append(self._open.sealed(end_ns))
        self._loose += self._open.nbytes
        self._open = _Open(end_ns + 1)

    def _pack(self) -> None:
        """Compress the oldest slice that is not."""
        before = self._slices[self._packed]
        after = self._slices[self._packed] = before.packed()
        self._packed += 1
        self._loose -= before.nbytes
        self.nbytes += after.nbytes - before.nbytes

    def _let_go(self) -> None:
        oldest = self._slices.popleft()
        self.nbytes -= oldest.nbytes
        if self._packed:
            self._packed -= 1
        else:
            self._loose -= oldest.nbytes
        self._gone(oldest)
