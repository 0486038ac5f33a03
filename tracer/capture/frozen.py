"""One dump of a watch: the rows of a span of time, and all that makes them a whole trace.

A dump is what a capture would have written that began and ended with the span. Its first rows
are the head's (:mod:`tracer.capture.head`). ``sent``, ``lost`` and ``events`` of its manifest
count the span alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracer.capture.head import Head
from tracer.capture.images import Images
from tracer.capture.kernel_stacks import KernelStack
from tracer.capture.reach import reach_table
from tracer.capture.symbols import Symbols
from tracer.capture.window import Slice
from tracer.errors import PretakeError
from tracer.trace.manifest import Manifest, Missing
from tracer.trace.reader import GO_TRACE
from tracer.trace.schema import TABLES, UNKNOWN
from tracer.trace.writer import TraceWriter

__all__ = ["FLIGHT", "TIME_OF", "Frozen", "in_span", "reach_in_span"]

FLIGHT: Final = "the window of Go's own flight recorder"
"""What the manifest calls it where it is missing."""

TIME_OF: Final = {
    name: {"syscall": "exit_ns", "loss": "begin_ns"}.get(name, "ts_ns")
    for name, table in TABLES.items()
    if table.ring or name == "loss"
}
"""The column that says when a row became known."""

_DELIVER: Final = TABLES["signal"].column("kind").code("deliver")
_HEADED: Final = ("task", "pstate")


@dataclass(frozen=True)
class Frozen:
    """What a dump is made of. Nothing of it changes, so that another thread may write it.

    Args:
        begin_ns: where it begins, CLOCK_MONOTONIC; end_ns: where it ends.
        slices: all records that came since ``begin_ns``, by when they came.
        head: what was true before them.
        stacks: those that the rows of table block name, by stack_id.
        reach: table reach of the processes in it.
        symbols: tells what addresses are.
        manifest: all but what is counted here.
        go_trace: what Go's own flight recorder gave; empty for nothing.
    """

    begin_ns: int
    end_ns: int
    slices: list[Slice]
    head: Head
    stacks: Mapping[int, KernelStack]
    reach: pa.Table
    symbols: Symbols
    manifest: Manifest
    go_trace: bytes = b""

    def write(self, path: Path) -> Manifest:
        """Write the trace.

        Args:
            path: the folder to make.

        Returns:
            Its final manifest.

        Raises:
            PretakeError: it cannot be written; the folder may be left.
        """
        writer = TraceWriter(path, self.manifest)
        try:
            self._write_rows(writer)
            # Closed parts are what it is to count.
            writer.rotate(now=True)
        except PretakeError:
            writer.abort()
            raise
        if self.go_trace:
            self._write_go_trace(path / GO_TRACE)
        manifest, rows = self.manifest, writer.rows
        lost = self._lost()
        ringed = [name for name, table in TABLES.items() if table.ring]
        manifest.lost = {name: lost.get(name, 0) for name in ringed}
        manifest.sent = {name: rows[name] + lost.get(name, 0) for name in ringed}
        seconds = (self.end_ns - self.begin_ns) / 1e9
        manifest.capture.wall_s = seconds
        manifest.capture.events_per_s = sum(rows.values()) / seconds if seconds > 0 else None
        writer.close(manifest)
        return manifest

    def _write_go_trace(self, file: Path) -> None:
        try:
            file.write_bytes(self.go_trace)
        except OSError as error:
            # The dump is worth more than what is beside it.
            with contextlib.suppress(OSError):
                file.unlink()
            self.manifest.missing.append(
                Missing(FLIGHT, f"it cannot be written: {error.strerror}", "make room on the disk")
            )

    def _write_rows(self, writer: TraceWriter) -> None:
        before, after = self._about_begin()
        head = self.head.copy()
        head.take(before)
        first = head.rows(self.begin_ns, after)
        pids: dict[int, int] = {}
        for name in _HEADED:
            writer.write(name, TABLES[name].to_arrow(first[name]))
        for records in (first["task"], after["task"]):
            pids.update(zip(records["tid"].tolist(), records["pid"].tolist(), strict=True))
        interrupted: set[tuple[int, int, int]] = set()
        for name, records in self._spans():
            writer.write(name, TABLES[name].to_arrow(records))
            if name == "signal":
                came = records[(records["kind"] == _DELIVER) & (records["pc"] != UNKNOWN)]
                for tid, generation, pc_ in came[["tid", "generation", "pc"]].tolist():
                    if tid in pids:
                        interrupted.add((pids[tid], generation, pc_))
        for piece in self.slices:
            if "throttle" in piece.tables:
                writer.write("throttle", self._throttled(piece.tables["throttle"]))
        for name, rows in self.symbols.tables_of(self.stacks, interrupted).items():
            writer.write(name, rows)
        writer.write("reach", self.reach)

    def _spans(self) -> Iterator[tuple[str, np.ndarray]]:
        for piece in self.slices:
            for name, records in piece.records.items():
                found = in_span(name, records, self.begin_ns, self.end_ns)
                if len(found):
                    yield name, found

    def _about_begin(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Records of the head's tables that came late, from before; and those of the span."""
        before, after = {}, {}
        for name in _HEADED:
            pieces = [piece.records[name] for piece in self.slices if name in piece.records]
            whole = np.concatenate([np.zeros(0, TABLES[name].dtype), *pieces])
            times = whole["ts_ns"]
            before[name] = whole[times < self.begin_ns]
            after[name] = whole[(times >= self.begin_ns) & (times <= self.end_ns)]
        return before, after

    def _throttled(self, rows: pa.Table) -> pa.Table:
        """Rows of table throttle in the span. One that took nothing may begin before it."""
        begins, ends = rows["begin_ns"], rows["end_ns"]
        wanted = pc.and_(pc.greater(ends, self.begin_ns), pc.less(begins, self.end_ns))
        whole = pc.and_(pc.greater_equal(begins, self.begin_ns), pc.less_equal(ends, self.end_ns))
        idle = pc.equal(rows["throttled_ns"], 0)
        rows = rows.filter(pc.and_(wanted, pc.or_(whole, idle)))
        for name, bound, limit in (
            ("begin_ns", pc.max_element_wise, self.begin_ns),
            ("end_ns", pc.min_element_wise, self.end_ns),
        ):
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(at), bound(rows[name], pa.scalar(limit)))
        return rows

    def _lost(self) -> dict[str, int]:
        words = TABLES["loss"].column("table").words
        found: dict[str, int] = {}
        for piece in self.slices:
            if "loss" not in piece.records:
                continue
            records = in_span("loss", piece.records["loss"], self.begin_ns, self.end_ns)
            for code, lost in zip(
                records["table"].tolist(), records["lost"].tolist(), strict=True
            ):
                found[words[code]] = found.get(words[code], 0) + lost
        return found


