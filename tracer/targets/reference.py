"""How to read the reference runtime: a library that mypyc compiled, with ``-g``.

Its classes M, P, G and Sched are C structs whose offsets stand in DWARF. At each transition it
calls one of two functions (``reference_runtime/transitions.py``), which are symbols of the library
and get the probes. It keeps no M in thread-local storage: the first transition of a thread has its
M. All objects are reached from the M, so it does not matter where the library is loaded, nor which
Python loads it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

from tracer.targets.binary import RuntimeBinary
from tracer.targets.dwarf import struct_offsets
from tracer.targets.elf import Elf
from tracer.targets.layout import Probe, RuntimeLayout
from tracer.trace.unknown import Missing

__all__ = ["LIBRARY", "find", "inspect", "look"]

LIBRARY = "reference_runtime__mypyc"
"""The module that mypyc puts all compiled modules in."""

_FIELDS: dict[str, tuple[str, str]] = {
    "g_goid": ("GObject", "_goid"),
    "g_status": ("GObject", "_status"),
    "m_id": ("MObject", "_id"),
    "m_procid": ("MObject", "_tid"),
    "m_curg": ("MObject", "_curg"),
    "m_p": ("MObject", "_p"),
    "m_sched": ("MObject", "_sched"),
    "p_id": ("PObject", "_id"),
    "p_status": ("PObject", "_status"),
    "p_m": ("PObject", "_m"),
    "p_syscalltick": ("PObject", "_syscalltick"),
    "p_runqhead": ("PObject", "_runqhead"),
    "p_runqtail": ("PObject", "_runqtail"),
    "sched_npidle": ("SchedObject", "_npidle"),
    "sched_nmspinning": ("SchedObject", "_nmspinning"),
    "sched_runqsize": ("SchedObject", "_runqsize"),
    "sched_gcwaiting": ("SchedObject", "_gcwaiting"),
    "sched_allp": ("SchedObject", "_allp"),
}
_STRUCT = "reference_runtime___gmp___{}"
_PROBES = {
    "CPyDef_transitions___mstart": "reference_mstart",
    "CPyDef_transitions___transition": "reference_transition",
}
_INT_SIZE = 8


def find() -> Path | None:
    """The compiled library that this Python would load; None where it is not compiled."""
    spec = importlib.util.find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin)


def inspect(path: Path) -> RuntimeBinary | None:
    """Look at a library.

    Args:
        path: the ELF file, see :func:`find`.

    Returns:
        What there is to know, or None where it is not the reference runtime.

    Raises:
        PretakeError: no such file, no ELF file, or one that is damaged.
    """
    with Elf(path) as elf:
        return look(elf)


def look(elf: Elf) -> RuntimeBinary | None:
    """The same of an open file.

    Raises:
        Exception: of any kind; an open :class:`~tracer.targets.elf.Elf` makes one PretakeError
            of it.
    """
    functions = {name: elf.symbol(name) for name in _PROBES}
    if None in functions.values():
        return None
    wanted: dict[str, set[str]] = {}
    for struct, member in _FIELDS.values():
        wanted.setdefault(_STRUCT.format(struct), set()).add(member)
    structs = struct_offsets(elf, wanted, inline=False)
    offsets = {
        name: structs[_STRUCT.format(struct)][member]
        for name, (struct, member) in _FIELDS.items()
        if member in structs.get(_STRUCT.format(struct), {})
    }
    missing = [
        Missing(name, f"{elf.path} has no debug information of it", "compile it with -g")
        for name in _FIELDS
        if name not in offsets
    ]
    return RuntimeBinary(
        path=elf.path,
        runtime="reference",
        version="compiled",
        arch=elf.arch.name,
        build_id=elf.build_id,
        layout=RuntimeLayout(int_size=_INT_SIZE).with_offsets(offsets),
        probes=tuple(
            Probe(elf.path, name, elf.file_offset(address), _PROBES[name])
            for name, address in functions.items()
            if address is not None
        ),
        missing=tuple(missing),
    )
