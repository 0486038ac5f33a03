"""The BPF programs, fitted to the running kernel.

For example, on Linux 6.1 the offset of ``task_struct.thread.fsbase`` is put into the instructions
that read it, and a call of ``bpf_preempt_disable``, which 6.1 has not, becomes ``r0 = 0``.

The programs come from the byte code that the wheel brought (:mod:`tracer.kernel.shipped`). Where
there is none, or it was made of other sources than those here, bcc compiles them, and what it made
is kept in a cache. :data:`FORCE` in the environment asks for one of the two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.apart import apart
from tracer.kernel.bcc_loader import INSTALL, find_headers, load_bcc
from tracer.kernel.btf import Btf, kernel_btf
from tracer.kernel.compiler import (
    FOLLOW_PROCESS,
    TAIL_CALLS,
    TELL_CALLS,
    TRACEPOINTS,
    compile_programs,
    compile_return_flag,
    compile_upcall,
    compiler_version,
    sources_digest,
)
from tracer.kernel.constants import CONSTANTS, RETURN_FLAG, filled, kernel_constants
from tracer.kernel.kept import keep, kept
from tracer.kernel.object import INSTRUCTION, TASK_STORAGE, Fitted, MapShape, Object
from tracer.kernel.return_flag import find_return_flag
from tracer.kernel.shipped import Shipped, variants

__all__ = [
    "FORCE",
    "Source",
    "fitted_programs",
    "return_flag",
    "source",
    "upcall_programs",
]

FORCE: Final = "PRETAKE_BYTE_CODE"
"""The variable that is ``shipped`` or ``compiled`` where one of the two is wanted, for tests."""

_REINSTALL: Final = "install pretake again from its wheel"
_UPROBE_LINK: Final = "bpf_uprobe_multi_link"
_KERNEL_NOTES: Final = Path("/sys/kernel/notes")  # the running kernel's build id

_NO_PREALLOC: Final = 1  # BPF_F_NO_PREALLOC
_KERNEL_FUNCTIONS: Final = {
    0x7F000001: "bpf_preempt_disable",
    0x7F000002: "bpf_preempt_enable",
    0x7F000003: "bpf_task_from_pid",
    0x7F000004: "bpf_task_release",
    0x7F000005: "bpf_send_signal_task",
}
"""By the number that ``uprobes.bpf.c`` and ``upcall.bpf.c`` call."""
_CALL, _MOVE_IMMEDIATE = 0x85, 0xB7
_PSEUDO_KERNEL_CALL: Final = 2


class _Programs(Protocol):
    def programs(self, defines: Mapping[str, int]) -> Object: ...

    def return_flag(self) -> Object: ...


class _Compiled:
    """The programs as bcc compiles them, now or before."""

    def programs(self, defines: Mapping[str, int]) -> Object:
        found = _compiled_before(defines)
        if found is None:
            found = compile_programs(defines)
            keep(found.to_json(), *_key(defines))
        return found

    def return_flag(self) -> Object:
        return compile_return_flag()


def _key(defines: Mapping[str, int]) -> list[str]:
    return [sources_digest(), *(f"{name}={value}" for name, value in sorted(defines.items()))]


def _compiled_before(defines: Mapping[str, int]) -> Object | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return Object.from_json(kept(*_key(defines)))
    return None


@dataclass(frozen=True)
class Source:
    """Where the programs come from.

    Args:
        programs: what gives them.
        shipped: whether no compiler is needed.
        told: which it is and why, for people.
    """

    programs: _Programs
    shipped: bool
    told: str


def source(defines: Mapping[str, int] | None = None) -> Source:
    """Where the programs come from here.

    Args:
        defines: what is to be compiled in; those that no capture asks for are not shipped.

    Raises:
        PretakeError: from nowhere: there is neither byte code of these sources nor a compiler.
    """
    asked = _asked()
    shipped = _shipped(defines)
    if isinstance(shipped, Shipped):
        because = f", as {FORCE} asks" if asked else ""
        told = f"the byte code of this installation, made by {shipped.made_by}{because}"
        return Source(shipped, True, told)
    if asked == "shipped":
        raise PretakeError(shipped, _REINSTALL)
    _require_compiler(shipped)
    return Source(_Compiled(), False, f"compiled here by {compiler_version()}: {shipped}")


def _asked() -> str:
    asked = os.environ.get(FORCE, "")
    if asked not in ("", "shipped", "compiled"):
        raise PretakeError(f"{FORCE} is {asked!r}", "say shipped or compiled, or leave it out")
    return asked


def _shipped(defines: Mapping[str, int] | None) -> Shipped | str:
    """The byte code that came with this installation, or why it is not used."""
    if _asked() == "compiled":
        return f"{FORCE} asks for it"
    if defines is not None and dict(defines) not in variants():
        return "this mode is not shipped"
    try:
        return Shipped()
    except PretakeError as error:
        return error.problem


def _programs(defines: Mapping[str, int]) -> Object:
    """The programs of a mode. This process loads no compiler, whatever is compiled."""
    if not isinstance(_shipped(defines), Shipped) and _asked() != "shipped":
        found = _compiled_before(defines)
        return found or apart(lambda: source(defines).programs.programs(defines))
    return source(defines).programs.programs(defines)


def _require_compiler(why: str) -> None:
    try:
        load_bcc()
    except PretakeError as error:
        raise PretakeError(f"{why}, and {error.problem}", f"{_REINSTALL}, or {INSTALL}") from error
    if find_headers() is None:
        raise PretakeError(
            f"{why}, and there are no kernel headers, without which bcc compiles nothing",
            f"{_REINSTALL}, or {INSTALL}",
        )


def fitted_programs(defines: Mapping[str, int]) -> Fitted:
    """All programs for this kernel.

    Args:
        defines: what was asked of the capture: names of
            :data:`~tracer.kernel.constants.CONSTANTS`, and what else is compiled in, as ``LIVE``.

    Raises:
        PretakeError: there are none for these sources, or the kernel lacks something.
    """
    exact = bool(defines.get("DETAIL_FULL") or defines.get("CALLS_EXACT"))
    return _fitted(kernel_btf(), None if exact else _known_flag(), defines)


def _known_flag() -> int | None:
    """The running kernel's flag, tried now or before."""
    notes = ""
    with contextlib.suppress(OSError):
        notes = _KERNEL_NOTES.read_bytes().hex()
    with contextlib.suppress(ValueError):
        return int(kept(RETURN_FLAG, notes)) if notes else return_flag()
    flag = return_flag()
    if flag is not None:
        keep(str(flag), RETURN_FLAG, notes)
    return flag


