"""The rings of slots that BPF programs fill, one for each CPU, read as numpy views.

A program writes a record into the next slot of its CPU and then raises ``produced``; the reader
takes what lies between ``consumed`` and ``produced`` and then raises ``consumed``. Both are in
memory that the kernel and the reader share (``struct ring_end`` of tracer/bpf/rings.bpf.c), and
each has one writer, so neither side waits for the other.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from typing import Final

import numpy as np

from tracer.kernel.fence import fence
from tracer.trace.records import joined

__all__ = ["END_DTYPE", "SlotRing", "slots_of"]

END_DTYPE: Final = np.dtype(
    [(name, "<u8") for name in ("produced", "consumed", "lost", "slots", "first")]
    + [("padding", "<u8", 3)]
)
"""``struct ring_end``."""


def slots_of(size: int, dtype: np.dtype[np.void]) -> int:
    """How many slots fit into ``size`` bytes: a power of two, one at least."""
    return 1 << (max(size // _stride(dtype), 1).bit_length() - 1)


def _stride(dtype: np.dtype[np.void]) -> int:
    """Bytes from one element of a BPF array to the next."""
    return -(-dtype.itemsize // 8) * 8


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class SlotRing:
    """The reader's end of one table's rings.

    Args:
        ends_fd: the BPF array of ``struct ring_end``, by CPU.
        slots_fd: the BPF array of records.
        slots: how many each CPU has, by its number; each a power of two, or 0.
        dtype: of one record.
    """

    def __init__(
        self, ends_fd: int, slots_fd: int, slots: Sequence[int], dtype: np.dtype[np.void]
    ) -> None:
        stride, total = _stride(dtype), sum(slots)
        self._ends_map = mmap.mmap(ends_fd, _pages(len(slots) * END_DTYPE.itemsize))
        self._slots_map = mmap.mmap(
            slots_fd, _pages(total * stride), mmap.MAP_SHARED, mmap.PROT_READ
        )
        self._ends = np.frombuffer(self._ends_map, END_DTYPE, len(slots))
        padded = np.dtype({"names": ["record"], "formats": [dtype], "itemsize": stride})
        self._records = np.frombuffer(self._slots_map, padded, total)["record"]
        self._produced, self._consumed = self._ends["produced"], self._ends["consumed"]
        firsts = np.cumsum(slots) - slots
        self._places = list(zip(slots, firsts.tolist(), strict=True))
        self._pending: list[tuple[int, int]] = []
        # What we gave back so far, which nobody else changes.
        self._given: list[int] = self._consumed.tolist()
        self.peeked_fill = 0.0
        """:attr:`fill` as of the last :meth:`peek` or :meth:`pieces`."""
        self._ends["first"] = firsts
        # Last: a program on a CPU without slots writes nothing.
        self._ends["slots"] = slots

    @property
    def fill(self) -> float:
        """How full the fullest of them is, 0 to 1."""
        waiting = self._produced - self._consumed
        return float((waiting / np.maximum(self._ends["slots"], 1)).max())

    @property
    def sent(self) -> int:
        """Records that programs made, with those that found no room."""
        return int(self._produced.sum()) + self.lost

    @property
    def lost(self) -> int:
        """Records that found no room."""
        return int(self._ends["lost"].sum())

    def peek(self) -> np.ndarray:
        """The records that wait, CPU after CPU, each in the order of time.

        A view where they lie in one piece, else a copy; good until :meth:`release`.
        """
        pieces = self.pieces()
        return joined(pieces) if pieces else self._records[:0]

    def pieces(self) -> list[np.ndarray]:
        """The same as views of the ring, none of them empty; good until :meth:`release`."""
        pieces: list[np.ndarray] = []
        self.peeked_fill = 0.0
        # Once: what is produced meanwhile is for the next time.
        produced: list[int] = self._produced.tolist()
        if produced == self._given:
            return pieces
        fence()
        for cpu, (begin, end) in enumerate(zip(self._given, produced, strict=True)):
            if begin == end:
                continue
            self._pending.append((cpu, end))
            slots, place = self._places[cpu]
            self.peeked_fill = max(self.peeked_fill, (end - begin) / slots)
            first, last = begin & (slots - 1), end & (slots - 1)
            row = self._records[place : place + slots]
            pieces += [row[first:last]] if first < last else [row[first:], row[:last]]
        return [piece for piece in pieces if len(piece)]

    def release(self) -> None:
        """Give the kernel back the slots of the records that :meth:`peek` returned."""
        if not self._pending:
            return
        # A store that other CPUs see after our loads.
        fence()
        for cpu, end in self._pending:
            self._consumed[cpu] = self._given[cpu] = end
        self._pending.clear()

    def close(self) -> None:
        """Unmap it; views of it are no longer good."""
        del self._ends, self._produced, self._consumed, self._records
        for mapping in (self._slots_map, self._ends_map):
            # A view that an exception's frames still hold keeps the mapping until they go.
            with contextlib.suppress(BufferError):
                mapping.close()
