"""Table reach: since when the runtime of each program of each process could be read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tracer.capture.images import Image
from tracer.trace.columns import column_array, text_array
from tracer.trace.containers import Container
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["reach_table"]


def reach_table(every: Iterable[Image]) -> pa.Table:
    """Table reach: a row for each program that a process became, or was at the begin."""
    table = TABLES["reach"]
    # Neither the shell that waits at the gate, nor what was forked and is no program of its own.
    images = [image for image in every if image.comm is not None]
    rows = np.zeros(len(images), [(c.name, c.numpy_type) for c in table.columns if not c.is_text])
    texts: dict[str, list[str | None]] = {"path": [], "build_id": [], "comm": []}
    texts |= {"runtime": [], "version": [], **{name: [] for name in Container._fields}}
    for row, image in zip(rows, images, strict=True):
        binary = image.runtime.binary if image.runtime else None
        row["pid"], row["generation"] = image.pid, image.generation
        row["exec_ns"] = UNKNOWN if image.exec_ns is None else image.exec_ns
        row["ts_ns"] = UNKNOWN if image.reach_ns is None else image.reach_ns
        texts["path"].append(image.path)
        texts["comm"].append(image.comm)
        texts["build_id"].append(binary.build_id if binary else None)
        texts["version"].append(binary.version if binary else None)
        texts["runtime"].append(binary.runtime if binary else "none")
        for name, told in image.place._asdict().items():
            texts[name].append(told)
    arrays = [
        text_array(texts[column.name])
        if column.is_text
        else column_array(column, np.ascontiguousarray(rows[column.name]))
        for column in table.columns
    ]
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)
