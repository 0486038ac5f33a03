"""Where the members of structs lie, from DWARF (versions 2 to 5) that a stranger's file has.

This reads only the part of DWARF that offsets of members need: units, abbreviations, and the
entries of structs, members and typedefs. A general reader follows whatever the file points at, so
damaged tables can lead it in circles or through gigabytes. Here the number of entries that are
read and the length of a chain of typedefs are limited, and nothing is recursive.

Go writes the name of a struct into its entry itself. So Go's structs are found by a search for the
bytes of the name, and only the entries with the name are read, because a walk through all entries
of a Go program takes a second. Other compilers' structs are found by a walk through all outermost
entries.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from tracer.targets.elf import Elf, text_at

__all__ = ["struct_offsets"]

_STRUCT, _TYPEDEF, _MEMBER = 0x13, 0x16, 0x0D  # DW_TAG
_SIBLING, _NAME, _LOCATION, _TYPE, _STRINGS_BASE = 0x01, 0x03, 0x38, 0x49, 0x72  # DW_AT
_WANTED = frozenset((_SIBLING, _NAME, _LOCATION, _TYPE, _STRINGS_BASE))

_FIXED = {
    # DW_FORM: bytes.
    **dict.fromkeys((0x0B, 0x0C, 0x11, 0x25, 0x29), 1),
    **dict.fromkeys((0x05, 0x12, 0x26, 0x2A), 2),
    **dict.fromkeys((0x27, 0x2B), 3),
    **dict.fromkeys((0x06, 0x13, 0x1C, 0x28, 0x2C), 4),
    **dict.fromkeys((0x07, 0x14, 0x20, 0x24), 8),
    0x1E: 16,
    0x19: 0,
}
_OFFSETS = frozenset((0x0E, 0x17, 0x1D, 0x1F, 0x1F20, 0x1F21))
_VARIABLE = frozenset((0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02))
_BLOCKS = {0x0A: 1, 0x03: 2, 0x04: 4}
_VARIABLE_BLOCKS = frozenset((0x09, 0x18))
_ADDRESS, _REF_ADDRESS, _STRING, _INDIRECT, _IMPLICIT = 0x01, 0x10, 0x08, 0x16, 0x21
_STRP, _LINE_STRP = 0x0E, 0x1F
_STRX = frozenset((0x1A, 0x25, 0x26, 0x27, 0x28))
_UNIT_REFERENCES = frozenset((0x11, 0x12, 0x13, 0x14, 0x15))
_CONSTANTS = frozenset((0x05, 0x06, 0x07, 0x0B, 0x0D, 0x0F, 0x1E, _IMPLICIT))
_SIGNED = 0x0D

_MOST_ENTRIES = 150_000
_MOST_UNITS = 100_000
_MOST_ABBREVIATIONS = 300_000
_MOST_TRIES = 64
"""Places where the bytes of one struct's name stand: beside its own entry, few."""
_LONGEST_CHAIN = 32
_LONGEST_NAME = 1024

_Abbreviations = dict[int, tuple[int, bool, list[tuple[int, int, int]]]]


@dataclass(frozen=True)
class _Unit:
    begin: int
    end: int
    first: int
    version: int
    offset_size: int
    address_size: int
    abbreviations: int


@dataclass(frozen=True)
class _Entry:
    at: int
    end: int
    tag: int
    has_children: bool
    name: str
    location: int | None
    type_at: int | None
    sibling: int | None


def struct_offsets(
    elf: Elf, wanted: Mapping[str, Collection[str]], *, inline: bool
) -> dict[str, dict[str, int]]:
    """Offsets of members of structs.

    Args:
        elf: the open file.
        wanted: by the name of a struct, or of a typedef of one, as DWARF has it (``runtime.g``):
            its members. ``runq.size`` is the member ``size`` of the struct that is the member
            ``runq``.
        inline: the names stand in the entries themselves, as Go writes them.

    Returns:
        For each struct found, member to offset in bytes; without those that it has not.

    Raises:
        ValueError, LookupError, struct.error, zlib.error: the DWARF makes no sense, or is too
            much.
    """
    info = elf.debug_section(".debug_info")
    if not info:
        return {}
    reader = _Reader(elf, info)
    if not inline:
        return reader.walked(wanted)
    return {name: reader.named_inline(name, members) for name, members in wanted.items()}


