"""Offsets of members from DWARF, beside other witnesses of the same; and DWARF made to hurt."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.go import toolchains
from tests.go.looked import built
from tests.unit.targets.made_elf import made_elf
from tools import fuzz_targets
from tools.fuzz_targets import HangError, clocked
from tracer.errors import PretakeError
from tracer.targets import dwarf, go, go_offsets
from tracer.targets.dwarf import struct_offsets
from tracer.targets.elf import Elf
from tracer.targets.program_file import HeldBytes

C_PROGRAM = """
#include <stddef.h>
#include <stdio.h>
struct inner { char a; long b; };
typedef struct inner alias;
typedef struct { int x; alias in; char last; } *pointer_is_none;
typedef struct { char first; alias in; struct inner plain; short last; } outer;
struct inner one; outer two; pointer_is_none three;
int main(void)
{
    printf("%zu %zu %zu %zu %zu %zu\\n", offsetof(outer, first), offsetof(outer, in),
           offsetof(outer, in.b), offsetof(outer, plain.b), offsetof(outer, last),
           offsetof(struct inner, b));
}
"""


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("how", ["", "-gz=zlib"])
def test_c_structs_lie_as_the_compiler_says(tmp_path: Path, version: int, how: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "main.c").write_text(C_PROGRAM)
    command = [compiler, "-g", f"-gdwarf-{version}", "-gstrict-dwarf", *how.split()]
    subprocess.run([*command, "-o", "main", "main.c"], cwd=tmp_path, check=True)
    told = subprocess.run([tmp_path / "main"], stdout=subprocess.PIPE, check=True).stdout
    wanted = {"outer": ("first", "in", "in.b", "plain.b", "last", "none"), "inner": ("b",)}
    with Elf(tmp_path / "main") as elf:
        found = struct_offsets(elf, wanted, inline=False)
    if version == 2:
        # Its members are told by little programs, which are not run.
        assert found == {}
        return
    outer = [found["outer"][name] for name in wanted["outer"] if name != "none"]
    assert [*outer, found["inner"]["b"]] == [int(word) for word in told.split()]
    assert "none" not in found["outer"]


def by_pyelftools(path: Path) -> dict[str, dict[str, int]]:
    """All members of Go's own structs, as a general reader finds them by walking."""
    with path.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        found = {}
        for unit in dwarf.iter_CUs():
            top = unit.get_top_DIE()
            if top.attributes["DW_AT_name"].value != b"runtime":
                continue
            for entry in top.iter_children():
                name = entry.attributes.get("DW_AT_name")
                if name and name.value.decode() in go.GO_STRUCTS:
                    found[name.value.decode()] = {
                        child.attributes["DW_AT_name"].value.decode(): child.attributes[
                            "DW_AT_data_member_location"
                        ].value
                        for child in entry.iter_children()
                    }
    return found


@pytest.mark.go
@pytest.mark.parametrize("version", ["1.19.8", "1.24.11", "1.27.3"])
def test_go_structs_lie_as_a_general_reader_says(version: str) -> None:
    path = toolchains.build("blockread", version, "static")
    witness = by_pyelftools(path)
    wanted = {name: tuple(members) for name, members in witness.items()}
    assert set(wanted) == set(go.GO_STRUCTS)
    with Elf(path) as elf:
        assert struct_offsets(elf, wanted, inline=True) == witness
        measured = go.measure_offsets(elf)
    # A field that is read from where another one is would not be the witness's.
    for name, (struct_name, *members) in go.GO_FIELDS.items():
        there = [m for m in members if m in witness[struct_name]]
        if there:
            assert measured[name] == witness[struct_name][there[0]]
            same = [m for m, at in witness[struct_name].items() if at == measured[name]]
            assert same == there[:1]
    by_struct: dict[str, list[int]] = {}
    for name, (struct_name, *_) in go.GO_FIELDS.items():
        by_struct.setdefault(struct_name, []).append(measured[name])
    assert all(len(set(offsets)) == len(offsets) for offsets in by_struct.values())


@pytest.mark.go
@pytest.mark.parametrize("version", toolchains.VERSIONS)
def test_the_shipped_row_is_what_the_version_has(version: str) -> None:
    with Elf(built(toolchains.build, "blockread", version)) as elf:
        assert go.measure_offsets(elf) == go_offsets.shipped_offsets()[f"go{version}"]


