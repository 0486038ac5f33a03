"""Functions of a Go binary, from its ``.gopclntab``, which the runtime itself needs.

So any Go binary has its function addresses, stripped or not. The format is that of Go's
``runtime/symtab.go`` (``pcHeader``, ``functab``, ``_func``): one for Go 1.18 and 1.19, one from
1.20 on, which differ only in fields that are not read here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tracer.errors import PretakeError
from tracer.targets.buildinfo import uvarint
from tracer.targets.elf import Elf, text_at

__all__ = ["Function", "Pclntab"]

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MERGED = ".data.rel.ro"
"""Where a C linker puts the table of a position-independent program, to Go 1.25."""
_MAGICS = {0xFFFFFFF0, 0xFFFFFFF1}
_HEADER = b"[\xf0\xf1]\xff\xff\xff\0\0%s\x08"
"""Magic, two zeros, the bytes of the shortest instruction (1 on x86-64), and of a pointer (8)."""
_PCFILE, _PCLN, _NPCDATA, _UNIT = 20, 24, 28, 32
"""_func.pcfile, pcln, npcdata, cuOffset; entryOff, nameOff, args, deferreturn and pcsp stand
before them."""
_FUNC_SIZE = {0xFFFFFFF0: 40, 0xFFFFFFF1: 44}
"""Bytes of _func, behind which its PCDATA tables follow; Go 1.20 put startLine into it."""
_PCDATA_UNSAFE_POINT = 0
_UNSAFE = -2
"""UnsafePointUnsafe; the others are safe (-1) or restart a sequence of instructions."""
_LOCALS, _INLINED = 1, 3
"""FUNCDATA_LocalsPointerMaps, which assembly has not, and FUNCDATA_InlTree."""
_PCDATA_INLINED = 2
"""PCDATA_InlTreeIndex: the row of the tree that an instruction was inlined for."""
_INLINED_CALL = {0xFFFFFFF0: (20, 16), 0xFFFFFFF1: (16, 8)}
"""Bytes of the tree's rows (inlinedCall), and where parentPc stands in them."""
_DEEPEST = 64
_FLAG_ASSEMBLY = 4
"""FuncFlagAsm (Go's internal/abi/symtab.go), a bit of _func.flag, two bytes before the end."""
_ABSENT = 0xFFFFFFFF
_NEVER_PREEMPTED = ("runtime.", "runtime/internal/", "internal/runtime/", "reflect.")
"""Packages in which isAsyncSafePoint refuses whatever the tables say."""
_MODULE_TEXT = 176
"""moduledata.text (runtime/symtab.go): one pointer, five slices, ftab, findfunctab, minpc and
maxpc stand before it, from Go 1.18 to 1.27."""
_MOST_OF_A_NAME = 4
"""Functions that share a name: one, or two where an assembler wrapper has it too."""
_MOST_CLOSURES = 64
_LONGEST_NAME = 8192
"""Bytes of a function's or a file's name; generic ones are long."""
_LONGEST_TABLE = 1 << 17
"""Pairs in one table of a function."""


@dataclass(frozen=True)
class Function:
    """One function: its name and its code, from link-time address ``begin`` to before ``end``."""

    name: str
    begin: int
    end: int


