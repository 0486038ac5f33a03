"""Go's own tables in a binary, read from bytes that were laid out by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tracer.arch import X86_64
from tracer.errors import PretakeError
from tracer.targets.buildinfo import go_version
from tracer.targets.elf import Elf
from tracer.targets.pclntab import Function, Pclntab

TEXT = 0x401000
TABLE = 0x500000


class File:
    """As much of an open ELF file as the tables' readers ask for."""

    path = Path("server")
    arch = X86_64

    def __init__(
        self,
        sections: dict[str, tuple[int, bytes]],
        symbols: dict[str, int] | None = None,
        code: bytes = b"",
        relocations: dict[int, int] | None = None,
    ) -> None:
        self._sections = sections
        self._symbols = symbols or {}
        self._code = code
        self._relocations = relocations or {}

    def section(self, *names: str) -> tuple[int, bytes] | None:
        return next((self._sections[n] for n in names if n in self._sections), None)

    def symbol(self, name: str) -> int | None:
        return self._symbols.get(name)

    def relocated(self, address: int) -> int | None:
        return self._relocations.get(address)

    def read(self, address: int, size: int) -> bytes:
        return self._code[address - TEXT : address - TEXT + size]


def elf(*arguments: Any, **keywords: Any) -> Elf:  # noqa: ANN401
    return cast(Elf, File(*arguments, **keywords))


def buildinfo(version: str, flags: int = 2) -> bytes:
    text = version.encode()
    return b"\xff Go buildinf:" + bytes([8, flags]) + b"\0" * 16 + bytes([len(text)]) + text


@pytest.mark.parametrize(
    ("written", "version"),
    [
        ("go1.27.3", "go1.27.3"),
        ("go1.22.1 X:nocoverageredesign", "go1.22.1"),
        ("devel go1.28-abcdef Mon Jan 1", "go1.28-abcdef"),
    ],
)
def test_the_version_stands_in_buildinfo(written: str, version: str) -> None:
    assert go_version(elf({".go.buildinfo": (0, buildinfo(written))})) == version


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff Go buildinf:", buildinfo("go1.17", flags=0), b"something else altogether" * 4],
)
def test_no_version_where_there_is_none(data: bytes) -> None:
    assert go_version(elf({".go.buildinfo": (0, data)})) is None
    assert go_version(elf({})) is None


def pclntab(
    functions: list[tuple[str, int]], end: int, text: int = TEXT, unsafe: bytes = b""
) -> bytes:
    """A table of functions (name, offset from text), the last of which ends at ``end``.

    ``unsafe`` is the table of unsafe points that all of them have.
    """
    names = b""
    name_at = {}
    for name, _ in functions:
        if name not in name_at:
            name_at[name] = len(names)
            names += name.encode() + b"\0"
    header_size = 8 + 8 * 8
    functab_size = 8 * len(functions) + 4
    values_at = header_size + len(names)
    functions_at = values_at + 1 + len(unsafe)
    entries, funcs = b"", b""
    for name, offset in functions:
        entries += struct.pack("<II", offset, functab_size + len(funcs))
        # ... npcdata at 28, pcdata[0] behind the struct's 44 bytes.
        tables = 1 if unsafe else 0
        funcs += struct.pack("<Ii", offset, name_at[name]) + b"\0" * 20
        funcs += struct.pack("<I", tables) + b"\0" * 12 + struct.pack("<I", tables) * tables
    entries += struct.pack("<I", end)
    header = struct.pack("<IBBBB", 0xFFFFFFF1, 0, 0, 1, 8) + struct.pack(
        "<8Q",
        len(functions),
        0,
        text,
        header_size,
        values_at,
        values_at,
        values_at,
        functions_at,
    )
    # Offset 0 of the values stands for "no table".
    return header + names + b"\0" + unsafe + entries + funcs


def test_functions_begin_and_end() -> None:
    data = pclntab(
        [("main.main", 0), ("runtime.retake", 0x40), ("runtime.retake.func1", 0x60)], 100
    )
    table = Pclntab(elf({".gopclntab": (TABLE, data)}))
    assert table.function("main.main") == Function("main.main", TEXT, TEXT + 0x40)
    assert table.function("runtime.retake") == Function("runtime.retake", TEXT + 0x40, TEXT + 0x60)
    closure = Function("runtime.retake.func1", TEXT + 0x60, TEXT + 100)
    assert table.starting_with("runtime.retake.") == [closure]
    assert table.function("runtime.reta") is None
    assert table.function("runtime.handoffp") is None


