"""How to read a Go program: its version, its functions, and where it keeps P, M and G.

Go 1.19 to 1.27, linked in any way (static, PIE, cgo), stripped or not:

- the version is in ``.go.buildinfo``, and the functions are in ``.gopclntab``; no strip removes
  them;
- offsets of fields come from the binary's own DWARF. If there is none, they come from
  ``go_offsets.json``, which ``tools/go_offsets.py`` makes from real toolchains; where that has no
  row for the version, from the nearest rows (``go_offsets.py``). Reading DWARF
  takes longer than everything else together. So a program that has just begun is looked at twice:
  first without DWARF, if the table has its version, and then with it (``deep``);
- ``runtime.sched`` and ``runtime.allp`` are data symbols, which a stripped binary does not have.
  There the addresses are found in the code that uses them (``go_data.py``).

What could not be found is listed in :attr:`GoBinary.missing`. Everything that does not depend on
it is captured all the same.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tracer.arch import HEAD_BYTES
from tracer.targets.binary import RuntimeBinary
from tracer.targets.buildinfo import BuildInfo, build_info
from tracer.targets.dwarf import struct_offsets
from tracer.targets.elf import Elf
from tracer.targets.go_data import all_ps_address, scheduler_address, syscalltick_offset
from tracer.targets.go_offsets import (
    ASSUMED,
    Choice,
    offsets_of_build,
    required,
    shipped_offsets,
    version_of,
)
from tracer.targets.layout import MAX_CALLERS, MODELS, CallerRange, Probe, RuntimeLayout
from tracer.targets.pclntab import Function, Pclntab
from tracer.trace.unknown import UNKNOWN, Missing

__all__ = [
    "GO_FIELDS",
    "GO_STRUCTS",
    "GoBinary",
    "inspect",
    "look",
    "measure_offsets",
]

GO_STRUCTS = ("runtime.g", "runtime.m", "runtime.p", "runtime.schedt")
"""The structs of Go's ``runtime/runtime2.go`` that are read."""

GO_FIELDS: dict[str, tuple[str, ...]] = {
    # RuntimeLayout's field: struct, and the member's names, newest first.
    "g_m": ("runtime.g", "m"),
    "g_goid": ("runtime.g", "goid"),
    "g_status": ("runtime.g", "atomicstatus"),
    "m_id": ("runtime.m", "id"),
    "m_procid": ("runtime.m", "procid"),
    "m_curg": ("runtime.m", "curg"),
    "m_p": ("runtime.m", "p"),
    "m_oldp": ("runtime.m", "oldp"),
    "m_nextp": ("runtime.m", "nextp"),
    "m_syscalltick": ("runtime.m", "syscalltick"),
    "p_id": ("runtime.p", "id"),
    "p_status": ("runtime.p", "status"),
    "p_m": ("runtime.p", "m"),
    "p_syscalltick": ("runtime.p", "syscalltick"),
    "p_runqhead": ("runtime.p", "runqhead"),
    "p_runqtail": ("runtime.p", "runqtail"),
    "p_runnext": ("runtime.p", "runnext"),
    "p_timer": ("runtime.p", "timers.minWhenHeap", "timer0When"),
    "p_timer_modified": ("runtime.p", "timers.minWhenModified", "timerModifiedEarliest"),
    "sched_lock": ("runtime.schedt", "lock"),
    "sched_npidle": ("runtime.schedt", "npidle"),
    "sched_nmspinning": ("runtime.schedt", "nmspinning"),
    "sched_runqsize": ("runtime.schedt", "runq.size", "runqsize"),
    "sched_gcwaiting": ("runtime.schedt", "gcwaiting"),
}
"""What is read of which struct."""

