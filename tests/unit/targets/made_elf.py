"""ELF files made by hand, with these sections and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Mapping

__all__ = ["made_elf"]

_HEADER = 64
_SECTION = 64
_SEGMENT = 56


def made_elf(
    sections: Mapping[str, bytes], *, flags: Mapping[str, int] | None = None, tail: bytes = b""
) -> bytes:
    """An x86-64 executable.

    Args:
        sections: name to bytes. They are loaded from address 0x400000 on, as they lie in the file.
        flags: sh_flags of sections that have some.
        tail: bytes behind everything.
    """
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    stored = {**sections, ".shstrtab": names}
    body, rows = b"", [bytes(_SECTION)]
    begin = _HEADER + _SEGMENT
    for name, data in stored.items():
        kind = {".symtab": 2, ".strtab": 3, ".shstrtab": 3, ".dynamic": 6}.get(name, 1)
        at = begin + len(body)
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ",
                names.index(b"\0" + name.encode() + b"\0") + 1,
                kind,
                (flags or {}).get(name, 0),
                0x400000 + at,
                at,
                len(data),
                0,
                0,
                1,
                0,
            )
        )
        body += data
    shoff = begin + len(body)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQI", 2, 62, 1, 0x400000, _HEADER, shoff, 0)
    header += struct.pack("<HHHHHH", _HEADER, _SEGMENT, 1, _SECTION, len(rows), len(rows) - 1)
    size = shoff + _SECTION * len(rows)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 4096)
    return header + segment + body + b"".join(rows) + tail
