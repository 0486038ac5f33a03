"""A trace from plain values without a capture: for tests, and for what other tools recorded.

Example:
    >>> trace = write_trace(tmp / "x.pretake", {"task": {"ts_ns": [5], "kind": ["exec"]}})
    >>> trace.frame("task", ["ts_ns", "kind"]).to_dict("records")
    [{'ts_ns': 5, 'kind': 'exec'}]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tracer.trace.columns import Table
from tracer.trace.manifest import Manifest, manifest_from_json
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES
from tracer.trace.writer import TraceWriter

__all__ = ["write_trace"]


def write_trace(
    path: str | Path,
    tables: Mapping[str, Mapping[str, Sequence[Any]]],
    manifest: Mapping[str, Any] | None = None,
) -> Trace:
    """Write a trace from plain values.

    Args:
        path: the folder to make.
        tables: values by table and column; words and names as strings, None for null. A column
            that is not given is null, or 0 (the first word, no name) where null is not allowed.
        manifest: fields of :class:`~tracer.trace.manifest.Manifest` that differ from their
        default.

    Returns:
        The trace, read back.
    """
    writer = TraceWriter(path)
    for name, given in tables.items():
        writer.write(name, _table_of(TABLES[name], given))
    described = manifest_from_json(
        Manifest().to_json() if manifest is None else _merged_json(manifest), str(path)
    )
    writer.close(described)
    return Trace(path)


def _merged_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps({**json.loads(Manifest().to_json()), **manifest})


def _table_of(table: Table, given: Mapping[str, Sequence[Any]]) -> pa.Table:
    unknown = set(given) - set(table.arrow_schema.names)
    if unknown:
        raise KeyError(f"table {table.name} has no column {', '.join(sorted(unknown))}")
    length = max((len(values) for values in given.values()), default=0)
    arrays = []
    for column in table.columns:
        if column.nullable:
            default: Any = None
        elif column.words:
            default = column.words[0]
        else:
            default = "" if column.is_text else 0
        values = list(given.get(column.name, [default] * length))
        if column.words:
            codes = [None if word is None else column.code(word) for word in values]
            arrays.append(
                pa.DictionaryArray.from_arrays(
                    pa.array(codes, pa.int8()), pa.array(column.words, pa.string())
                )
            )
        else:
            arrays.append(pa.array(values, column.arrow_type))
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)