class Pclntab:
    """The function table of an open Go binary.

    Args:
        elf: the binary; read while the functions are asked for.

    Raises:
        PretakeError: there is no such table, it is in a format not known here, or it is cut short.
        ValueError, LookupError, struct.error: from a method, where the table makes no sense; an
            open :class:`~tracer.targets.elf.Elf` makes one PretakeError of it.
    """

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._address, self._data = _find(elf)
        try:
            magic, _, _, self._quantum, pointer_size = struct.unpack_from("<IBBBB", self._data)
            if magic not in _MAGICS or pointer_size != 8 or self._quantum != elf.arch.quantum:
                raise PretakeError(
                    f"{elf.path}: a Go function table of unknown format ({magic:#x})",
                    "pretake knows those of Go 1.18 to 1.27",
                )
            header = struct.unpack_from("<8Q", self._data, 8)
            count, _, self._header_text, names, units, files, values, functions = header
            self._magic, self._units, self._files, self._values = magic, units, files, values
            self._names = self._data[names:units]
            table = np.frombuffer(self._data, "<u4", 2 * count + 1, functions)
            self._entries = table[0::2].astype(np.int64)
            self._funcs = table[1::2].astype(np.int64) + functions
            at = self._funcs + 4
            words = np.frombuffer(self._data, "u1")
            self._name_offsets = sum(words[at + i].astype(np.int64) << 8 * i for i in range(4))
        except (struct.error, ValueError, IndexError, OverflowError) as error:
            raise PretakeError(
                f"{elf.path}: its Go function table is cut short ({error})"
            ) from error
        self.text = self._find_text()

    def _find_text(self) -> int:
        """The address that function entries count from (``runtime.text``).

        A linker that Go calls for cgo puts C's start-up code before it, so the section's begin
        is right only where the table starts there; a position-independent file has it as a
        relocation; from 1.26 on it is in moduledata only.
        """
        symbol = self._elf.symbol("runtime.text")
        if symbol is not None:
            return symbol
        if self._header_text:
            return int(self._header_text)
        relocated = self._elf.relocated(self._address + 24)
        if relocated is not None:
            return relocated
        module = self._elf.section(".go.module")
        if module is not None:
            (text,) = struct.unpack_from("<Q", module[1], _MODULE_TEXT)
            text = text or self._elf.relocated(module[0] + _MODULE_TEXT)
            if text:
                return int(text)
        section = self._elf.section(".text")
        if section is None:
            raise PretakeError(f"{self._elf.path} has no code section")
        return section[0]

    def functions(self, name: str) -> list[Function]:
        """All functions of a name: usually one; two where an assembler wrapper has it too."""
        at = 0
        if not self._names.startswith(name.encode() + b"\0"):
            at = self._names.find(b"\0" + name.encode() + b"\0") + 1
            if at == 0:
                return []
        found = np.flatnonzero(self._name_offsets == at)[:_MOST_OF_A_NAME]
        return [self._function(name, int(i)) for i in found]

    def function(self, name: str) -> Function | None:
        """The function of a name itself, not its wrapper for assembler callers.

        Both have one name here; the wrapper is the one that calls the other.
        """
        found = self.functions(name)
        for function in found:
            if any(self.calls(other, function) for other in found if other != function):
                return function
        return found[0] if found else None

    def names_at(self, addresses: np.ndarray) -> list[str | None]:
        """The function that each address lies in, None outside of all Go code.

        Args:
            addresses: link-time addresses (take the load bias off first).
        """
        offsets = np.asarray(addresses, np.int64) - self.text
        at = np.searchsorted(self._entries, offsets, "right") - 1
        inside = (at >= 0) & (at < len(self._name_offsets))
        return [
            self._name(int(self._name_offsets[i])) if ok else None
            for i, ok in zip(at, inside, strict=True)
        ]

    def unsafe_point(self, address: int) -> bool | None:
        """Whether the compiler marked an instruction as one where no goroutine may be stopped.

        That is the value of the function's table PCDATA_UnsafePoint there (Go's
        ``internal/abi/symtab.go``). It is one of the reasons why the runtime refuses to preempt
        (``isAsyncSafePoint`` in ``runtime/preempt.go``); the runtime's own packages are never
        preempted, whatever their tables say.

        Args:
            address: link-time address of an instruction.

        Returns:
            None outside of all Go code, and for a function without that table.
        """
        found = self._record_at(address)
        if found is None:
            return None
        function, offset = found
        if self._number(function + _NPCDATA) <= _PCDATA_UNSAFE_POINT:
            return None
        first = function + _FUNC_SIZE[self._magic]
        values = self._number(first + 4 * _PCDATA_UNSAFE_POINT)
        if values == 0:
            return None
        value = self._value_at(self._values + values, offset)
        return None if value is None else value == _UNSAFE

    def safe_point(self, address: int) -> str:
        """What stands in the way of preempting a goroutine at an instruction.

        The part of Go's ``isAsyncSafePoint`` (``runtime/preempt.go``) that depends on nothing
        but the code.

        Args:
            address: link-time address of an instruction.

        Returns:
            A word of :data:`tracer.trace.words.SAFE_POINTS`.
        """
        found = self._record_at(address)
        if found is None:
            return "no_go"
        if self.unsafe_point(address):
            return "unsafe_point"
        function, _ = found
        size = _FUNC_SIZE[self._magic]
        flag = self._data[function + size - 3]
        if flag & _FLAG_ASSEMBLY or self._function_data(function, _LOCALS) is None:
            return "assembly"
        (name,) = self.names_at(np.array([address]))
        return "runtime" if (name or "").startswith(_NEVER_PREEMPTED) else "safe"

    def source_at(self, address: int) -> tuple[str, int] | None:
        """File and line of an instruction; of inlined code, where it was called from.

        That is the line in the function that the instruction lies in (:meth:`names_at`). In a
        stripped binary the calls that were inlined are out of reach, and it is the line in the
        inlined function.

        Args:
            address: link-time address of an instruction.

        Returns:
            None outside of all Go code, and where the function tells no line.
        """
        found = self._record_at(address)
        if found is None:
            return None
        function, offset = found
        offset = self._outlined(function, address - offset, offset)
        tables = (self._number(function + at) for at in (_PCFILE, _PCLN))
        file, line = (self._value_at(self._values + at, offset) if at else None for at in tables)
        if file is None or line is None or file < 0:
            return None
        unit = self._number(function + _UNIT)
        name = self._number(self._units + 4 * (unit + file))
        if name == _ABSENT:
            return None
        at = self._files + name
        return text_at(self._data, at, _LONGEST_NAME), line

    def _outlined(self, function: int, entry: int, offset: int) -> int:
        """Where the call stands that the instruction at an offset was inlined for, or itself."""
        tree = self._function_data(function, _INLINED)
        if self._function_tables is None or tree is None:
            return offset
        if self._number(function + _NPCDATA) <= _PCDATA_INLINED:
            return offset
        indices = self._number(function + _FUNC_SIZE[self._magic] + 4 * _PCDATA_INLINED)
        size, parent_at = _INLINED_CALL[self._magic]
        # An inlined call may stand in another one; the tree is not deeper than it is long.
        for _ in range(_DEEPEST if indices else 0):
            index = self._value_at(self._values + indices, offset)
            if index is None or index < 0:
                break
            call = self._elf.read(self._function_tables + tree + index * size, size)
            (parent,) = struct.unpack_from("<i", call, parent_at)
            if not 0 <= parent < 1 << 24 or self._record_at(entry + parent) is None:
                break
            offset = parent
        return offset

    @cached_property
    def _function_tables(self) -> int | None:
        """What FUNCDATA offsets count from (moduledata.gofunc)."""
        for name in ("go:func.*", "go.func.*"):
            address = self._elf.symbol(name)
            if address is not None:
                return address
        return None

    def _function_data(self, function: int, number: int) -> int | None:
        """The offset of one of a function's FUNCDATA tables."""
        size = _FUNC_SIZE[self._magic]
        if self._data[function + size - 1] <= number:
            return None
        at = function + size + 4 * (self._number(function + _NPCDATA) + number)
        found = self._number(at)
        return None if found == _ABSENT else found

    def _record_at(self, address: int) -> tuple[int, int] | None:
        """Where the _func of the function at an address lies, and the offset into its code."""
        offset = address - self.text
        index = int(np.searchsorted(self._entries, offset, "right")) - 1
        if not 0 <= index < len(self._name_offsets):
            return None
        return int(self._funcs[index]), offset - int(self._entries[index])

    def _number(self, at: int) -> int:
        (number,) = struct.unpack_from("<I", self._data, at)
        return int(number)

    def _value_at(self, at: int, wanted: int) -> int | None:
        """The value of one table at an offset into its function.

        The table is pairs of a change of value (zigzag) and for how much code it holds, in units
        of the shortest instruction.
        """
        value, end = -1, 0
        for _ in range(_LONGEST_TABLE):
            change, at = uvarint(self._data, at)
            if change == 0 and end > 0:
                return None
            value += (change >> 1) ^ -(change & 1)
            length, at = uvarint(self._data, at)
            end += length * self._quantum
            if wanted < end:
                return value
        raise ValueError("a table of a function without an end")

    def _name(self, offset: int) -> str:
        return text_at(self._names, offset, _LONGEST_NAME)

    def starting_with(self, prefix: str) -> list[Function]:
        """All functions whose name begins so, such as the closures of one (``NAME.func1``)."""
        wanted = b"\0" + prefix.encode()
        names: list[str] = []
        at = self._names.find(wanted)
        while at >= 0 and len(names) < _MOST_CLOSURES:
            end = self._names.index(b"\0", at + 1)
            names.append(self._names[at + 1 : end].decode("utf-8", "replace"))
            at = self._names.find(wanted, end)
        return [function for name in names for function in self.functions(name)]

    def _function(self, name: str, index: int) -> Function:
        return Function(
            name, self.text + int(self._entries[index]), self.text + int(self._entries[index + 1])
        )

    def calls(self, caller: Function, callee: Function) -> list[int]:
        """Addresses of the direct call instructions in ``caller`` that go to ``callee``."""
        return self._elf.arch.calls(self.code(caller), caller.begin, callee.begin)

    def code(self, function: Function) -> bytes:
        """The machine code of a function, as the file has it."""
        return self._elf.read(function.begin, function.end - function.begin)


def _find(elf: Elf) -> tuple[int, bytes]:
    """Address and bytes of the table."""
    section = elf.section(*_SECTIONS)
    if section is not None:
        return section
    merged = elf.section(_MERGED)
    if merged is not None:
        address, data = merged
        for header in re.finditer(_HEADER % re.escape(bytes([elf.arch.quantum])), data):
            if (address + header.start()) % 8 == 0:
                return address + header.start(), data[header.start() :]
    raise PretakeError(f"{elf.path} has no Go function table (.gopclntab)")
