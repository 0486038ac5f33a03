"""C headers for the BPF programs: the records that they put into the rings, and numbers."""

from __future__ import annotations

from tracer.arch import ARM64, X86_64, Architecture
from tracer.trace.schema import TABLES

__all__ = ["arch_c_header", "c_header"]


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


def arch_c_header() -> str:
    """Numbers of system calls (``NR_READ``), for the architecture that is compiled for."""
    lines = ["/* Made from tracer/arch; do not edit. */", "#pragma once", ""]
    lines += [
        "#ifdef bpf_target_arm64",
        *_numbers(ARM64),
        "#else",
        *_numbers(X86_64),
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _numbers(arch: Architecture) -> list[str]:
    calls = [f"#define NR_{name.upper()} {nr}" for name, nr in arch.system_calls.items()]
    return [*calls, f"#define CALL_INSTRUCTION_BYTES {arch.call_instruction_bytes}"]