def in_span(table: str, records: np.ndarray, begin_ns: int, end_ns: int) -> np.ndarray:
    """The records of a span, as a trace of that span has them.

    A span of loss is cut where it leaves the span. A P's state whose last look was before the
    begin is told as a first look, which has none before it.
    """
    if table == "loss":
        found = records[(records["end_ns"] >= begin_ns) & (records["begin_ns"] <= end_ns)]
        found["begin_ns"] = np.maximum(found["begin_ns"], begin_ns)
        found["end_ns"] = np.minimum(found["end_ns"], end_ns)
        return found
    times = records[TIME_OF[table]]
    found = records[(times >= begin_ns) & (times <= end_ns)]
    if table == "pstate":
        found["since_ns"][found["since_ns"] < begin_ns] = UNKNOWN
    return found


def reach_in_span(images: Images, programs: set[tuple[int, int]], begin_ns: int) -> pa.Table:
    """Table reach of a dump.

    Args:
        images: of the watch.
        programs: process and generation of each program that has a row of table task in it.
        begin_ns: of the dump: what became a program before has no time of it.
    """
    rows = reach_table(
        image
        for image in images
        if (image.pid, image.generation) in programs or images.current(image.pid) is image
    )
    at = rows.schema.get_field_index("exec_ns")
    execs = rows["exec_ns"]
    known = pc.if_else(pc.greater_equal(execs, begin_ns), execs, pa.scalar(None, pa.int64()))
    return rows.set_column(at, rows.schema.field(at), known)
