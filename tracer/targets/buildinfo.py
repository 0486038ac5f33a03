"""The Go version of a binary, from ``.go.buildinfo``, which no strip takes away.

The format is that of Go's ``debug/buildinfo`` (from Go 1.18, strings inline).
"""

from __future__ import annotations

from tracer.targets.elf import Elf

__all__ = ["go_version", "uvarint"]

_MAGIC = b"\xff Go buildinf:"
_INLINE_STRINGS = 2
_HEADER = 32


def go_version(elf: Elf) -> str | None:
    """The version that built a binary, as in ``go1.27.3``.

    Args:
        elf: the open binary.

    Returns:
        The version word alone, without experiments; None where this is no Go program, or one
        built before Go 1.18.
    """
    section = elf.section(".go.buildinfo")
    if section is None or not section[1].startswith(_MAGIC):
        return None
    data = section[1]
    if len(data) <= _HEADER or not data[15] & _INLINE_STRINGS:
        return None
    length, at = uvarint(data, _HEADER)
    text = data[at : at + length].decode("utf-8", "replace")
    for word in text.split():
        if word.startswith("go1"):
            return word
    return None


def uvarint(data: bytes, at: int) -> tuple[int, int]:
    """A number in Go's variable-length encoding, and where it ends."""
    value = shift = 0
    for at in range(at, min(at + 10, len(data))):  # noqa: B020 (it goes on from there)
        value |= (data[at] & 0x7F) << shift
        shift += 7
        if not data[at] & 0x80:
            break
    return value, at + 1