_PROBES = (
    # Function, BPF handler. All of them cold: a P changes hands, a goroutine is preempted, the
    # world stops.
    ("runtime.handoffp", "go_handoffp"),
    ("runtime.preemptone", "go_preemptone"),
    ("runtime.asyncPreempt2", "go_async_preempt2"),
    ("runtime.stopTheWorldWithSema", "go_stop_the_world"),
    ("runtime.startTheWorldWithSema", "go_start_the_world"),
)
_PROBES_EITHER = (
    # One of these, as the version has it: to Go 1.25, from 1.26.
    (("runtime.exitsyscall0", "runtime.exitsyscallNoP"), "go_exitsyscall_slow"),
)
_PROBES_IF_THERE = (
    # Functions of some versions only; the others have nothing to probe in their place.
    ("runtime.exitsyscallTryGetP", "go_exitsyscall_try"),
)
_PROBES_ON_CALLS = (
    # Functions that are called from elsewhere too: probed where this one calls them.
    ("runtime.handoffp", "runtime.startm", "go_startm"),
    ("runtime.handoffp", "runtime.pidleput", "go_pidleput"),
    # preemptone sends by preemptM, which is inlined in both; its requests are told at its begin.
    ("runtime.suspendG", "runtime.signalM", "go_suspend"),
    # Where the world stops, and before it takes the Ps of those in system calls.
    ("runtime.stopTheWorldWithSema", "runtime.preemptall", "go_stw_takes"),
)

_CALLERS = {
    # Functions that call a probed one, and what that tells.
    "runtime.retake": "retake",
    "runtime.entersyscallblock": "entersyscallblock",
    "runtime.entersyscallblock_handoff": "entersyscallblock",
    "runtime.stoplockedm": "stoplockedm",
    "runtime.mexit": "mexit",
    "runtime.preemptall": "stw",
    "runtime.stopTheWorldWithSema": "stw",
    "runtime.forEachPInternal": "gc",
    "runtime.forEachP": "gc",
    "runtime.(*gcControllerState).enlistWorker": "gc",
    "runtime.freezetheworld": "panic",
}
_CLOSURES_TOO = ("runtime.entersyscallblock",)

_G_VARIABLES = ("runtime.tlsg", "runtime.tls_g")
"""The thread-local variable with g: on x86-64, on arm64."""
_G_BYTES = 8
_OF_CGO = "crosscall2"
"""A function of every program with C in it, and of no other."""
_DO_NOT_STRIP = "build it without -s and -w in -ldflags, and do not strip it"
_MEASURE_IT = f"{_DO_NOT_STRIP}; or measure its Go by python -m tools.go_offsets"
_DO_NOT_GARBLE = "build it without garble"
_ALWAYS_THERE = "runtime.main"
"""A function that every Go program has under this name, unless it was obfuscated."""
_LAST_WITH_PSYSCALL = 25
_END_OF_USER_MEMORY = 1 << 47
_LARGEST_TLS = 1 << 24
_LARGEST_STRUCT = 1 << 16
_ALIGNMENT = 4


@dataclass(frozen=True, kw_only=True)
class GoBinary(RuntimeBinary):
    """A Go program, as far as it can be read.

    Args:
        position_independent: whether only the running process knows where it is loaded.
        is_library: whether it is one that another program loads (``-buildmode=c-shared``,
            ``plugin``).
        g_tls_slot: of a library: link-time address of the 8 bytes in which a process that has
            loaded it finds g's offset from the thread pointer; ``UNKNOWN`` for none.
        has_symbols: whether there is a symbol table.
        offsets_from: ``dwarf``; or the version of the shipped table's row; or ``assumed from``
            that of another version, or of two; None where nothing tells them.
    """

    position_independent: bool
    is_library: bool
    g_tls_slot: int
    has_symbols: bool
    offsets_from: str | None

    @property
    def assumed(self) -> bool:
        """Whether its offsets are another version's, which a running process has to confirm."""
        return self.offsets_from is not None and self.offsets_from.startswith(ASSUMED)


def inspect(path: Path) -> GoBinary | None:
    """Look at a binary with everything it tells.

    Args:
        path: the file; of a running process ``/proc/PID/exe``.

    Returns:
        What there is to know, or None where it is no Go program of Go 1.18 or later.

    Raises:
        PretakeError: no such file, no ELF file, or one that is damaged.
    """
    with Elf(path) as elf:
        return look(elf, deep=True)


