"""Says what a file is in which no runtime can be read, and what the user can do.

Example: of a program built with ``GOARCH=386`` it is "a 32-bit x86 program", and the mend is to
build it for amd64 or arm64; that it is no Go program would be false.
"""

from __future__ import annotations

import struct

from tracer.arch import ARCHITECTURES, of_elf
from tracer.targets.binary import NoRuntime
from tracer.targets.buildinfo import is_before_inline_strings
from tracer.targets.elf import Elf
from tracer.targets.program_file import Bytes

__all__ = ["other_file", "other_program"]

_HEAD = 20
_ELF = b"\x7fELF"
_MACHINES = {
    # e_machine of elf(5): its name, and Go's GOARCH where Go has one.
    2: ("SPARC", ""),
    3: ("x86", "386"),
    8: ("MIPS", "mips"),
    20: ("PowerPC", ""),
    21: ("64-bit PowerPC", "ppc64"),
    22: ("s390x", "s390x"),
    40: ("ARM", "arm"),
    62: ("x86", "amd64"),
    183: ("arm64", "arm64"),
    243: ("RISC-V", "riscv64"),
    258: ("LoongArch", "loong64"),
}
_READ = " and ".join(arch.title for arch in ARCHITECTURES)
_FOR_GO = "build it with " + " or ".join(f"GOARCH={arch.goarch}" for arch in ARCHITECTURES)
_UPX = b"UPX!"
_LOADERS = (*(name for arch in ARCHITECTURES for name in arch.loaders), "ld.so")
_ANOTHER_LANGUAGE = NoRuntime(
    "neither a Go program (1.19 or later) nor the reference runtime",
    "give the program itself where this one only starts it",
)


def other_file(source: Bytes) -> NoRuntime | None:
    """What a file is that is no program of an architecture of :mod:`tracer.arch`.

    None where it is one, at least by its begin.
    """
    if source.size == 0:
        return NoRuntime("an empty file", "copy or build the program again")
    head = source.read(0, min(_HEAD, source.size))
    if head.startswith(b"#!"):
        return NoRuntime("a script", "give the program that it starts")
    if not head.startswith(_ELF):
        return NoRuntime("no ELF file", "give a program or a library for Linux")
    if len(head) < _HEAD:
        return NoRuntime("an ELF file that is cut short", "copy or build the program again")
    bits = {1: 32, 2: 64}.get(head[4])
    order = {1: "<", 2: ">"}.get(head[5])
    if bits is None or order is None:
        return NoRuntime("a damaged ELF file", "copy or build the program again")
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    name, go = _MACHINES.get(machine, (f"unknown (e_machine {machine})", ""))
    if bits == 64 and order == "<" and of_elf(machine) is not None:
        return None
    if go == "amd64":
        name, go = "x32" if bits == 32 else "x86 of another byte order", ""
    elif of_elf(machine) is not None:
        name, go = f"{name}, {bits}-bit or of another byte order", ""
    width = f"{bits}-bit " if name in ("x86", "MIPS", "ARM") else ""
    built = f" (GOARCH={go})" if go else ""
    return NoRuntime(f"a program for {width}{name}{built}; {_READ} can be read", _FOR_GO)


def other_program(elf: Elf, source: Bytes) -> NoRuntime:
    """What a program is that has no runtime to read."""
    if not elf.has_sections:
        if _is_packed(source):
            return NoRuntime("a packed program (UPX)", "unpack it with upx -d, or do not pack it")
        return NoRuntime(
            "a program without a table of sections, as packers leave it",
            "give the program as it was before it was packed",
        )
    if is_before_inline_strings(elf):
        return NoRuntime("a Go program of Go 1.17 or earlier", "build it with Go 1.19 or later")
    if elf.has_section(".gopclntab") or elf.has_section(".go.buildinfo"):
        return NoRuntime(
            "a Go program that does not tell its version, as garble makes them",
            "build it without garble",
        )
    if any(name.startswith("libgo.so") for name in elf.needed) or elf.has_section(".go_export"):
        return NoRuntime("a Go program built by gccgo", "build it with the go command's compiler")
    if elf.symbol("__go_init_main") is not None or elf.symbol("runtime_mstart") is not None:
        return NoRuntime("a Go program built by gccgo", "build it with the go command's compiler")
    if _is_loader(elf):
        return NoRuntime(
            "the dynamic loader, which runs another program in its place",
            "start the program itself, not through the loader",
        )
    return _ANOTHER_LANGUAGE


def _is_packed(source: Bytes) -> bool:
    """UPX puts its mark behind the first headers, and before the end of the file."""
    ends = (source.read(0, min(4096, source.size)), _tail(source))
    return any(_UPX in data for data in ends)


def _tail(source: Bytes) -> bytes:
    size = min(4096, source.size)
    return source.read(source.size - size, size)


def _is_loader(elf: Elf) -> bool:
    soname = elf.soname or ""
    return soname.startswith(_LOADERS)
