"""Table reach: since when the runtime of each program of each process could be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tracer.capture.images import Image
from tracer.trace.columns import column_array, text_array
from tracer.trace.containers import Container
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["Reach", "reach_table", "reaches"]


class Reach(NamedTuple):
    """What table reach has of one program."""

    pid: int
    generation: int
    exec_ns: int | None
    reach_ns: int | None
    path: str | None
    build_id: str | None
    comm: str | None
    runtime: str
    version: str | None
    place: Container


def reaches(every: Iterable[Image]) -> list[Reach]:
    """What :func:`reach_table` tells, in its order: compared sooner than a table is made."""
    found = []
    # Neither the shell that waits at the gate, nor what was forked and is no program of its own.
    for image in every:
        if image.comm is None:
            continue
        binary = image.runtime.binary if image.runtime else None
        found.append(
            Reach(
                image.pid,
                image.generation,
                image.exec_ns,
                image.reach_ns,
                image.path,
                binary.build_id if binary else None,
                image.comm,
                binary.runtime if binary else "none",
                binary.version if binary else None,
                image.place,
            )
        )
    return found


def reach_table(every: Iterable[Image]) -> pa.Table:
    """Table reach: a row for each program that a process became, or was at the begin."""
    table = TABLES["reach"]
    told = reaches(every)
    rows = np.zeros(len(told), [(c.name, c.numpy_type) for c in table.columns if not c.is_text])
    texts: dict[str, list[str | None]] = {"path": [], "build_id": [], "comm": []}
    texts |= {"runtime": [], "version": [], **{name: [] for name in Container._fields}}
    for row, one in zip(rows, told, strict=True):
        row["pid"], row["generation"] = one.pid, one.generation
        row["exec_ns"] = UNKNOWN if one.exec_ns is None else one.exec_ns
        row["ts_ns"] = UNKNOWN if one.reach_ns is None else one.reach_ns
        for name in ("path", "comm", "build_id", "version", "runtime"):
            texts[name].append(getattr(one, name))
        for name, value in one.place._asdict().items():
            texts[name].append(value)
    arrays = [
        text_array(texts[column.name])
        if column.is_text
        else column_array(column, np.ascontiguousarray(rows[column.name]))
        for column in table.columns
    ]
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)