@pytest.mark.go
@pytest.mark.parametrize("name", sorted(go.GO_FIELDS))
def test_a_shipped_offset_that_is_wrong_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = go_offsets.shipped_offsets()
    wrong = rows["go1.27.3"] | {name: rows["go1.27.3"][name] + 4}
    monkeypatch.setattr(go, "shipped_offsets", lambda _: rows | {"go1.27.3": wrong})
    path = toolchains.build("blockread", "1.27.3", "static")
    with Elf(path) as elf:
        found, fast = go.look(elf, deep=True), go.look(elf, deep=False)
    assert found is not None
    assert fast is not None
    assert found.offsets_from == "dwarf"
    assert getattr(found.layout, name) == rows["go1.27.3"][name]
    (told,) = found.missing
    assert told.what == "offsets as in its version of Go"
    assert told.why.startswith(f"{name} is {rows['go1.27.3'][name]} ")
    assert fast.offsets_from == "go1.27.3"
    assert getattr(fast.layout, name) == wrong[name]


def uleb(*numbers: int) -> bytes:
    return b"".join(bytes([n & 0x7F | 0x80, n >> 7]) if n > 0x7F else bytes([n]) for n in numbers)


ABBREVIATIONS = b"".join(
    uleb(*row)
    for row in (
        # number, tag, has children, (attribute, form)..., 0, 0
        (1, 0x11, 1, 0, 0),  # unit
        (2, 0x16, 0, 0x03, 0x08, 0x49, 0x13, 0, 0),  # typedef: name, type by 4 bytes
        (3, 0x13, 1, 0x03, 0x08, 0, 0),  # struct: name
        (4, 0x0D, 0, 0x03, 0x08, 0x38, 0x0F, 0, 0),  # member: name, location
        (5, 0x13, 1, 0x03, 0x08, 0x01, 0x13, 0, 0),  # struct: name, sibling
        (6, 0x16, 0, 0x03, 0x16, 0, 0),  # typedef: name of a form told in the entry
        (0,),
    )
)


def unit(entries: bytes) -> bytes:
    """A unit of version 4 whose entries begin at its byte 12."""
    rest = struct.pack("<HIB", 4, 0, 8) + b"\x01" + entries
    return struct.pack("<I", len(rest)) + rest


def elf_of(info: bytes, abbreviations: bytes = ABBREVIATIONS, flags: int = 0) -> Elf:
    data = made_elf(
        {".debug_info": info, ".debug_abbrev": abbreviations}, flags={".debug_info": flags}
    )
    return Elf(Path("made"), HeldBytes(data))


def look(info: bytes, *, inline: bool = False, **how: bytes) -> dict[str, dict[str, int]]:
    with elf_of(info, **how) as elf:
        return struct_offsets(elf, {"s": ("m",)}, inline=inline)


STRUCT = b"\x03s\0" + b"\x04m\0\x28" + b"\0"


def test_a_struct_made_by_hand_is_read() -> None:
    assert look(unit(STRUCT + b"\0")) == {"s": {"m": 40}}
    assert look(unit(STRUCT + b"\0"), inline=True) == {"s": {"m": 40}}


def typedef(name: bytes, to: int) -> bytes:
    return b"\x02" + name + b"\0" + struct.pack("<I", to)


@pytest.mark.parametrize(
    "entries",
    [
        typedef(b"s", 12),  # names itself
        typedef(b"s", 19) + typedef(b"t", 12),  # two that name each other
        typedef(b"s", 1 << 30),  # names nothing
        b"\x05s\0" + struct.pack("<I", 12) + b"\x04m\0",  # a sibling behind it, and cut
        b"\x06s\0\x16\x16\x16",  # a form that names itself
        b"\x06\x21",  # an implicit constant that only an abbreviation can have
        b"\x7f",  # no such abbreviation
        b"\x03s",  # a name without an end
        b"\x04m\0" + b"\xff" * 20,  # a number without an end
    ],
)
@pytest.mark.parametrize("inline", [False, True])
def test_circles_and_ends_are_refused(entries: bytes, inline: bool) -> None:
    try:
        with elf_of(unit(entries)) as elf:
            found = struct_offsets(elf, {"s": ("m",)}, inline=inline)
    except PretakeError as error:
        assert "is damaged" in error.problem  # noqa: PT017
    else:
        assert not any(found.values())


