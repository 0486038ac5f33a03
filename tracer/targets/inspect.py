"""Finds the runtime in a program's file. This is what the parser does in its jail.

Nothing here opens a file: only :mod:`tracer.targets.jail` opens files of strangers.
"""

from __future__ import annotations

from pathlib import Path

from tracer.targets import go, reference
from tracer.targets.binary import NoRuntime, RuntimeBinary
from tracer.targets.buildinfo import build_info
from tracer.targets.elf import Elf
from tracer.targets.other import other_file, other_program
from tracer.targets.program_file import Bytes

__all__ = ["inspect", "is_go"]


def inspect(path: Path, source: Bytes, *, deep: bool) -> RuntimeBinary | NoRuntime:
    """Look at a program or a library.

    Args:
        path: of the file, for messages and probes.
        source: its bytes.
        deep: read its debug information also where the shipped tables know the version.

    Raises:
        PretakeError: it is damaged.
    """
    other = other_file(source)
    if other is not None:
        return other
    with Elf(path, source) as elf:
        found = go.look(elf, deep=deep) or reference.look(elf)
        return found or other_program(elf, source)


def is_go(path: Path, source: Bytes) -> bool:
    """Whether :func:`inspect` would find Go's runtime, told by the head of the file alone.

    It reads the tables of segments and sections, and ``.go.buildinfo``.

    Raises:
        PretakeError: it is damaged.
    """
    if other_file(source) is not None:
        return False
    with Elf(path, source) as elf:
        return build_info(elf) is not None