class _Reader:
    def __init__(self, elf: Elf, info: bytes) -> None:
        self._info = info
        self._elf = elf
        self._abbreviation_bytes = elf.debug_section(".debug_abbrev")
        self._tables: dict[int, _Abbreviations] = {}
        self._abbreviations_read = 0
        self._entries_read = 0
        self._units = list(self._iter_units())
        self._begins = [unit.begin for unit in self._units]

    @cached_property
    def _strings(self) -> bytes:
        return self._elf.debug_section(".debug_str")

    @cached_property
    def _line_strings(self) -> bytes:
        return self._elf.debug_section(".debug_line_str")

    @cached_property
    def _string_offsets(self) -> bytes:
        return self._elf.debug_section(".debug_str_offsets")

    def named_inline(self, name: str, wanted: Collection[str]) -> dict[str, int]:
        """Members of the struct whose name stands in its entry itself, as Go writes it."""
        text = name.encode() + b"\0"
        at = self._info.find(text)
        for _ in range(_MOST_TRIES):
            if at < 0:
                break
            # The entry begins with the number of its abbreviation, one byte where it is small.
            # Elsewhere the name is part of something else, of which anything may be made.
            try:
                unit = self._unit_at(at - 1)
                entry = self._entry(unit, at - 1)
                if entry is not None and entry.tag == _STRUCT and entry.name == name:
                    members = self._members(unit, entry, wanted)
                    if members:
                        return members
            except (ValueError, LookupError, struct.error):
                pass
            at = self._info.find(text, at + 1)
        return {}

    def walked(self, wanted: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        """Structs, and typedefs of structs, found by going through all that is outermost."""
        found: dict[str, dict[str, int]] = {}
        for unit in self._units:
            top = self._entry(unit, unit.first)
            if top is None:
                continue
            for entry in self._children(unit, top):
                if entry.name not in wanted or entry.name in found:
                    continue
                inner_unit, inner = self._untyped(unit, entry)
                if inner.tag == _STRUCT:
                    members = self._members(inner_unit, inner, wanted[entry.name])
                    if members:
                        found[entry.name] = members
                if len(found) == len(wanted):
                    return found
        return found

    def _iter_units(self) -> Iterator[_Unit]:
        info, at = self._info, 0
        for _ in range(_MOST_UNITS):
            if at + 11 > len(info):
                return
            (length,) = struct.unpack_from("<I", info, at)
            size, head = 4, at + 4
            if length == 0xFFFFFFFF:
                (length,) = struct.unpack_from("<Q", info, head)
                size, head = 8, at + 12
            end = head + length
            if end > len(info):
                raise ValueError("a unit of the debug information ends beyond it")
            (version,) = struct.unpack_from("<H", info, head)
            form = "<I" if size == 4 else "<Q"
            if version >= 5:
                kind, address_size = info[head + 2], info[head + 3]
                (abbreviations,) = struct.unpack_from(form, info, head + 4)
                first = head + 4 + size
                # Type units have a signature and an offset more, skeletons an id.
                first += {2: 8 + size, 4: 8, 5: 8, 6: 8 + size}.get(kind, 0)
            else:
                (abbreviations,) = struct.unpack_from(form, info, head + 2)
                address_size = info[head + 2 + size]
                first = head + 3 + size
            if 2 <= version <= 5 and address_size in (4, 8):
                yield _Unit(at, end, first, version, size, address_size, abbreviations)
            at = end
        raise ValueError("more units of debug information than a program has")

    def _unit_at(self, offset: int) -> _Unit:
        index = bisect_right(self._begins, offset) - 1
        if index < 0 or not self._units[index].first <= offset < self._units[index].end:
            raise ValueError(f"no unit of debug information at {offset:#x}")
        return self._units[index]

    def _table(self, offset: int) -> _Abbreviations:
        table = self._tables.get(offset)
        if table is not None:
            return table
        table = self._tables[offset] = {}
        data, at = self._abbreviation_bytes, offset
        while True:
            code, at = _unsigned(data, at)
            if code == 0:
                return table
            tag, at = _unsigned(data, at)
            has_children = data[at] == 1
            at += 1
            attributes = []
            while True:
                self._abbreviations_read += 1
                if self._abbreviations_read > _MOST_ABBREVIATIONS:
                    raise ValueError("more abbreviations than a program has")
                name, at = _unsigned(data, at)
                form, at = _unsigned(data, at)
                implicit = 0
                if form == _IMPLICIT:
                    implicit, at = _signed(data, at)
                if name == 0 and form == 0:
                    break
                attributes.append((name, form, implicit))
            table[code] = (tag, has_children, attributes)

    def _entry(self, unit: _Unit, at: int) -> _Entry | None:
        """The entry at an offset; None for the one that ends a row of siblings."""
        self._entries_read += 1
        if self._entries_read > _MOST_ENTRIES:
            raise ValueError("more debug information than is read")
        begin = at
        code, at = _unsigned(self._info, at)
        if code == 0:
            return None
        tag, has_children, attributes = self._table(unit.abbreviations)[code]
        name, location, type_at, sibling = "", None, None, None
        for attribute, form, implicit in attributes:
            if form == _INDIRECT:
                form, at = _unsigned(self._info, at)
                if form in (_INDIRECT, _IMPLICIT):
                    raise ValueError("a form that names itself")
            value_at = at
            at = self._end(unit, form, at)
            if attribute not in _WANTED:
                continue
            if attribute == _NAME:
                name = self._name(unit, form, value_at)
            elif attribute == _LOCATION and form in _CONSTANTS:
                location = self._number(form, value_at, at, implicit)
            elif attribute == _TYPE:
                type_at = self._reference(unit, form, value_at, at)
            elif attribute == _SIBLING:
                sibling = self._reference(unit, form, value_at, at)
        if at > unit.end:
            raise ValueError("an entry of the debug information ends beyond its unit")
        return _Entry(begin, at, tag, has_children, name, location, type_at, sibling)

    def _end(self, unit: _Unit, form: int, at: int) -> int:
        """Where a value ends that begins at an offset."""
        size = _FIXED.get(form)
        if size is not None:
            return at + size
        if form in _OFFSETS:
            return at + unit.offset_size
        if form == _STRING:
            return self._info.index(b"\0", at, at + 65536) + 1
        if form in _VARIABLE:
            return _unsigned(self._info, at)[1]
        if form in _VARIABLE_BLOCKS:
            length, at = _unsigned(self._info, at)
            return at + length
        if form in _BLOCKS:
            width = _BLOCKS[form]
            return at + width + int.from_bytes(self._info[at : at + width], "little")
        if form == _ADDRESS:
            return at + unit.address_size
        if form == _REF_ADDRESS:
            return at + (unit.address_size if unit.version == 2 else unit.offset_size)
        if form == _IMPLICIT:
            return at
        raise ValueError(f"debug information of an unknown form ({form:#x})")

    def _number(self, form: int, at: int, end: int, implicit: int) -> int:
        if form == _IMPLICIT:
            return implicit
        if form == _SIGNED:
            return _signed(self._info, at)[0]
        if form in _VARIABLE:
            return _unsigned(self._info, at)[0]
        return int.from_bytes(self._info[at:end], "little")

    def _reference(self, unit: _Unit, form: int, at: int, end: int) -> int | None:
        if form in _UNIT_REFERENCES:
            return unit.begin + self._number(form, at, end, 0)
        if form == _REF_ADDRESS:
            return int.from_bytes(self._info[at:end], "little")
        return None

    def _name(self, unit: _Unit, form: int, at: int) -> str:
        if form == _STRING:
            return text_at(self._info, at, _LONGEST_NAME)
        if form in (_STRP, _LINE_STRP):
            strings = self._strings if form == _STRP else self._line_strings
            offset = int.from_bytes(self._info[at : at + unit.offset_size], "little")
            return text_at(strings, offset, _LONGEST_NAME)
        if form in _STRX:
            index = self._number(form, at, self._end(unit, form, at), 0)
            # Behind the header of the unit's own table, which is the only one in most files.
            begin = (8 if unit.offset_size == 4 else 16) + index * unit.offset_size
            offset = int.from_bytes(
                self._string_offsets[begin : begin + unit.offset_size], "little"
            )
            return text_at(self._strings, offset, _LONGEST_NAME)
        return ""

    def _children(self, unit: _Unit, parent: _Entry) -> Iterator[_Entry]:
        """The entries right below another one, without what is below them."""
        if not parent.has_children:
            return
        at, depth = parent.end, 0
        while at < unit.end:
            entry = self._entry(unit, at)
            if entry is None:
                if depth == 0:
                    return
                depth -= 1
                at += 1
                continue
            if depth == 0:
                yield entry
            at = entry.end
            if entry.has_children:
                # Only forward: one that leads back would lead round.
                if entry.sibling is not None and entry.sibling > at:
                    at = entry.sibling
                else:
                    depth += 1

    def _untyped(self, unit: _Unit, entry: _Entry) -> tuple[_Unit, _Entry]:
        """What a typedef, or a typedef of it, stands for."""
        for _ in range(_LONGEST_CHAIN):
            if entry.tag != _TYPEDEF or entry.type_at is None:
                return unit, entry
            unit = self._unit_at(entry.type_at)
            inner = self._entry(unit, entry.type_at)
            if inner is None:
                raise ValueError("a typedef of nothing")
            entry = inner
        raise ValueError("a typedef that leads back to itself")

    def _members(
        self, unit: _Unit, entry: _Entry, wanted: Collection[str], depth: int = 1
    ) -> dict[str, int]:
        """Members of a struct with their offsets, and those of structs inside it."""
        members: dict[str, int] = {}
        for child in self._children(unit, entry):
            if child.tag != _MEMBER or child.location is None:
                continue
            if child.name in wanted:
                members[child.name] = child.location
            prefix = child.name + "."
            inside = [name[len(prefix) :] for name in wanted if name.startswith(prefix)]
            if depth and inside and child.type_at is not None:
                inner_unit = self._unit_at(child.type_at)
                inner = self._entry(inner_unit, child.type_at)
                if inner is None:
                    continue
                inner_unit, inner = self._untyped(inner_unit, inner)
                if inner.tag == _STRUCT:
                    found = self._members(inner_unit, inner, inside, depth - 1)
                    members |= {
                        prefix + name: child.location + offset for name, offset in found.items()
                    }
            if len(members) == len(wanted):
                break
        return members


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128, at most 10 bytes long, and where it ends."""
    value = shift = 0
    for _ in range(10):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number without an end")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    begin = at
    value, at = _unsigned(data, at)
    bits = 7 * (at - begin)
    return (value - (1 << bits) if data[at - 1] & 0x40 else value), at