@pytest.mark.parametrize(
    ("info", "abbreviations"),
    [
        (bytes(1 << 22), ABBREVIATIONS),  # a million units of nothing
        (unit(STRUCT[:-1] * 200_000), ABBREVIATIONS),  # structs in structs without end
        (unit(STRUCT * 200_000), ABBREVIATIONS),
        (b"\x03s\0" * (1 << 20), ABBREVIATIONS),  # a name everywhere, in no unit
        (unit(b"\x03s\0" * (1 << 20)), ABBREVIATIONS),
        (unit(STRUCT), uleb(1, 0x11, 1) + uleb(0x03, 0x08) * 400_000),
        (unit(STRUCT), uleb(1, 0x11, 1, 0, 0) * 300_000),
        (struct.pack("<IHI", 0xFFFFFFFF, 0, 0) * 1000, ABBREVIATIONS),
        (unit(b"")[:-2], ABBREVIATIONS),
    ],
)
@pytest.mark.parametrize("inline", [False, True])
def test_much_of_it_ends_soon(info: bytes, abbreviations: bytes, inline: bool) -> None:
    began_s = time.process_time()
    try:
        look(info, inline=inline, abbreviations=abbreviations)
    except PretakeError as error:
        assert "is damaged" in error.problem  # noqa: PT017
    # What the parser's process may take; CPU time, which no load of the machine changes much.
    assert time.process_time() - began_s < 2


@pytest.mark.parametrize("bound", ["_LONGEST_CHAIN", "_MOST_ENTRIES"])
def test_without_a_bound_a_circle_has_no_end(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(fuzz_targets, "CPU_S", 0.2)
    circle = unit(typedef(b"s", 12))
    with clocked():  # with both of them it ends
        assert_refused(circle)
    monkeypatch.setattr(dwarf, "_LONGEST_CHAIN", sys.maxsize)
    if bound == "_LONGEST_CHAIN":
        # The count of entries is the second one that holds.
        monkeypatch.setattr(dwarf, "_MOST_ENTRIES", 1000)
        with clocked():
            assert_refused(circle)
        return
    monkeypatch.setattr(dwarf, "_MOST_ENTRIES", sys.maxsize)
    with pytest.raises(HangError), clocked():
        look(circle)


def assert_refused(info: bytes) -> None:
    with pytest.raises(PretakeError, match="is damaged"):
        look(info)


def compressed(whole: int, data: bytes, how: int = 1) -> bytes:
    return struct.pack("<IIQQ", how, 0, whole, 1) + zlib.compress(data, 9)


def test_compressed_debug_information_is_inflated_no_further_than_it_says() -> None:
    info = unit(STRUCT + b"\0")

    def read(data: bytes) -> dict[str, dict[str, int]]:
        with elf_of(data, flags=0x800) as elf:
            return struct_offsets(elf, {"s": ("m",)}, inline=False)

    assert read(compressed(len(info), info)) == {"s": {"m": 40}}
    for data in (compressed(1 << 40, info), compressed(1 << 40, bytes(32 << 20))):
        with pytest.raises(MemoryError, match="bytes of debug information"):
            read(data)
    for data in (
        compressed(len(info) + 1, info),
        compressed(len(info) - 1, info),
        compressed(0, info),
        compressed(len(info), info, how=2),
        compressed(len(info), info)[:-9],
        b"short",
    ):
        with pytest.raises(PretakeError, match="is damaged"):
            read(data)


def test_a_table_of_names_is_never_inflated() -> None:
    bomb = compressed(32 << 20, bytes(32 << 20))
    data = made_elf({".symtab": bytes(48), ".strtab": bomb}, flags={".strtab": 0x800})
    with (
        pytest.raises(PretakeError, match="a compressed section"),
        Elf(Path("made"), HeldBytes(data)) as elf,
    ):
        elf.symbol("runtime.sched")


def test_the_made_file_is_one_for_a_general_reader_too() -> None:
    data = made_elf({".debug_info": unit(STRUCT + b"\0"), ".debug_abbrev": ABBREVIATIONS})
    dwarf = ELFFile(io.BytesIO(data)).get_dwarf_info()
    (made,) = dwarf.iter_CUs()
    assert [die.tag for die in made.get_top_DIE().iter_children()] == ["DW_TAG_structure_type"]
