"""Finds two variables of Go's runtime, and one field, in a binary without symbols.

A stripped binary has lost the names of its variables, but not the code that uses them, and the
functions still have names (``.gopclntab``). Example: ``runtime.stopm`` begins with
``lock(&sched.lock)``, so one of its first instructions has the address of ``runtime.sched``. The
slice of all Ps is found in functions that walk over it. An address is used only if several
functions agree on exactly one; otherwise it is unknown.

``m.syscalltick``, which moves with nearly every series, is where ``runtime.reentersyscall`` puts
what it has read of ``p.syscalltick``, by two instructions in a row.
"""

from __future__ import annotations

import struct

from tracer.targets.elf import Elf
from tracer.targets.pclntab import Function, Pclntab

__all__ = ["all_ps_address", "scheduler_address", "syscalltick_offset"]

_LOCK_THE_SCHEDULER = (
    "runtime.stopm",
    "runtime.gcstopm",
    "runtime.goschedImpl",
    "runtime.injectglist",
    "runtime.mcommoninit",
)
_FEWEST = 3
_WALK_OVER_ALL_PS = ("runtime.stopTheWorldWithSema", "runtime.preemptall")

_COPIES_THE_TICK = "runtime.reentersyscall"
_TICK_LOAD_SIZE, _TICK_STORE_SIZE = 3, 6

_LEA_AX = b"\x48\x8d\x05"
"""LEAQ distance(IP), AX: Go's first argument is in AX."""
_LEA_SIZE = 7
_LOAD_SIZE = 7
_WORD = 8


def scheduler_address(elf: Elf, table: Pclntab, lock_offset: int) -> int | None:
    """The link-time address of ``runtime.sched``.

    Args:
        elf: an open Go binary.
        table: its functions.
        lock_offset: of the field ``lock`` in ``runtime.schedt``.

    Returns:
        None where the code does not tell it beyond doubt.
    """
    lock = table.function("runtime.lock2")
    callers = [f for f in map(table.function, _LOCK_THE_SCHEDULER) if f is not None]
    if lock is None:
        return None
    locked = [_arguments(elf, table, caller, lock) for caller in callers]
    agreed = _agreed([addresses for addresses in locked if addresses], _FEWEST)
    return None if agreed is None else agreed - lock_offset


def all_ps_address(elf: Elf, table: Pclntab) -> int | None:
    """The link-time address of ``runtime.allp``, a slice: its array, and behind that its length.

    Args:
        elf: an open Go binary.
        table: its functions.

    Returns:
        None where the code does not tell it beyond doubt.
    """
    functions = [f for f in map(table.function, _WALK_OVER_ALL_PS) if f is not None]
    loaded = [_loads(elf, function) for function in functions]
    slices = [{at for at in addresses if at + _WORD in addresses} for addresses in loaded]
    return _agreed(slices, len(_WALK_OVER_ALL_PS))


def syscalltick_offset(elf: Elf, table: Pclntab, p_syscalltick: int) -> int | None:
    """The offset of ``syscalltick`` in ``runtime.m``.

    Args:
        elf: an open Go binary.
        table: its functions.
        p_syscalltick: the offset of ``syscalltick`` in ``runtime.p``.

    Returns:
        None where the code does not tell it beyond doubt.
    """
    function = table.function(_COPIES_THE_TICK)
    if function is None or not 0 <= p_syscalltick < 1 << 7:
        return None
    code = elf.read(function.begin, function.end - function.begin)
    found = set()
    for at in range(len(code) - _TICK_LOAD_SIZE - _TICK_STORE_SIZE + 1):
        load, stored = code[at : at + _TICK_LOAD_SIZE], code[at + _TICK_LOAD_SIZE :]
        # MOVL disp8(P), REGISTER; MOVL REGISTER, disp32(M): mod 01 and 10, without SIB or REX.
        if load[0] != 0x8B or load[1] >> 6 != 1 or load[1] & 7 == 4 or load[2] != p_syscalltick:
            continue
        same_register = (stored[1] ^ load[1]) & 0x38 == 0
        if stored[0] == 0x89 and stored[1] >> 6 == 2 and stored[1] & 7 != 4 and same_register:
            found.add(int(struct.unpack_from("<i", stored, 2)[0]))
    return found.pop() if len(found) == 1 else None


def _agreed(told: list[set[int]], fewest: int) -> int | None:
    if len(told) < fewest:
        return None
    common = set.intersection(*told)
    return common.pop() if len(common) == 1 else None


def _arguments(elf: Elf, table: Pclntab, caller: Function, callee: Function) -> set[int]:
    """Addresses of variables that a function calls another one with."""
    found = set()
    for call in table.calls(caller, callee):
        code = elf.read(call - _LEA_SIZE, _LEA_SIZE)
        if code.startswith(_LEA_AX):
            (distance,) = struct.unpack_from("<i", code, len(_LEA_AX))
            found.add(call + distance)
    return found


def _loads(elf: Elf, function: Function) -> set[int]:
    """Addresses that instructions ``MOVQ distance(IP), REGISTER`` of a function load from."""
    code = elf.read(function.begin, function.end - function.begin)
    found = set()
    for at in range(len(code) - _LOAD_SIZE + 1):
        # REX.W with or without R; MOV r64, r/m64; mod 00 and r/m 101 are relative to IP.
        if code[at] in (0x48, 0x4C) and code[at + 1] == 0x8B and code[at + 2] & 0xC7 == 0x05:
            (distance,) = struct.unpack_from("<i", code, at + 3)
            found.add(function.begin + at + _LOAD_SIZE + distance)
    return found