def look(elf: Elf, *, deep: bool) -> GoBinary | None:
    """The same of an open file.

    Args:
        elf: open.
        deep: read DWARF also where the shipped table has the version's row. It is always read
            where the table has not, or where the build differs from its version (GOEXPERIMENT).

    Raises:
        Exception: of any kind; an open :class:`~tracer.targets.elf.Elf` makes one PretakeError
            of it.
    """
    info = build_info(elf)
    if info is None:
        return None
    missing: list[Missing] = []
    table = Pclntab(elf)
    named = table.function(_ALWAYS_THERE) is not None
    if not named:
        missing.append(
            Missing(
                "functions of the runtime",
                f"{elf.path} has none by the names that Go gives them, so they were obfuscated"
                " (garble does that)",
                _DO_NOT_GARBLE,
            )
        )
    model = _model(table, info.version)
    offsets, offsets_from = _offsets(elf, info, table, model, deep, missing)
    sched, allp = _data(elf, table, offsets.get("sched_lock"), missing)
    if model is None:
        why = f"whether {elf.path} has Go's model of 1.25 or of 1.26 cannot be told"
        missing.append(Missing("block and p", why))
        offsets = {name: at for name, at in offsets.items() if name not in ("m_p", "m_oldp")}
    layout = RuntimeLayout(
        first_code=elf.first_code,
        sched=UNKNOWN if sched is None else sched,
        allp=UNKNOWN if allp is None else allp,
        model=model or MODELS[-1],
        g_tls=UNKNOWN if elf.is_library else _g_tls(elf, table, missing),
        callers=_callers(table),
    )
    slot = _g_tls_slot(elf, missing) if elf.is_library else UNKNOWN
    addresses = [layout.first_code, layout.sched, layout.allp, slot]
    addresses += [at for caller in layout.callers for at in (caller.begin, caller.end)]
    if any(not UNKNOWN <= address < _END_OF_USER_MEMORY for address in addresses):
        raise ValueError("an address that no program has")
    return GoBinary(
        path=elf.path,
        runtime="go",
        version=info.version,
        arch=elf.arch.name,
        build_id=elf.build_id,
        position_independent=elf.position_independent,
        is_library=elf.is_library,
        g_tls_slot=slot,
        has_symbols=elf.has_symbols,
        offsets_from=offsets_from,
        layout=layout.with_offsets(offsets),
        probes=_probes(elf, table, missing) if named else (),
        missing=tuple(missing),
    )


def _data(
    elf: Elf, table: Pclntab, lock_offset: int | None, missing: list[Missing]
) -> tuple[int | None, int | None]:
    """The addresses of ``runtime.sched`` and ``runtime.allp``."""
    sched, allp = elf.symbol("runtime.sched"), elf.symbol("runtime.allp")
    if sched is None and lock_offset is not None:
        sched = scheduler_address(elf, table, lock_offset)
    if allp is None:
        allp = all_ps_address(elf, table)
    for address, what in (
        (sched, "npidle, nmspinning and global_runq"),
        (allp, "retakes by stop-the-world"),
    ):
        if address is not None:
            continue
        if table.function(_ALWAYS_THERE) is None:
            missing.append(Missing(what, f"{elf.path} was obfuscated", _DO_NOT_GARBLE))
        else:
            why = f"{elf.path} is stripped of data symbols, and its code does not tell"
            missing.append(Missing(what, why, _DO_NOT_STRIP))
    return sched, allp


def _model(table: Pclntab, version: str) -> str | None:
    """How a P in a system call looks, told by the function that its loss leads to.

    Go 1.26 left ``_Psyscall`` behind, and in the same change exitsyscall0 became
    exitsyscallNoP: so this asks for what the binary does, and for its version only where the
    names are gone. None where neither tells.
    """
    if table.function("runtime.exitsyscall0"):
        return "psyscall"
    if table.function("runtime.exitsyscallNoP"):
        return "prunning"
    found = version_of(version)
    if found is None or found[0].is_snapshot:
        return None
    return "psyscall" if found[0].minor <= _LAST_WITH_PSYSCALL else "prunning"