def test_where_code_begins_is_found_in_any_linkage() -> None:
    functions = [("main.main", 0)]
    absent = pclntab(functions, 16, text=0)
    # A symbol says it; else the table itself; else the relocation of that field; else the
    # module's data (Go 1.26), or its relocation; else the section.
    module = (0x600000, b"\0" * 176 + struct.pack("<Q", 0x777000) + b"\0" * 8)
    empty_module = (0x600000, b"\0" * 192)
    cases = [
        (elf({".gopclntab": (TABLE, absent)}, symbols={"runtime.text": 0x111000}), 0x111000),
        (elf({".gopclntab": (TABLE, pclntab(functions, 16, text=0x222000))}), 0x222000),
        (elf({".gopclntab": (TABLE, absent)}, relocations={TABLE + 24: 0x333000}), 0x333000),
        (elf({".gopclntab": (TABLE, absent), ".go.module": module}), 0x777000),
        (
            elf(
                {".gopclntab": (TABLE, absent), ".go.module": empty_module},
                relocations={0x600000 + 176: 0x444000},
            ),
            0x444000,
        ),
        (elf({".gopclntab": (TABLE, absent), ".text": (0x555000, b"")}), 0x555000),
    ]
    assert [Pclntab(file).text for file, _ in cases] == [text for _, text in cases]


def test_a_table_that_a_c_linker_merged_is_found() -> None:
    data = b"\x01" * 24 + pclntab([("main.main", 0)], 16)
    table = Pclntab(elf({".data.rel.ro": (TABLE, data)}))
    assert table.function("main.main") == Function("main.main", TEXT, TEXT + 16)


def test_calls_and_wrappers() -> None:
    # 0x00: the wrapper of asyncPreempt2 calls the function itself, at 0x20, twice.
    def call(at: int, to: int) -> bytes:
        return b"\xe8" + struct.pack("<i", to - (at + 5))

    code = bytearray(b"\x90" * 0x40)
    code[4:9] = call(4, 0x20)
    code[0x10:0x15] = call(0x10, 0x20)
    code[0x18:0x1D] = call(0x18, 0x30)
    data = pclntab([("runtime.asyncPreempt2", 0), ("runtime.asyncPreempt2", 0x20)], 0x40)
    table = Pclntab(elf({".gopclntab": (TABLE, data)}, code=bytes(code)))
    wrapper, itself = table.functions("runtime.asyncPreempt2")
    assert table.calls(wrapper, itself) == [TEXT + 4, TEXT + 0x10]
    assert table.calls(itself, wrapper) == []
    assert table.function("runtime.asyncPreempt2") == itself


def test_addresses_have_names() -> None:
    data = pclntab([("main.main", 0), ("runtime.retake", 0x40)], 100)
    table = Pclntab(elf({".gopclntab": (TABLE, data)}))
    addresses = np.array([TEXT - 1, TEXT, TEXT + 0x3F, TEXT + 0x40, TEXT + 99, TEXT + 100])
    main, retake = "main.main", "runtime.retake"
    assert table.names_at(addresses) == [None, main, main, retake, retake, None]


def test_unsafe_points() -> None:
    # From -1 (safe): by 0 for 0x10 bytes, by -1 to -2 (unsafe) for 0x20, by +1 for 0x200 (two
    # bytes of number), by -2 to -3 (restart) for 0x10; then the end.
    unsafe = bytes([0, 0x10, 1, 0x20, 2, 0x80, 0x04, 3, 0x10, 0])
    data = pclntab([("main.main", 0), ("main.next", 0x240)], 0x480, unsafe=unsafe)
    table = Pclntab(elf({".gopclntab": (TABLE, data)}))
    asked = (0, 0xF, 0x10, 0x2F, 0x30, 0x22F, 0x230, 0x23F)
    told = [False, False, True, True, False, False, False, False]
    assert [table.unsafe_point(TEXT + at) for at in asked] == told
    assert [table.unsafe_point(TEXT + 0x240 + at) for at in asked] == told
    assert table.unsafe_point(TEXT - 1) is None
    assert table.unsafe_point(TEXT + 0x480) is None


def test_no_unsafe_points_are_told_without_their_table() -> None:
    table = Pclntab(elf({".gopclntab": (TABLE, pclntab([("main.main", 0)], 0x40))}))
    assert table.unsafe_point(TEXT) is None


@pytest.mark.parametrize("length", [0, 7, 40, 80, 100])
def test_a_table_that_is_cut_short_is_told(length: int) -> None:
    data = pclntab([("main.main", 0), ("runtime.retake", 0x40)], 100)[:length]
    with pytest.raises(PretakeError):
        Pclntab(elf({".gopclntab": (TABLE, data)}))


def test_a_table_of_another_format_is_told() -> None:
    data = b"\xfb\xff\xff\xff" + pclntab([("main.main", 0)], 16)[4:]
    with pytest.raises(PretakeError, match="unknown format"):
        Pclntab(elf({".gopclntab": (TABLE, data)}))
