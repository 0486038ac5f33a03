"""An ELF file of a stranger: where its code lies, and its sections and symbols.

Nothing in the file is trusted. Every count and size is checked against a bound before anything is
read or allocated for it, and any other error while the file is open becomes one PretakeError
(``with Elf(path) as elf``). Headers, sections and symbols are read as numpy records, because a
server has a hundred thousand symbols, of which only a few are needed.

The names of fields are those of elf(5).
"""

from __future__ import annotations

import os
import struct
import zlib
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from tracer import arch
from tracer.errors import PretakeError
from tracer.targets.program_file import Bytes, FileBytes, open_program

__all__ = ["Elf", "text_at"]

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, the smallest byte first
_DYNAMIC_OBJECT = 3
_SECTION = np.dtype(
    [
        ("name", "<u4"),
        ("type", "<u4"),
        ("flags", "<u8"),
        ("addr", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("link", "<u4"),
        ("info", "<u4"),
        ("addralign", "<u8"),
        ("entsize", "<u8"),
    ]
)
_SEGMENT = np.dtype(
    [
        ("type", "<u4"),
        ("flags", "<u4"),
        ("offset", "<u8"),
        ("vaddr", "<u8"),
        ("paddr", "<u8"),
        ("filesz", "<u8"),
        ("memsz", "<u8"),
        ("align", "<u8"),
    ]
)
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
_TLS_SLOTS_MOST = 16
_RELOCATION = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_DYNAMIC = np.dtype([("tag", "<u8"), ("value", "<u8")])

_NULL, _NOBITS = 0, 8  # section types
_COMPRESSED = 0x800
_ZLIB = 1
_COMPRESSION_HEADER = struct.Struct("<IIQQ")
_LOAD, _INTERPRETER, _TLS = 1, 3, 7  # segment types
_EXECUTE = 1
_BUILD_ID_NOTE = 3
_NEEDED, _SONAME, _FLAGS_1, _PIE = 1, 14, 0x6FFFFFFB, 0x08000000

_MOST_SECTIONS = 0xFF00
"""Where extended numbering begins, which no linked program needs."""
_MOST_BYTES = 256 << 20
"""Of one section, and of all that is taken out of compressed ones together."""
_MOST_CODE = 4 << 20
"""Bytes that are read at an address at once: a function is shorter."""
_LONGEST_NAME = 4096


class Elf:
    """One ELF file, open while it is asked. Use it as a context manager.

    It is of an architecture of :mod:`tracer.arch`, which is its attribute ``arch``.

    Args:
        path: the file; for a running process ``/proc/PID/exe`` does, in any container.
        source: its bytes, where somebody has it open already; ``path`` is then for messages.

    Raises:
        PretakeError: it cannot be read, or is no whole ELF file of this kind; and, while it is
            open as a context manager, whatever its contents make fail.
        MemoryError: it is larger than this process may be.
    """

    def __init__(self, path: Path, source: Bytes | None = None) -> None:
        self.path = path
        self._fd: int | None = None
        if source is None:
            self._fd = open_program(path)
            source = FileBytes(self._fd)
        self._source = source
        self._inflated = 0
        try:
            self._read_headers()
        except (PretakeError, MemoryError):
            self.close()
            raise
        except Exception as error:
            self.close()
            raise PretakeError(
                f"{path} is no whole ELF file ({_told(error)})",
                "name the program itself, and all of it",
            ) from error

    def _read_headers(self) -> None:
        (ident, kind, machine, _, self.entry, phoff, shoff, *_sizes) = _HEADER.unpack(
            self._source.read(0, _HEADER.size)
        )
        _, _, phentsize, phnum, shentsize, shnum, shstrndx = _sizes
        built_for = arch.of_elf(machine)
        if not ident.startswith(_MAGIC) or built_for is None:
            raise PretakeError(
                f"{self.path} is no program for x86-64 or arm64", "pretake knows these only"
            )
        self.arch: arch.Architecture = built_for
        self.position_independent: bool = kind == _DYNAMIC_OBJECT
        self._segments = self._records(_SEGMENT, phoff, phnum, phentsize)
        self._sections = self._records(_SECTION, shoff, shnum, shentsize)
        if shnum >= _MOST_SECTIONS or (shoff and not shnum):
            raise ValueError("more sections than a program has")
        # A section that ends beyond the file would be read as what little there is of it.
        stored = (self._sections["type"] != _NOBITS) & (self._sections["type"] != _NULL)
        ends = self._sections["offset"].astype(float) + self._sections["size"].astype(float)
        if bool((ends[stored] > self._source.size).any()):
            raise ValueError("a section ends beyond the file")
        self._names: dict[bytes, int] = {}
        if shnum:
            text = self._stored(shstrndx)
            for i, at in enumerate(self._sections["name"].tolist()):
                self._names.setdefault(_name_at(text, at, _LONGEST_NAME), i)

    def _records(self, kind: np.dtype, offset: int, count: int, size: int) -> np.ndarray:
        if count and size != kind.itemsize:
            raise ValueError(f"a header entry of {size} bytes")
        return np.frombuffer(self._source.read(offset if count else 0, count * size), kind)

    def __enter__(self) -> Elf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, Exception) and not isinstance(error, PretakeError | MemoryError):
            raise PretakeError(
                f"{self.path} is damaged ({_told(error)})", "build or install the program again"
            ) from error

    def close(self) -> None:
        """Let go of the file, where this object opened it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._source.size

    @property
    def has_sections(self) -> bool:
        """Whether there is a table of sections (packers leave none)."""
        return len(self._sections) > 0

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build id in hexadecimal; None where the linker wrote none."""
        section = self.section(".note.gnu.build-id")
        data = section[1] if section else b""
        at = 0
        while at + 12 <= len(data):
            name_size, size, kind = struct.unpack_from("<III", data, at)
            begin = at + 12 + (name_size + 3 & ~3)
            if kind == _BUILD_ID_NOTE and data[at + 12 : at + 16] == b"GNU\0" and 0 < size <= 64:
                return data[begin : begin + size].hex()
            at = begin + (size + 3 & ~3)
        return None

    @cached_property
    def _loads(self) -> list[tuple[int, int, int, bool]]:
        """Loaded segments: address, file offset, bytes in the file, executable."""
        loaded = self._segments[self._segments["type"] == _LOAD]
        return [
            (address, offset, size, bool(flags & _EXECUTE))
            for address, offset, size, flags in zip(
                loaded["vaddr"].tolist(),
                loaded["offset"].tolist(),
                loaded["filesz"].tolist(),
                loaded["flags"].tolist(),
                strict=True,
            )
        ]

    @property
    def first_code(self) -> int:
        """Link-time address of the first executable segment (the kernel's start_code)."""
        return min(address for address, _, _, executable in self._loads if executable)

    def file_offset(self, address: int) -> int:
        """Where the byte at a link-time address lies in the file; ValueError if it does not."""
        for begin, offset, size, _ in self._loads:
            if begin <= address < begin + size and address - begin + offset < self.size:
                return address - begin + offset
        raise ValueError(f"no loaded byte at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a link-time address, as the file has them (not relocated)."""
        if not 0 <= size <= _MOST_CODE:
            raise ValueError(f"{size} bytes at {address:#x}")
        return self._source.read(self.file_offset(address), size)

    def section(self, *names: str) -> tuple[int, bytes] | None:
        """Address and bytes of the first of these sections that there is."""
        for name in names:
            index = self._names.get(name.encode())
            if index is not None and self._sections["type"][index] not in (_NULL, _NOBITS):
                return int(self._sections["addr"][index]), self._stored(index)
        return None

    def has_section(self, name: str) -> bool:
        """Whether there is a section of this name, with bytes in the file."""
        index = self._names.get(name.encode())
        return index is not None and self._sections["type"][index] not in (_NULL, _NOBITS)

    def _stored(self, index: int) -> bytes:
        """The bytes of a section as they are in the file."""
        section = self._sections[index]
        size = int(section["size"])
        if size > self._source.size:
            raise ValueError(f"a section of {size} bytes in a file of {self._source.size}")
        if size > _MOST_BYTES:
            raise MemoryError(f"a section of {size} bytes")
        if int(section["flags"]) & _COMPRESSED:
            raise ValueError("a compressed section where no linker makes one")
        return self._source.read(int(section["offset"]), size)

    def debug_section(self, name: str) -> bytes:
        """The bytes of a section of debug information, inflated; empty where there is none.

        Only these are ever inflated, and only to the size that their header tells and that all
        of them may have together.

        Raises:
            ValueError: it is larger than it says, or compressed in a way that is not read here
                (zstd).
            MemoryError: it is larger than what is read of any program.
        """
        if not self.has_section(name):
            return b""
        section = self._sections[self._names[name.encode()]]
        if not int(section["flags"]) & _COMPRESSED:
            return self._stored(self._names[name.encode()])
        size = int(section["size"])
        if size > _MOST_BYTES:
            raise MemoryError(f"a section of {size} bytes")
        data = self._source.read(int(section["offset"]), size)
        how, _, whole, _ = _COMPRESSION_HEADER.unpack_from(data)
        if how != _ZLIB:
            raise ValueError(f"{name} is compressed in a way not known here ({how})")
        self._inflated += whole
        if self._inflated > _MOST_BYTES:
            raise MemoryError(f"{self._inflated} bytes of debug information, compressed")
        found = zlib.decompressobj().decompress(data[_COMPRESSION_HEADER.size :], max(whole, 1))
        if len(found) != whole:
            raise ValueError(f"{name} inflates to {len(found)} bytes, not {whole}")
        return found

    @property
    def tls(self) -> tuple[int, int] | None:
        """Size and alignment of the thread-local segment; None where there is none."""
        found = self._segments[self._segments["type"] == _TLS]
        return (int(found[0]["memsz"]), int(found[0]["align"])) if len(found) else None

    @property
    def has_interpreter(self) -> bool:
        """Whether it asks for a dynamic loader, as a program does and a library does not."""
        return bool((self._segments["type"] == _INTERPRETER).any())

    @cached_property
    def _dynamic(self) -> np.ndarray:
        section = self.section(".dynamic")
        return _array(section[1] if section else b"", _DYNAMIC)

    @property
    def is_library(self) -> bool:
        """Whether it is made to be loaded by a program: a shared library or a Go plugin."""
        flags = self._dynamic["value"][self._dynamic["tag"] == _FLAGS_1]
        pie = bool(len(flags) and int(flags[0]) & _PIE)
        return self.position_independent and not self.has_interpreter and not pie

    @property
    def needed(self) -> list[str]:
        """Names of the libraries that it is linked with, at most 64 of them."""
        return self._named(_NEEDED)

    @property
    def soname(self) -> str | None:
        """The name that a library has for those that are linked with it."""
        return next(iter(self._named(_SONAME)), None)

    def _named(self, tag: int) -> list[str]:
        strings = self.section(".dynstr")
        if strings is None:
            return []
        at = self._dynamic["value"][self._dynamic["tag"] == tag].tolist()
        return [text_at(strings[1], offset, _LONGEST_NAME) for offset in at[:64]]

    @cached_property
    def _symtab(self) -> tuple[np.ndarray, bytes]:
        symbols, strings = self.section(".symtab"), self.section(".strtab")
        if symbols is None or strings is None:
            return np.empty(0, _SYMBOL), b""
        return _array(symbols[1], _SYMBOL), strings[1]

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

    def tls_slots(self) -> list[int]:
        """Where the loader writes offsets from the thread pointer."""
        section = self.section(".rela.dyn")
        if section is None:
            return []
        rows = _array(section[1], _RELOCATION)
        found = rows["offset"][rows["info"] & 0xFFFFFFFF == self.arch.tls_relocation]
        return [int(address) for address in found[:_TLS_SLOTS_MOST]]

    def relocated(self, address: int) -> int | None:
        """The pointer that a position-independent file gets at an address when it is loaded."""
        for name in (".rela.dyn", ".rela"):
            section = self.section(name)
            if section is None:
                continue
            rows = _array(section[1], _RELOCATION)
            found = rows["addend"][rows["offset"] == address]
            if len(found):
                return int(found[0])
        return None


def _array(data: bytes, kind: np.dtype) -> np.ndarray:
    """As many whole records as there are."""
    return np.frombuffer(data, kind, len(data) // kind.itemsize)


def text_at(data: bytes, at: int, most: int) -> str:
    """The text at an offset into a table of names.

    Raises:
        ValueError: it does not end within ``most`` bytes.
    """
    return _name_at(data, at, most).decode("utf-8", "replace")


def _name_at(data: bytes, at: int, most: int) -> bytes:
    return data[at : data.index(b"\0", at, at + most)]


def _told(error: Exception) -> str:
    """What went wrong, in one short line."""
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
