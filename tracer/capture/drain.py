"""Moves records from the rings in the kernel to the parts on disk, one ring after the other.

The drain reads the rings on a timer whose period follows how fast they fill. The kernel does not
wake it for a record, because its own switches would then be records again. It wakes it for an
exec, and when a ring is half full.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.background import BackgroundWriter
from tracer.errors import PretakeError
from tracer.kernel.table_rings import LossSpan, TableRings
from tracer.trace.schema import TABLES
from tracer.trace.writer import TraceWriter

__all__ = ["Drain", "loss_records", "loss_rows"]

_FILL_WANTED: Final = 0.2
_PERIOD_MIN_S: Final = 0.002
_PERIOD_MAX_S: Final = 0.1
_COUNTS_PERIOD_S: Final = 0.25
_LAST_RECORDS_S: Final = 2.0


class Drain:
    """Moves records from the programs' rings to a trace.

    Args:
        rings: where they come from.
        writer: where they go; nobody else may use it until :meth:`finish` or :meth:`abandon`.
        observers: called with the records of a table, by its name, before they are written.
    """

    def __init__(
        self,
        rings: TableRings,
        writer: TraceWriter,
        observers: Mapping[str, Callable[[np.ndarray], None]] | None = None,
    ) -> None:
        self._rings = rings
        self._writer = BackgroundWriter(writer)
        self._observers = dict(observers or {})
        self._period_s = _PERIOD_MIN_S
        self._counted_at_s = 0.0
        self.stored: dict[str, int] = dict.fromkeys(rings.rings, 0)
        self.lost = 0

    @property
    def events(self) -> int:
        """Records stored so far."""
        return sum(self.stored.values())

    def add(self, table: str, rows: pa.Table) -> None:
        """Put rows among the others that came through no ring."""
        self._writer.write(table, rows)

    def step(self) -> float:
        """Take what the rings hold.

        Returns:
            Seconds to wait before the next call.

        Raises:
            PretakeError: the disk is full.
        """
        fill = max(ring.fill for ring in self._rings.rings.values())
        self._take_all()
        now_s = time.monotonic()
        if now_s - self._counted_at_s >= _COUNTS_PERIOD_S:
            self._counted_at_s = now_s
            self._take_losses()
        wanted_s = self._period_s * _FILL_WANTED / max(fill, 1e-3)
        # Slower by steps, since a burst may follow a silence; faster at once.
        wanted_s = min(wanted_s, 2 * self._period_s)
        self._period_s = min(max(wanted_s, _PERIOD_MIN_S), _PERIOD_MAX_S)
        return self._period_s

    def drain(self) -> None:
        """Take the last records, once every probe is away: until all that was sent is there.

        Raises:
            PretakeError: the disk is full, or a record that was sent never came.
        """
        deadline = time.monotonic() + _LAST_RECORDS_S
        while True:
            self._take_all()
            counts = self._rings.counts()
            missing = [name for name, n in counts.items() if n.sent - n.lost != self.stored[name]]
            if not missing:
                break
            if time.monotonic() > deadline:
                raise PretakeError(f"records of {', '.join(missing)} were sent and never came")
            # A program that ran when its probe was taken away still writes, elsewhere.
            time.sleep(_PERIOD_MIN_S)
        # Both halves: what the last epoch left, and what this one did.
        self._take_losses()
        self._take_losses()

    def finish(self) -> None:
        """Let the writer finish what it was given; drain first.

        Raises:
            PretakeError: the disk is full.
        """
        self._writer.finish()

    def abandon(self) -> None:
        """Let go of the writer after an error; rows that wait for it are dropped."""
        with contextlib.suppress(PretakeError):
            self._writer.finish()

    def _take_all(self) -> None:
        for name, ring in self._rings.rings.items():
            records = ring.peek()
            if len(records):
                if name in self._observers:
                    self._observers[name](records)
                self.stored[name] += len(records)
                self._writer.write(name, TABLES[name].to_arrow(records))
            ring.release()

    def _take_losses(self) -> None:
        self.lost = sum(count.lost for count in self._rings.counts().values())
        spans = self._rings.take_loss_spans()
        if spans:
            self._writer.write("loss", loss_rows(spans))


def loss_rows(spans: list[LossSpan]) -> pa.Table:
    """Table loss: a row a span."""
    return TABLES["loss"].to_arrow(loss_records(spans))


def loss_records(spans: list[LossSpan]) -> np.ndarray:
    """The same as records."""
    table = TABLES["loss"]
    rows = np.zeros(len(spans), table.dtype)
    code = table.column("table").code
    for row, span in zip(rows, spans, strict=True):
        row["begin_ns"], row["end_ns"] = span.begin_ns, span.end_ns
        row["lost"], row["cpu"], row["table"] = span.lost, span.cpu, code(span.table)
    return rows
