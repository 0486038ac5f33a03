"""An ELF file's headers, beside a general reader; and sizes that no file has."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.go import toolchains
from tests.unit.targets.made_elf import made_elf
from tracer.errors import PretakeError
from tracer.targets.elf import Elf
from tracer.targets.program_file import HeldBytes

PATH = Path("made")
_SECTIONS_AT, _FIRST, _LAST = 40, 62, 60


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


@pytest.mark.go
@pytest.mark.parametrize("linkage", ["static", "cgo-pie", "stripped-pie"])
def test_headers_are_those_that_a_general_reader_finds(linkage: str) -> None:
    path = toolchains.build("blockread", "1.27.3", linkage)
    data = path.read_bytes()
    witness = ELFFile(io.BytesIO(data))
    with Elf(path) as elf:
        for section in witness.iter_sections():
            if section.name and not section.compressed and section["sh_type"] != "SHT_NOBITS":
                assert elf.section(section.name) == (section["sh_addr"], section.data())
            if section.compressed:
                assert elf.debug_section(section.name) == section.data()
        code = [s["p_vaddr"] for s in witness.iter_segments("PT_LOAD") if s["p_flags"] & 1]
        assert elf.first_code == min(code)
        assert elf.position_independent == (witness["e_type"] == "ET_DYN")
        notes = witness.get_section_by_name(".note.gnu.build-id")
        expected = next(notes.iter_notes())["n_desc"] if notes else None
        assert elf.build_id == expected
        symtab = witness.get_section_by_name(".symtab")
        for name in ("runtime.sched", "runtime.allp", "runtime.tlsg") if symtab else ():
            symbols = symtab.get_symbol_by_name(name)
            assert elf.symbol(name) == (symbols[0]["st_value"] if symbols else None)
        tls = next(iter(witness.iter_segments("PT_TLS")), None)
        assert elf.tls == ((tls["p_memsz"], tls["p_align"]) if tls else None)


DATA = made_elf({".text": b"\xc3", ".data": b"12345678"})
(SECTIONS,) = struct.unpack_from("<Q", DATA, _SECTIONS_AT)


@pytest.mark.parametrize(
    "data",
    [
        patched(DATA, _LAST, "<H", 0xFFFF),  # more sections than a program has
        patched(DATA, _LAST, "<H", 0),  # their number said to stand elsewhere
        patched(DATA, _FIRST, "<H", 99),  # names in a section that there is not
        patched(DATA, SECTIONS + 64 + 32, "<Q", 1 << 63),  # a section of 8 EiB
        patched(DATA, SECTIONS + 64 + 24, "<Q", (1 << 64) - 1),  # at the end of all numbers
        patched(DATA, SECTIONS + 3 * 64 + 32, "<Q", 1 << 40),  # names of 1 TiB
        patched(patched(DATA, SECTIONS + 3 * 64 + 32, "<Q", 1 << 40), SECTIONS + 196, "<I", 8),
        patched(DATA, SECTIONS + 64, "<I", 1 << 31),  # a name beyond the names
        patched(DATA, _SECTIONS_AT, "<Q", 1 << 62),
        patched(DATA, 58, "<H", 8),  # entries of another size
        DATA[:-1],
        DATA[:63],
    ],
)
def test_sizes_that_no_file_has_are_refused(data: bytes) -> None:
    with pytest.raises(PretakeError, match="is no whole ELF file"):
        Elf(PATH, HeldBytes(data))


def test_any_error_while_a_file_is_open_is_one_line() -> None:
    for error in (KeyError("x"), RecursionError("deep"), OverflowError("much\nmore"), OSError()):
        with (
            pytest.raises(PretakeError, match="made is damaged") as told,
            Elf(PATH, HeldBytes(DATA)),
        ):
            raise error
        assert "\n" not in str(told.value)
    with pytest.raises(PretakeError, match=r"^own$"), Elf(PATH, HeldBytes(DATA)):
        raise PretakeError("own")
    with pytest.raises(KeyboardInterrupt), Elf(PATH, HeldBytes(DATA)):
        raise KeyboardInterrupt


def test_bytes_are_read_where_they_lie() -> None:
    with Elf(PATH, HeldBytes(DATA)) as elf:
        section = elf.section(".data")
        assert section is not None
        assert elf.read(section[0] + 2, 3) == b"345"
        assert elf.section(".none") is None
        assert elf.section(".none", ".data") == section
        for address, size in ((0x3FFFFF, 1), (section[0], -1), (section[0], 1 << 30)):
            with pytest.raises(ValueError, match="byte"):
                elf.read(address, size)
