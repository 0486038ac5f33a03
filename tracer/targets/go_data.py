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
    loaded = [elf.arch.loads(table.code(function), function.begin) for function in functions]
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
    if function is None:
        return None
    found = elf.arch.copied_to(table.code(function), p_syscalltick)
    return found.pop() if len(found) == 1 else None


def _agreed(told: list[set[int]], fewest: int) -> int | None:
    if len(told) < fewest:
        return None
    common = set.intersection(*told)
    return common.pop() if len(common) == 1 else None


def _arguments(elf: Elf, table: Pclntab, caller: Function, callee: Function) -> set[int]:
    """Addresses of variables that a function calls another one with."""
    code = table.code(caller)
    told = (elf.arch.argument(code, caller.begin, call) for call in table.calls(caller, callee))
    return {address for address in told if address is not None}
