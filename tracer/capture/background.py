"""A trace writer on a thread of its own, so that compressing a row group never delays a drain.

Arrow releases the GIL while it encodes and writes, so the two threads run side by side.
"""

from __future__ import annotations

import queue
import threading
from typing import Final

import pyarrow as pa

from tracer.errors import PretakeError
from tracer.trace.writer import TraceWriter

__all__ = ["BackgroundWriter"]

_WAITING_LIMIT: Final = 256 << 20
_ROTATE_PERIOD_S: Final = 0.1


class BackgroundWriter:
    """Hands rows to a :class:`~tracer.trace.writer.TraceWriter`, which nobody else uses meanwhile.

    Args:
        writer: where the rows go.
        waiting_limit: bytes of rows that may wait. Beyond that :meth:`write` waits itself, so
            that memory stays flat: then the rings fill up, and what they lose is counted.
    """

    def __init__(self, writer: TraceWriter, waiting_limit: int = _WAITING_LIMIT) -> None:
        self._writer = writer
        self._limit = waiting_limit
        self._queue: queue.SimpleQueue[tuple[str, pa.Table] | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._waiting = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pretake-writer", daemon=True)
        self._thread.start()

    def write(self, table: str, rows: pa.Table) -> None:
        """Append rows of one table, soon.

        Raises:
            PretakeError: the disk is full; perhaps because of rows that came before.
        """
        with self._room:
            self._room.wait_for(lambda: self._waiting < self._limit or self._error is not None)
            self._check()
            self._waiting += rows.nbytes
        self._queue.put((table, rows))

    def finish(self) -> None:
        """Wait until everything is with the writer, which is free again afterwards.

        Raises:
            PretakeError: the disk is full.
        """
        self._queue.put(None)
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is None:
            return
        if isinstance(self._error, PretakeError):
            raise PretakeError(self._error.problem, self._error.mend)
        raise self._error

    def _run(self) -> None:
        try:
            while True:
                try:
                    item = self._queue.get(timeout=_ROTATE_PERIOD_S)
                except queue.Empty:
                    self._writer.rotate()
                    continue
                if item is None:
                    return
                self._writer.write(*item)
                self._writer.rotate()
                with self._room:
                    self._waiting -= item[1].nbytes
                    self._room.notify()
        except BaseException as error:
            with self._room:
                self._error = error
                self._room.notify()
