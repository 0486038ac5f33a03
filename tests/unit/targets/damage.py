"""Damaged Go programs: real ones, of which one table after the other is made nonsense of.

A random bit of a program is in its code, nine times of ten, and no reader sees it. So damage goes
where readers look: headers of the file, its segments and sections, the version, the build id,
symbols, relocations, thread-local storage, the function table with everything it points at, and
debug information, which is laid open first (a bit of a compressed section would only ever be an
error of zlib's).

Everything is decided by one random source. So a seed is a file, and a fuzzer that draws (such as
hypothesis) finds the least damage that fails.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Damaged", "Program", "damaged", "laid_open"]

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SECTION_FIELDS = {"name": (0, 4), "type": (4, 4), "flags": (8, 8), "addr": (16, 8)} | {
    "offset": (24, 8),
    "size": (32, 8),
    "link": (40, 4),
    "entsize": (56, 8),
}
_SEGMENT_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (32, 8), (40, 8), (48, 8))
_HEADER_FIELDS = (
    *((4, 1), (5, 1), (16, 2), (18, 2), (24, 8), (32, 8), (40, 8)),
    *((at, 2) for at in range(52, 64, 2)),
)
_TABLE_HEADER_FIELDS = ((0, 4), (6, 1), (7, 1), *((at, 8) for at in range(8, 72, 8)))
_COMPRESSED = 0x800
_STRUCTS = (b"runtime.g\0", b"runtime.m\0", b"runtime.p\0", b"runtime.schedt\0")
_NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 20, 1 << 24, 1 << 31, 1 << 32)
_GIANTS = (1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1)


@dataclass(frozen=True)
class Program:
    """A program laid open: its bytes, and where each section is (offset and size)."""

    data: bytes
    sections: dict[str, tuple[int, int]]
    section_headers: dict[str, int]
    segment_headers: tuple[int, int]


def laid_open(path: Path) -> Program:
    """A program with its debug information inflated, at the end of the file."""
    data = bytearray(path.read_bytes())
    phoff, shoff = struct.unpack_from("<QQ", data, 32)
    phnum, _, shnum, shstrndx = struct.unpack_from("<HHHH", data, 56)
    names_at = _SECTION.unpack_from(data, shoff + 64 * shstrndx)[4]
    sections, headers = {}, {}
    for i in range(shnum):
        at = shoff + 64 * i
        name, kind, flags, address, offset, size, *rest = _SECTION.unpack_from(data, at)
        end = data.index(b"\0", names_at + name)
        text = data[names_at + name : end].decode()
        if flags & _COMPRESSED:
            inflated = zlib.decompress(data[offset + 24 : offset + size])
            flags, offset, size = flags & ~_COMPRESSED, len(data), len(inflated)
            data += inflated
            _SECTION.pack_into(data, at, name, kind, flags, address, offset, size, *rest)
        if kind not in (0, 8):
            sections[text] = (offset, size)
        headers[text] = at
    return Program(bytes(data), sections, headers, (phoff, phnum))


@dataclass
class Damaged:
    """The bytes of a program with some of them replaced, as a reader asks for them.

    Args:
        program: what it was.
        size: of the file.
        patches: offset in the file: the bytes that stand there instead.
        told: what was done, in words.
    """

    program: Program
    size: int
    patches: dict[int, bytes] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes; ValueError where there are fewer."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"{size} bytes at {offset:#x}")
        found = self.program.data[offset : offset + size]
        for at, new in self.patches.items():
            if at < offset + size and at + len(new) > offset:
                changed = bytearray(found)
                begin = max(at - offset, 0)
                part = new[max(offset - at, 0) :][: size - begin]
                changed[begin : begin + len(part)] = part
                found = bytes(changed)
        return found

    def whole(self) -> bytes:
        """All of it."""
        return self.read(0, self.size)


def damaged(program: Program, draw: random.Random) -> Damaged:
    """A program with one to four things made nonsense of."""
    result = Damaged(program, len(program.data))
    for _ in range(draw.randint(1, 4)):
        draw.choice(_DAMAGES)(result, draw)
    return result


def _number(draw: random.Random, width: int, size: int) -> bytes:
    kind = draw.randint(0, 3)
    if kind == 0:
        value = draw.choice(_NUMBERS + _GIANTS)
    elif kind == 1:
        value = draw.randint(0, size)
    elif kind == 2:
        value = size + draw.randint(-64, 64)
    else:
        value = draw.getrandbits(8 * width)
    return (value % (1 << 8 * width)).to_bytes(width, "little")


def _patch(result: Damaged, at: int, new: bytes, told: str) -> None:
    if 0 <= at < len(result.program.data):
        result.patches[at] = new
        result.told.append(f"{told} at {at:#x}: {new.hex()}")


def _field(
    result: Damaged, draw: random.Random, base: int, fields: tuple[tuple[int, int], ...], told: str
) -> None:
    at, width = draw.choice(fields)
    _patch(result, base + at, _number(draw, width, result.size), f"{told}+{at}")


def _header(result: Damaged, draw: random.Random) -> None:
    _field(result, draw, 0, _HEADER_FIELDS, "header")


def _segment(result: Damaged, draw: random.Random) -> None:
    at, count = result.program.segment_headers
    _field(result, draw, at + 56 * draw.randint(0, count - 1), _SEGMENT_FIELDS, "segment")


def _section(result: Damaged, draw: random.Random) -> None:
    name = draw.choice(sorted(result.program.section_headers))
    at = result.program.section_headers[name]
    _field(result, draw, at, tuple(_SECTION_FIELDS.values()), f"section {name}")


def _compressed(result: Damaged, draw: random.Random) -> None:
    """A section that says it is compressed, and perhaps how large it will be."""
    name = draw.choice(sorted(result.program.sections))
    at, offset = result.program.section_headers[name], result.program.sections[name][0]
    _patch(result, at + 8, struct.pack("<Q", _COMPRESSED), f"compressed {name}")
    if draw.randint(0, 1):
        giant = int.from_bytes(_number(draw, 8, result.size), "little")
        bomb = zlib.compress(bytes(1 << draw.randint(4, 22)))
        _patch(result, offset, struct.pack("<IIQQ", 1, 0, giant, 1) + bomb, f"bomb in {name}")


def _swapped(result: Damaged, draw: random.Random) -> None:
    """One section's header stands in another's place."""
    one, other = (draw.choice(sorted(result.program.section_headers)) for _ in range(2))
    at = result.program.section_headers[one]
    header = result.program.data[at + 4 : at + 64]
    to = result.program.section_headers[other]
    _patch(result, to + 4, header, f"header of {one} for {other}")


def _cut(result: Damaged, draw: random.Random) -> None:
    result.size = draw.randint(0, result.size)
    result.told.append(f"cut at {result.size}")


def _bytes_of(*names: str) -> Callable[[Damaged, random.Random], None]:
    """Some bytes of a section, anywhere or at its begin."""

    def damage(result: Damaged, draw: random.Random) -> None:
        there = [name for name in names if name in result.program.sections]
        if not there:
            return
        name = draw.choice(there)
        offset, size = result.program.sections[name]
        if not size:
            return
        at = draw.randint(0, min(size, draw.choice((64, 1024, size))) - 1)
        width = draw.choice((1, 1, 2, 4, 8))
        _patch(result, offset + at, _number(draw, width, size), name)

    return damage


def _table_header(result: Damaged, draw: random.Random) -> None:
    found = _table(result.program)
    if found is not None:
        _field(result, draw, found[0], _TABLE_HEADER_FIELDS, "function table")


def _table_function(result: Damaged, draw: random.Random) -> None:
    """The record of a function, or the pair that leads to it, or what its record points at."""
    found = _table(result.program)
    if found is None:
        return
    base, _ = found
    count, _, _, _, _, _, values, functions = struct.unpack_from(
        "<8Q", result.program.data, base + 8
    )
    index = draw.randint(0, count - 1)
    pair = base + functions + 8 * index
    (record,) = struct.unpack_from("<I", result.program.data, pair + 4)
    record += base + functions
    kind = draw.randint(0, 3)
    if kind == 0:
        _patch(result, pair + draw.choice((0, 4)), _number(draw, 4, result.size), "pair")
    elif kind == 1:
        at = record + draw.randint(0, 15) * 4
        _patch(result, at, _number(draw, 4, result.size), "function")
    elif kind == 2:
        _patch(result, record + draw.randint(0, 60), _number(draw, 1, 256), "function's byte")
    else:
        field_at = draw.choice((20, 24))
        (values_at,) = struct.unpack_from("<I", result.program.data, record + field_at)
        at = base + values + values_at
        run = bytes([draw.choice((0, 1, 0x80, 0xFF))]) * draw.choice((1, 4, 16, 256))
        _patch(result, at + draw.randint(0, 8), run, "values")


def _table_name(result: Damaged, draw: random.Random) -> None:
    """A name of the runtime's that is looked for, changed or run into the next."""
    found = _table(result.program)
    name = draw.choice((b"\0runtime.handoffp\0", b"\0runtime.main\0", b"\0runtime.retake\0"))
    at = result.program.data.find(name, found[0]) if found else -1
    if at >= 0:
        where = draw.choice((0, 1, len(name) - 1))
        _patch(result, at + where, bytes([draw.choice((0, 65, 0xFF))]), "name")