def _g_tls_slot(elf: Elf, missing: list[Missing]) -> int:
    """Where a library, once it is loaded, has the offset of g from the thread pointer.

    Its variables of a thread are where the loader found room, which the file does not tell. The
    code that uses ``runtime.tlsg`` takes the offset from a slot that the loader fills.
    """
    slots = elf.tls_slots()
    if len(slots) == 1:
        return slots[0]
    why = f"{elf.path} is a Go library with {len(slots)} variables of a thread"
    missing.append(Missing("block, p and goid", why))
    return UNKNOWN


def _g_tls(elf: Elf, table: Pclntab, missing: list[Missing]) -> int:
    """Offset of g from the thread pointer (the variable ``runtime.tlsg``).

    0 where g is in a register alone (:attr:`~tracer.arch.Architecture.g_without_tls`). A program
    with C in it has g in that variable, too, for when C calls Go.
    """
    tls = elf.tls
    if tls is None:
        return elf.arch.g_without_tls
    size, alignment = tls
    variable = next((at for at in map(elf.symbol, _G_VARIABLES) if at is not None), None)
    if variable is None:
        # Alone in its segment, there is only one place for it.
        variable = 0 if size == _G_BYTES else None
    in_register = elf.arch.g_without_tls == 0
    if variable is None and in_register:
        if table.function(_OF_CGO) is not None:
            why = f"{elf.path} is stripped, and C has thread-locals in it"
            missing.append(Missing("block, p and goid of calls that C makes", why, _DO_NOT_STRIP))
        return elf.arch.g_without_tls
    if variable is None:
        missing.append(
            Missing(
                "block, p and goid",
                f"{elf.path} is stripped, and C has thread-locals in it",
                _DO_NOT_STRIP,
            )
        )
        return UNKNOWN
    if not 0 <= variable < size < _LARGEST_TLS or alignment > _LARGEST_TLS:
        raise ValueError(f"thread-local variables of {size} bytes, aligned to {alignment}")
    return elf.arch.tls_offset(variable, tls)


def _callers(table: Pclntab) -> tuple[CallerRange, ...]:
    found = []
    for name, caller in _CALLERS.items():
        functions = table.functions(name)
        if name in _CLOSURES_TOO:
            functions += table.starting_with(name + ".")
        found += [CallerRange(f.begin, f.end, caller) for f in functions]
    if len(found) > MAX_CALLERS:
        raise ValueError(f"{len(found)} functions that call probed ones")
    return tuple(found)


def _probes(elf: Elf, table: Pclntab, missing: list[Missing]) -> tuple[Probe, ...]:
    found: list[Probe] = []

    def probe(symbol: str, address: int, handler: str) -> None:
        ahead = elf.arch.emulated_offset(elf.read(address, HEAD_BYTES))
        offset = elf.file_offset(address + (ahead or 0))
        found.append(Probe(elf.path, symbol, offset, handler, ahead is not None))

    def lacks(name: str) -> None:
        missing.append(Missing(f"probe {name}", f"no such function in {elf.path}"))

    for name, handler in _PROBES:
        function = table.function(name)
        if function is None:
            lacks(name)
        else:
            probe(name, function.begin, handler)
    for names, handler in _PROBES_EITHER:
        functions = [f for f in map(table.function, names) if f is not None]
        if not functions:
            lacks(" or ".join(names))
        for function in functions:
            probe(function.name, function.begin, handler)
    for name, handler in _PROBES_IF_THERE:
        function = table.function(name)
        if function is not None:
            probe(name, function.begin, handler)
    for caller_name, callee_name, handler in _PROBES_ON_CALLS:
        calls = _calls(table, table.function(caller_name), table.function(callee_name))
        if not calls:
            lacks(f"{callee_name} in {caller_name}")
        for address in calls:
            probe(f"{caller_name}: {callee_name}", address, handler)
    return tuple(found)


def _calls(table: Pclntab, caller: Function | None, callee: Function | None) -> list[int]:
    return table.calls(caller, callee) if caller and callee else []


