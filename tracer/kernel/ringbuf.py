"""A BPF ring buffer, read as numpy views over its memory: no Python per event, one copy.

The kernel's layout (kernel/bpf/ringbuf.c) is: a page with the consumer's position, which is
ours to write; a page with the producer's; and the data, mapped twice in a row so that what
wraps around is still in one piece. A record is a header of 8 bytes and its data, rounded up to
8 bytes:

    u32 length | BUSY (reserved, not yet written) | DISCARD (to be skipped)
    u32 offset in pages, for the kernel's own use

All records of one of our rings have one size, so everything between the two positions is one
array with a constant stride, and no loop over the records is needed.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Final

import numpy as np

from tracer.kernel.fence import fence

__all__ = ["Ring", "RingError", "committed"]

_HEADER: Final = 8
_BUSY: Final = np.uint32(1 << 31)
_DISCARD: Final = np.uint32(1 << 30)


class RingError(Exception):
    """A ring holds something other than its records: a fault in pretake or in the kernel."""


def stride_of(dtype: np.dtype[np.void]) -> int:
    """Bytes from one record of ``dtype`` to the next in a ring."""
    return _HEADER + -(-dtype.itemsize // 8) * 8


def committed(data: np.ndarray, dtype: np.dtype[np.void]) -> tuple[np.ndarray, int]:
    """The records at the front of a piece of ring memory that are there to be read.

    Args:
        data: bytes from the consumer's position to the producer's.
        dtype: of one record.

    Returns:
        The records as a view (a copy only if some were discarded) and how many bytes they,
        and the discarded ones among them, take. Reading stops at the first record that its
        writer has not finished.

    Raises:
        RingError: a record has another length, or there is a part of one.
    """
    stride = stride_of(dtype)
    count, rest = divmod(len(data), stride)
    if rest:
        raise RingError(f"{len(data)} bytes are no whole number of records of {stride}")
    cells = np.ndarray(
        count,
        np.dtype(
            {
                "names": ["header", "record"],
                "formats": ["<u4", dtype],
                "offsets": [0, _HEADER],
                "itemsize": stride,
            }
        ),
        data,
    )
    headers = cells["header"]
    busy = headers >= _BUSY
    # A record is read after its header.
    fence()
    if busy.any():
        cells = cells[: int(busy.argmax())]
        headers = cells["header"]
    if len(headers) == 0:
        return cells["record"], 0
    plain = headers == dtype.itemsize
    if plain.all():
        return cells["record"], len(cells) * stride
    if ((headers & ~_DISCARD) != dtype.itemsize).any():
        raise RingError(f"a record is not {dtype.itemsize} bytes long")
    return cells["record"][plain], len(cells) * stride


class Ring:
    """The reader's end of one ring.

    Args:
        map_fd: the BPF map.
        size: its bytes (``max_entries``), a power of two.
        dtype: of one record.
    """

    def __init__(self, map_fd: int, size: int, dtype: np.dtype[np.void]) -> None:
        self.size = size
        self.dtype = dtype
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(
            map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0
        )
        self._data_pages = mmap.mmap(
            map_fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._data_pages, np.uint64, 1)
        self._data = np.frombuffer(self._data_pages, np.uint8, 2 * size, page)
        self._pending = 0
        self.peeked_fill = 0.0
        """:attr:`fill` as of the last :meth:`peek` or :meth:`pieces`."""

    @property
    def fill(self) -> float:
        """How full the ring is, 0 to 1."""
        return int(self._producer[0] - self._consumer[0]) / self.size

    def peek(self) -> np.ndarray:
        """The records that wait, as a view of the ring; good until :meth:`release`."""
        consumer = int(self._consumer[0])
        length = int(self._producer[0]) - consumer
        fence()
        self.peeked_fill = length / self.size
        begin = consumer & (self.size - 1)
        records, self._pending = committed(self._data[begin : begin + length], self.dtype)
        return records

    def pieces(self) -> list[np.ndarray]:
        """The same in a list, which is empty where none waits."""
        if self._producer[0] == self._consumer[0]:
            self.peeked_fill = 0.0
            return []
        records = self.peek()
        return [records] if len(records) else []

    def release(self) -> None:
        """Give the kernel back the room of the records that :meth:`peek` returned."""
        if not self._pending:
            return
        # A store that other CPUs see after our loads.
        fence()
        self._consumer[0] += np.uint64(self._pending)
        self._pending = 0

    def close(self) -> None:
        """Unmap the ring; views of it are no longer good."""
        del self._consumer, self._producer, self._data
        # A view that an exception's frames still hold keeps the mapping until they go.
        with contextlib.suppress(BufferError):
            self._data_pages.close()
        self._consumer_page.close()
