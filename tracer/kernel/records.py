"""The C structs of the records that the BPF programs put into the rings."""

from __future__ import annotations

from tracer.trace.schema import TABLES

__all__ = ["c_header"]


def c_header() -> str:
    """The C structs and word numbers that the BPF programs share with this schema."""
    lines = ["/* Made from tracer/trace/schema.py; do not edit. */", "#pragma once", ""]
    for table in TABLES.values():
        if not table.ring:
            continue
        lines.append(f"/* {table.meaning} */")
        lines.append(f"struct {table.name}_record {{")
        lines += [f"\t{column.c_declaration}" for column in table.columns]
        padding = table.dtype.itemsize - sum(
            table.dtype[column.name].itemsize for column in table.columns
        )
        if padding:
            # Named, so that a program that sets every member leaves no byte unset.
            lines.append(f"\tchar padding[{padding}];")
        lines += ["};", ""]
        for column in table.columns:
            if column.words:
                lines.append(f"enum {table.name}_{column.name} {{")
                prefix = f"{table.name}_{column.name}_".upper()
                lines += [f"\t{prefix}{w.upper()} = {i}," for i, w in enumerate(column.words)]
                lines += ["};", ""]
    return "\n".join(lines)
