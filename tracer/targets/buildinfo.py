"""The Go version of a binary, from ``.go.buildinfo``, which no strip takes away.

The format is that of Go's ``debug/buildinfo`` (from Go 1.18, strings inline).
"""

from __future__ import annotations

from dataclasses import dataclass

from tracer.targets.elf import Elf

__all__ = ["BuildInfo", "build_info", "go_version", "is_before_inline_strings", "uvarint"]

_MAGIC = b"\xff Go buildinf:"
_INLINE_STRINGS = 2
_HEADER = 32
_LONGEST = 512


@dataclass(frozen=True)
class BuildInfo:
    """What the linker wrote of a build.

    Args:
        version: the version word alone, as in ``go1.27.3``.
        experiments: names of the GOEXPERIMENTs that differ from the version's own choice.
        vendor: what else stands there, such as ``(Red Hat 1.20.12-1.el9)``.
    """

    version: str
    experiments: tuple[str, ...] = ()
    vendor: str = ""


def build_info(elf: Elf) -> BuildInfo | None:
    """The version that built a binary.

    Args:
        elf: the open binary.

    Returns:
        None where this is no Go program, one built before Go 1.18, or one whose version is not
        told (garble writes ``unknown``).
    """
    text = _version_text(elf)
    words = text.split() if text else []
    for word in words:
        if word.startswith("go1"):
            told = [w[2:] for w in words if w.startswith("X:")]
            experiments = tuple(name for names in told for name in names.split(","))
            others = [w for w in words if w is not word and not w.startswith("X:")]
            return BuildInfo(word, experiments, " ".join(others))
    return None


def go_version(elf: Elf) -> str | None:
    """The version alone, see :func:`build_info`."""
    info = build_info(elf)
    return info.version if info else None


def is_before_inline_strings(elf: Elf) -> bool:
    """Whether a Go older than 1.18 wrote it, which put pointers there and not the text."""
    section = elf.section(".go.buildinfo")
    return (
        section is not None
        and section[1].startswith(_MAGIC)
        and len(section[1]) >= _HEADER
        and not section[1][15] & _INLINE_STRINGS
    )


def _version_text(elf: Elf) -> str | None:
    section = elf.section(".go.buildinfo")
    if section is None or not section[1].startswith(_MAGIC):
        return None
    data = section[1]
    if len(data) <= _HEADER or not data[15] & _INLINE_STRINGS:
        return None
    length, at = uvarint(data, _HEADER)
    if length > _LONGEST or at + length > len(data):
        raise ValueError(f"a version of {length} bytes")
    text = data[at : at + length].decode("utf-8", "replace")
    return text if text.isprintable() else None


def uvarint(data: bytes, at: int) -> tuple[int, int]:
    """A number in Go's variable-length encoding, and where it ends.

    Raises:
        ValueError: it does not end within 10 bytes, or within the data.
    """
    value = shift = 0
    for end in range(at, min(at + 10, len(data))):
        value |= (data[end] & 0x7F) << shift
        shift += 7
        if not data[end] & 0x80:
            return value, end + 1
    raise ValueError("a number without an end")