def _offsets(
    elf: Elf,
    info: BuildInfo,
    table: Pclntab,
    model: str | None,
    deep: bool,
    missing: list[Missing],
) -> tuple[Mapping[str, int], str | None]:
    """Offsets for :class:`RuntimeLayout`, and where they are from."""
    choice = offsets_of_build(info, shipped_offsets(elf.arch.goarch))
    if choice.exact and not deep:
        return choice.offsets, choice.told
    measured = _measured(elf, missing)
    if len(measured) == len(GO_FIELDS):
        if choice.exact and measured != choice.offsets:
            name = next(name for name in GO_FIELDS if measured[name] != choice.offsets[name])
            why = (
                f"{name} is {measured[name]} by its debug information, which is used, and"
                f" {choice.offsets[name]} in {info.version}"
            )
            missing.append(Missing("offsets as in its version of Go", why))
        return measured, "dwarf"
    if choice.exact:
        return choice.offsets, choice.told
    return _assumed(elf, info, table, model, choice, missing)


def _assumed(
    elf: Elf,
    info: BuildInfo,
    table: Pclntab,
    model: str | None,
    choice: Choice,
    missing: list[Missing],
) -> tuple[Mapping[str, int], str | None]:
    """The offsets of a version that has no row, or of a build that is not quite its version."""
    what = "block, and p, m and goid of runtime"
    version, rows = info.version, " and ".join(choice.rows)
    if not choice.rows:
        why = f"no debug information, and no row for {version} or near it in the shipped table"
        missing.append(Missing(what, why, _MEASURE_IT))
        return {}, None
    offsets = dict(choice.offsets)
    p_tick = shipped_offsets(elf.arch.goarch)[choice.rows[0]].get("p_syscalltick", UNKNOWN)
    tick = syscalltick_offset(elf, table, p_tick)
    if tick is not None:
        offsets |= {"p_syscalltick": p_tick, "m_syscalltick": tick}
    lacking = [name for name in required(model) if name not in offsets]
    if lacking:
        why = (
            f"no debug information, no row for {version} in the shipped table, and its nearest,"
            f" {rows}, do not tell {', '.join(lacking)} alike"
        )
        missing.append(Missing(what, why[:300], _MEASURE_IT))
        return {}, None
    unknown = [name for name in (*choice.differ, *choice.unconfirmed) if name not in offsets]
    if unknown:
        why = f"they are not in the same places in {rows}, the rows nearest to {version}"
        if choice.unconfirmed:
            why = f"{version} is later than the shipped table, and no check would confirm that"
        missing.append(Missing(f"what {', '.join(unknown)} tell", why, _MEASURE_IT))
    return offsets, choice.told


def _measured(elf: Elf, missing: list[Missing]) -> dict[str, int]:
    """The offsets by DWARF; none where it is damaged, which a program does not notice itself."""
    try:
        found = measure_offsets(elf)
        for name, offset in found.items():
            if not 0 <= offset < _LARGEST_STRUCT or offset % _ALIGNMENT:
                raise ValueError(f"{name} at {offset}")
    except (ValueError, LookupError, struct.error, zlib.error, MemoryError) as error:
        how = "too large" if isinstance(error, MemoryError) else "damaged"
        why = f"that of {elf.path} is {how} ({type(error).__name__}: {error})"
        missing.append(Missing("debug information", why[:300], "build or install it again"))
        return {}
    return found


def measure_offsets(elf: Elf) -> dict[str, int]:
    """The offsets that a binary's own DWARF gives, by field of :class:`RuntimeLayout`.

    Args:
        elf: an open Go binary.

    Returns:
        Fewer than :data:`GO_FIELDS`, or none, where DWARF is not there.

    Raises:
        ValueError, LookupError, struct.error, zlib.error: the DWARF makes no sense.
    """
    wanted: dict[str, set[str]] = {owner: set() for owner in GO_STRUCTS}
    for owner, *members in GO_FIELDS.values():
        wanted[owner].update(members)
    structs = struct_offsets(elf, wanted, inline=True)
    found = {}
    for name, (owner, *members) in GO_FIELDS.items():
        for member in members:
            if member in structs.get(owner, {}):
                found[name] = structs[owner][member]
                break
    return found
