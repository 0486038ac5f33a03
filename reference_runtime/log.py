"""Rows of numbers, of which only the last few are in memory.

Not compiled: mypyc's classes have no finaliser, and the file is to be closed with its log.
"""

from __future__ import annotations

import _thread
import tempfile
from array import array
from collections.abc import Iterator
from typing import IO, Final

__all__ = ["BLOCK_ROWS", "ROW", "Log"]

BLOCK_ROWS: Final = 4096
"""So many rows are kept in memory."""
ROW: Final = 8
"""Numbers in a row of the log."""


class Log:
    """Rows of eight numbers in the order in which they were added, most of them in a file."""

    def __init__(self) -> None:
        # Another thread may come while a block is written. One that may be taken twice, since a
        # finaliser that a collection calls may come here as well.
        self.lock = _thread.RLock()
        self.rows = array("q")
        self.file: IO[bytes] | None = None

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()

    def add(self, row: tuple[int, ...]) -> None:
        """Add a row; once in ``BLOCK_ROWS`` rows that takes a write(2)."""
        with self.lock:
            self.rows.extend(row)
            if len(self.rows) >= BLOCK_ROWS * ROW:
                block = self.rows
                self.rows = array("q")
                if self.file is None:
                    self.file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the log
                self.file.seek(0, 2)
                self.file.write(block.tobytes())

    def blocks(self) -> Iterator[array[int]]:
        """All rows, a block at a time."""
        if self.file is not None:
            self.file.seek(0)
            while data := self.file.read(BLOCK_ROWS * ROW * 8):
                block = array("q")
                block.frombytes(data)
                yield block
        yield self.rows