def _code(result: Damaged, draw: random.Random) -> None:
    _bytes_of(".text")(result, draw)


def _struct(result: Damaged, draw: random.Random) -> None:
    """Debug information near a struct that is looked for."""
    offset, size = result.program.sections.get(".debug_info", (0, 0))
    if not size:
        return
    at = result.program.data.find(draw.choice(_STRUCTS), offset, offset + size)
    if at >= 0:
        at += draw.randint(-16, 512)
        width = draw.choice((1, 1, 1, 4))
        value = _number(draw, width, size)
        if width == 4 and draw.randint(0, 1):
            # A type that is the entry itself, or one near it.
            value = struct.pack("<i", at - offset + draw.randint(-8, 8))
        _patch(result, at, value, "struct")


def _table(program: Program) -> tuple[int, int] | None:
    for name in (".gopclntab", ".data.rel.ro.gopclntab"):
        if name in program.sections:
            return program.sections[name]
    return None


_DAMAGES: tuple[Callable[[Damaged, random.Random], None], ...] = (
    _header,
    _segment,
    _section,
    _section,
    _compressed,
    _swapped,
    _cut,
    _bytes_of(".go.buildinfo"),
    _bytes_of(".note.gnu.build-id", ".note.go.buildid"),
    _bytes_of(".symtab", ".strtab", ".shstrtab"),
    _bytes_of(".rela", ".rela.dyn", ".dynamic", ".dynstr", ".go.module"),
    _table_header,
    _table_function,
    _table_function,
    _table_name,
    _code,
    _bytes_of(".gopclntab", ".data.rel.ro.gopclntab"),
    _struct,
    _struct,
    _struct,
    _bytes_of(".debug_info"),
    _bytes_of(".debug_abbrev"),
    _bytes_of(".debug_str", ".debug_line_str", ".debug_str_offsets"),
)
