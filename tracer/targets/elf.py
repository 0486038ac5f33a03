"""An ELF file as a prober needs it: where its code lies, what its symbols and types say.

pyelftools reads headers, notes and DWARF; the symbol table is read as one numpy array, since a
server's has a hundred thousand entries and only a few are wanted.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from tracer.errors import PretakeError

__all__ = ["Elf", "is_elf"]

_SYMBOL = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("section", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)
_DAMAGE = (
    ELFError,
    DWARFError,
    ConstructError,
    struct.error,
    ArithmeticError,
    LookupError,
    ValueError,
    OSError,
)
"""What reading ends in where a file's numbers make no sense."""
_EXECUTE = 1
_X86_64 = "EM_X86_64"
_STRUCT_TAGS = ("DW_TAG_structure_type", "DW_TAG_typedef")


_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, the smallest byte first
_MACHINE = (62).to_bytes(2, "little")  # EM_X86_64, at offset 18


def is_elf(path: Path) -> bool:
    """Whether a file is an x86-64 ELF file at all (scripts are none).

    Raises:
        PretakeError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(20)
            return header.startswith(_MAGIC) and header.endswith(_MACHINE)
    except OSError as error:
        raise PretakeError(
            f"cannot read {path}: {error.strerror}", "name a program that you may read"
        ) from error


class Elf:
    """One ELF file, open while it is asked.

    Use it as a context manager.

    Args:
        path: the file; for a running process ``/proc/PID/exe`` does, in any container.

    Raises:
        PretakeError: it cannot be read, or is no ELF file of this machine's kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise PretakeError(
                f"cannot read {path}: {error.strerror}", "name a program that you may read"
            ) from error
        try:
            self._elf = ELFFile(self._file)
            if self._elf["e_machine"] != _X86_64 or self._elf.elfclass != 64:
                raise PretakeError(f"{path} is no x86-64 program", "pretake knows x86-64 only")
            self._refuse_if_cut()
        except PretakeError:
            self._file.close()
            raise
        except _DAMAGE as error:
            self._file.close()
            raise PretakeError(
                f"{path} is no whole ELF file ({error})", "name the program itself, and all of it"
            ) from error

    def _refuse_if_cut(self) -> None:
        """A section that ends beyond the file would be read as what little there is of it."""
        size = os.fstat(self._file.fileno()).st_size
        for section in self._elf.iter_sections():
            if section["sh_type"] != "SHT_NOBITS":
                end = section["sh_offset"] + section["sh_size"]
                if end > size:
                    raise ELFError(f"{section.name} ends at {end:#x}, the file at {size:#x}")

    def __enter__(self) -> Elf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if isinstance(error, _DAMAGE):
            raise PretakeError(
                f"{self.path} is damaged ({error})", "build or install the program again"
            ) from error

    @property
    def position_independent(self) -> bool:
        """Whether it is loaded at an address that only the running process knows."""
        return bool(self._elf["e_type"] == "ET_DYN")

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build id in hexadecimal; None where the linker wrote none."""
        section: Any = self._elf.get_section_by_name(".note.gnu.build-id")
        if section is None or section["sh_type"] != "SHT_NOTE":
            return None
        for note in section.iter_notes():
            if note["n_type"] == "NT_GNU_BUILD_ID":
                return str(note["n_desc"])
        return None

    @cached_property
    def _loads(self) -> list[tuple[int, int, int, bool]]:
        """Loaded segments: address, file offset, bytes in the file, executable."""
        return [
            (s["p_vaddr"], s["p_offset"], s["p_filesz"], bool(s["p_flags"] & _EXECUTE))
            for s in self._elf.iter_segments("PT_LOAD")
        ]

    @property
    def first_code(self) -> int:
        """Link-time address of the first executable segment (the kernel's start_code)."""
        return min(address for address, _, _, executable in self._loads if executable)

    def file_offset(self, address: int) -> int:
        """Where the byte at a link-time address lies in the file; ValueError if it does not."""
        for begin, offset, size, _ in self._loads:
            if begin <= address < begin + size:
                return address - begin + offset
        raise ValueError(f"no loaded byte at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a link-time address, as the file has them (not relocated)."""
        self._file.seek(self.file_offset(address))
        return self._file.read(size)

    def section(self, *names: str) -> tuple[int, bytes] | None:
        """Address and bytes of the first of these sections that there is."""
        for name in names:
            section = self._elf.get_section_by_name(name)
            if section is not None and section["sh_type"] != "SHT_NOBITS":
                return section["sh_addr"], section.data()
        return None

    @property
    def tls(self) -> tuple[int, int] | None:
        """Size and alignment of the thread-local segment; None where there is none."""
        for segment in self._elf.iter_segments("PT_TLS"):
            return segment["p_memsz"], segment["p_align"]
        return None

    @cached_property
    def _symtab(self) -> tuple[np.ndarray, bytes]:
        symbols, strings = self.section(".symtab"), self.section(".strtab")
        if symbols is None or strings is None:
            return np.empty(0, _SYMBOL), b""
        usable = len(symbols[1]) // _SYMBOL.itemsize * _SYMBOL.itemsize
        return np.frombuffer(symbols[1][:usable], _SYMBOL), strings[1]

    @property
    def has_symbols(self) -> bool:
        """Whether it has a symbol table (``strip`` and ``-ldflags=-s`` take it away)."""
        return bool(len(self._symtab[0]))

    def symbol(self, name: str) -> int | None:
        """The value (address, or offset in thread-local memory) of a symbol; None if none."""
        symbols, strings = self._symtab
        at = strings.find(b"\0" + name.encode() + b"\0")
        if at < 0:
            return None
        found = np.flatnonzero((symbols["name"] == at + 1) & (symbols["section"] != 0))
        return int(symbols["value"][found[0]]) if len(found) else None

    def relocated(self, address: int) -> int | None:
        """The pointer that a position-independent file gets at an address when it is loaded."""
        dtype = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
        for name in (".rela.dyn", ".rela"):
            section = self.section(name)
            if section is None:
                continue
            rows = np.frombuffer(section[1], dtype)
            found = rows["addend"][rows["offset"] == address]
            if len(found):
                return int(found[0])
        return None

    def struct_offsets(
        self, wanted: Iterable[str], unit: str | None = None
    ) -> dict[str, dict[str, int]]:
        """Offsets of the members of structs, from DWARF.

        Args:
            wanted: names of structs, or of typedefs of such, as DWARF has them (``runtime.g``).
            unit: only compilation units of this name, where they have one.

        Returns:
            For each struct found, member to offset in bytes; a member that is itself one of
            the wanted structs, or an anonymous one, also gives ``member.inner``. Empty without
            DWARF.
        """
        if not self._elf.has_dwarf_info():
            return {}
        names = set(wanted)
        try:
            dwarf: Any = self._elf.get_dwarf_info()
            if dwarf.debug_info_sec is None:
                return {}
            found = _inline_named_structs(dwarf, names)
            if len(found) < len(names):
                found |= _walked_structs(dwarf, names - set(found), unit)
        except (DWARFError, ELFError, KeyError, UnicodeDecodeError) as error:
            raise PretakeError(f"cannot read the DWARF of {self.path} ({error!r})") from error
        return found


def _inline_named_structs(dwarf: Any, names: set[str]) -> dict[str, dict[str, int]]:  # noqa: ANN401
    """Structs whose name stands in their entry itself, as Go writes them.

    The bytes of the name are searched for, and only the entries they stand in are parsed: to
    walk to them through a Go program takes half a second, and the program is running.
    """
    found = {}
    whole = dwarf.debug_info_sec.stream.getvalue()
    for name in names:
        text = name.encode() + b"\0"
        at = whole.find(text)
        while at > 0 and name not in found:
            # The entry begins with the number of its abbreviation, one byte where it is small.
            # Elsewhere the name is part of something else, of which anything may be made.
            with contextlib.suppress(Exception):
                die = dwarf.get_DIE_from_refaddr(at - 1)
                if die.tag == "DW_TAG_structure_type" and _name(die) == name:
                    members = _members(die)
                    if members:
                        found[name] = members
            at = whole.find(text, at + 1)
    return found


def _walked_structs(
    dwarf: Any,  # noqa: ANN401
    names: set[str],
    unit: str | None,
) -> dict[str, dict[str, int]]:
    """Structs, and typedefs of structs, found by going through all that is outermost."""
    found: dict[str, dict[str, int]] = {}
    for cu in dwarf.iter_CUs():
        top = cu.get_top_DIE()
        if unit is not None and _name(top) != unit:
            continue
        for die in top.iter_children():
            if _name(die) in names - set(found):
                members = _members(_untyped(die))
                if members:
                    found[_name(die)] = members
                if len(found) == len(names):
                    return found
    return found


def _name(die: Any) -> str:  # noqa: ANN401 (pyelftools has no types)
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode() if attribute else ""


def _untyped(die: Any) -> Any:  # noqa: ANN401
    """What a typedef, or a typedef of it, stands for."""
    while die.tag == "DW_TAG_typedef" and "DW_AT_type" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_type")
    return die


def _members(die: Any, depth: int = 1) -> dict[str, int]:  # noqa: ANN401
    """Members of a struct with their offsets, and those of structs inside it."""
    members = {}
    for child in die.iter_children():
        if child.tag != "DW_TAG_member" or "DW_AT_data_member_location" not in child.attributes:
            continue
        name, offset = _name(child), child.attributes["DW_AT_data_member_location"].value
        if not isinstance(offset, int):
            continue
        members[name] = offset
        if depth and "DW_AT_type" in child.attributes:
            inner = _untyped(child.get_DIE_from_attribute("DW_AT_type"))
            if inner.tag == "DW_TAG_structure_type":
                for inner_name, inner_offset in _members(inner, depth - 1).items():
                    members[f"{name}.{inner_name}"] = offset + inner_offset
    return members