def return_flag() -> int | None:
    """The flag that :mod:`tracer.kernel.return_flag` is about; None where it cannot be found."""
    btf = kernel_btf()
    values = kernel_constants(btf)
    if -1 in (values["OFFSET_TASK_THREAD_FLAGS"], values["OFFSET_TASK_STATE"]):
        return None
    trial = _with_constants(apart(lambda: source().programs.return_flag()), values)
    with contextlib.suppress(bpf.LoadError, OSError):
        return find_return_flag(trial)
    return None


def _fitted(btf: Btf, return_flag: int | None, defines: Mapping[str, int]) -> Fitted:
    values = kernel_constants(btf)
    if return_flag is not None:
        values[RETURN_FLAG] = return_flag
    values |= {name: value for name, value in defines.items() if name in CONSTANTS}
    compiled_in = {name: value for name, value in defines.items() if name not in CONSTANTS}
    # How system calls are seen: by what was asked for, or by what this kernel shows.
    if values.get("DETAIL_FULL") or return_flag is None:
        compiled_in["CALLS_EXACT"] = 1
    # Since Linux 6.2 task storage can be looked up by who interrupts a look-up of it.
    if not btf.has_name("bpf_task_storage_get_recur"):
        compiled_in["STORAGE_REFUSES"] = 1
    made = _programs(compiled_in)
    made = _with_constants(made, values)
    functions = {name: _calling(code, btf) for name, code in made.functions.items()}
    # A hash that takes memory as it grows: from a program that holds a run queue's lock only since
    # 7c8199e24fa0 ("bpf: Introduce any context BPF specific memory allocator").
    maps = made.maps if btf.has_struct("bpf_mem_alloc") else tuple(map(_whole, made.maps))
    return Fitted(maps, functions, _btf_ids(btf), btf.has_struct(_UPROBE_LINK))


def upcall_programs(btf: Btf) -> Object:
    """The program of :mod:`tracer.kernel.upcall` for this kernel, compiled now or before.

    Raises:
        PretakeError: there is no compiler; no wheel brings this one.
    """
    key = (sources_digest(), "upcall")
    try:
        made = Object.from_json(kept(*key))
    except (ValueError, KeyError, TypeError):
        _require_compiler("no wheel brings the program of policy upcall")
        made = compile_upcall()
        keep(made.to_json(), *key)
    made = _with_constants(made, kernel_constants(btf))
    functions = {name: _calling(code, btf) for name, code in made.functions.items()}
    return dataclasses.replace(made, functions=functions)


def _with_constants(made: Object, values: Mapping[str, int]) -> Object:
    functions = {
        name: filled(np.frombuffer(code, INSTRUCTION), values).tobytes()
        for name, code in made.functions.items()
    }
    return dataclasses.replace(made, functions=functions)


def _whole(shape: MapShape) -> MapShape:
    """A map with all its memory from the start; a task's storage is never like that."""
    if shape.kind == TASK_STORAGE:
        return shape
    return dataclasses.replace(shape, flags=shape.flags & ~_NO_PREALLOC)


def _btf_ids(btf: Btf) -> dict[str, int]:
    places = {function: f"btf_trace_{name}" for name, function in TRACEPOINTS.items()}
    for name, behind in TAIL_CALLS.values():
        places |= dict.fromkeys(behind, f"btf_trace_{name}")
    places |= dict.fromkeys((FOLLOW_PROCESS, TELL_CALLS), "bpf_iter_task")
    found = {}
    for function, place in places.items():
        with contextlib.suppress(KeyError):
            found[function] = btf.attach_id(place)
    return found


def _calling(raw: bytes, btf: Btf) -> bytes:
    """Put the kernel's functions in the place of their numbers; ``r0 = 0`` where it has none."""
    code = np.frombuffer(raw, INSTRUCTION).copy()
    for number, name in _KERNEL_FUNCTIONS.items():
        calls = (code["op"] == _CALL) & (code["imm"] == number)
        code["op"][calls], code["imm"][calls] = _MOVE_IMMEDIATE, 0
        with contextlib.suppress(KeyError):
            code["imm"][calls] = btf.attach_id(name)
            code["op"][calls], code["regs"][calls] = _CALL, _PSEUDO_KERNEL_CALL << 4
    return code.tobytes()
