"""Processor architectures, one file each: what of a program, a kernel or a trace depends on them.

Which one counts is told by what is looked at: the ELF header of a program, the manifest of a
trace. Only who captures asks for that of this machine.
"""

from __future__ import annotations

import platform
from typing import Final

from tracer.arch.architecture import HEAD_BYTES, Architecture
from tracer.arch.arm64 import ARM64
from tracer.arch.x86_64 import X86_64
from tracer.errors import PretakeError

__all__ = [
    "ARCHITECTURES",
    "ARM64",
    "HEAD_BYTES",
    "KERNEL_FIELDS",
    "X86_64",
    "Architecture",
    "of_elf",
    "of_trace",
    "this_machine",
]

ARCHITECTURES: Final[tuple[Architecture, ...]] = (X86_64, ARM64)

KERNEL_FIELDS: Final = {
    name: tuple(place for arch in ARCHITECTURES for place in arch.kernel_fields.get(name, ()))
    for name in dict.fromkeys(name for arch in ARCHITECTURES for name in arch.kernel_fields)
}
"""Of all of them, by name: a kernel has the fields of one."""


def of_elf(machine: int) -> Architecture | None:
    """The architecture of an ELF file by its ``e_machine``; None for one that is not known."""
    return next((arch for arch in ARCHITECTURES if arch.elf_machine == machine), None)


def of_trace(arch: str | None) -> Architecture | None:
    """The architecture of a trace, by its manifest's ``arch``; None for one that is not known.

    A manifest that does not tell it is of an import, whose numbers are those of x86-64.
    """
    if arch is None:
        return X86_64
    return next((known for known in ARCHITECTURES if known.name == arch), None)


def this_machine() -> Architecture:
    """The architecture that this process runs on.

    Raises:
        PretakeError: it is none that pretake knows.
    """
    found = of_trace(platform.machine())
    if found is None:
        raise PretakeError(
            f"pretake cannot capture on {platform.machine()}",
            "capture on x86-64 or arm64; a trace is read on any machine",
        )
    return found
