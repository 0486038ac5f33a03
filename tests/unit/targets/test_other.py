"""What is said of a file in which no runtime can be read: a reason that is true, and a mend."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.go import toolchains
from tests.unit.targets.made_elf import made_elf
from tracer.targets import NoRuntime, RuntimeBinary, jail
from tracer.targets.go import GoBinary

ELSE = "neither a Go program (1.19 or later) nor the reference runtime"


def told(data: bytes) -> NoRuntime | RuntimeBinary:
    fd = os.memfd_create("stranger")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    try:
        return jail.look(fd, Path("stranger"), deep=True)
    finally:
        os.close(fd)


def why(data: bytes) -> str:
    found = told(data)
    assert isinstance(found, NoRuntime)
    assert found.mend
    return found.why


def head(bits: int = 2, order: int = 1, machine: int = 62) -> bytes:
    numbers = struct.pack("<HH" if order == 1 else ">HH", 2, machine)
    return b"\x7fELF" + bytes([bits, order, 1]) + bytes(9) + numbers + bytes(60)


READ = "; x86-64 and arm64 can be read"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"#!/bin/sh\nexec ./server\n", "a script"),
        (b"MZ\x90\0" + bytes(100), "no ELF file"),
        (b"\x7fELF\x02\x01", "an ELF file that is cut short"),
        (
            head(bits=1, machine=3),
            "a program for 32-bit x86 (GOARCH=386); x86-64 and arm64 can be read",
        ),
        (head(bits=1, machine=183), "a program for arm64, 32-bit or of another byte order; "),
        (
            head(order=2, machine=22),
            "a program for s390x (GOARCH=s390x); x86-64 and arm64 can be read",
        ),
        (
            head(bits=1, machine=40),
            "a program for 32-bit ARM (GOARCH=arm); x86-64 and arm64 can be read",
        ),
        (head(bits=1, machine=62), "a program for x32" + READ),
        (head(machine=999), "a program for unknown (e_machine 999)" + READ),
        (head(bits=7), "a damaged ELF file"),
        (made_elf({".text": b"\xc3"}), ELSE),
        (made_elf({".go.buildinfo": b"\xff Go buildinf:" + bytes(30)}), "a Go program of Go 1.17"),
        (made_elf({".gopclntab": bytes(30)}), "a Go program that does not tell its version"),
    ],
)
def test_a_file_is_told_for_what_it_is(data: bytes, reason: str) -> None:
    assert why(data).startswith(reason)


def without_sections(data: bytes) -> bytes:
    whole = bytearray(data)
    struct.pack_into("<Q", whole, 40, 0)
    struct.pack_into("<HHH", whole, 58, 0, 0, 0)
    return bytes(whole)


def test_a_packed_program_is_told() -> None:
    plain = without_sections(made_elf({".text": b"\xc3"}))
    assert why(plain).startswith("a program without a table of sections")
    assert why(plain + b"UPX!" + bytes(32)) == "a packed program (UPX)"


@pytest.fixture(scope="module")
def program() -> bytes:
    return toolchains.build("blockread", "1.27.3", "stripped").read_bytes()


@pytest.mark.go
def test_a_go_program_without_its_sections_is_not_said_to_be_none(program: bytes) -> None:
    assert why(without_sections(program)).startswith("a program without a table of sections")


@pytest.mark.go
def test_obfuscated_names_are_told(program: bytes) -> None:
    garbled = program.replace(b"\0runtime.", b"\0aXq1ime.")
    found = told(garbled)
    assert isinstance(found, GoBinary)
    assert found.version == "go1.27.3"
    assert found.probes == ()
    assert len(found.missing) <= 4  # not a line for each probe
    first = found.missing[0]
    assert first.what == "functions of the runtime"
    assert "obfuscated" in first.why
    assert {missing.mend for missing in found.missing} == {"build it without garble"}


@pytest.mark.go
@pytest.mark.parametrize(
    ("version", "model"), [("1.19.8", "psyscall"), ("1.25.5", "psyscall"), ("1.27.3", "prunning")]
)
def test_the_model_of_a_program_without_names_is_its_versions(version: str, model: str) -> None:
    whole = toolchains.build("blockread", version, "stripped").read_bytes()
    for part in (b"\0runtime.", b"\0runtime.exitsyscall"):
        found = told(whole.replace(part, b"\0aXq1ime." + part[9:]))
        assert isinstance(found, GoBinary)
        assert found.layout.model == model
    # With a version that is no release, neither tells: then no P is made up.
    unnamed = whole.replace(b"\0runtime.", b"\0aXq1ime.")
    unknown = f"go{version}".encode()
    later = told(unnamed.replace(unknown, unknown[:-2] + b"-x"))
    assert isinstance(later, GoBinary)
    assert later.layout.m_p == later.layout.m_oldp == -1
    assert "block and p" in [missing.what for missing in later.missing]


@pytest.mark.go
def test_a_version_that_is_not_told_is_told(program: bytes) -> None:
    at = program.index(b"\xff Go buildinf:")
    unknown = program[:at] + program[at:].replace(b"\x08go1.27.3", b"\x07unknown\0", 1)
    assert why(unknown) == "a Go program that does not tell its version, as garble makes them"


@pytest.mark.go
def test_a_library_of_go_is_told() -> None:
    # As the linker makes one of -buildmode=c-shared: no interpreter, no mark of a program.
    data = bytearray(toolchains.build("blockread", "1.27.3", "cgo-pie").read_bytes())
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for i in range(phnum):
        at = phoff + 56 * i
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", data, at)
        if kind == 3:
            struct.pack_into("<I", data, at, 4)
        if kind == 2:
            for row in range(offset, offset + size, 16):
                if struct.unpack_from("<Q", data, row)[0] == 0x6FFFFFFB:
                    struct.pack_into("<Q", data, row + 8, 0)
    found = told(bytes(data))
    assert isinstance(found, GoBinary)
    assert found.is_library
    assert found.layout.g_tls == -1
    assert "a Go library" in found.missing[0].why


def test_the_loader_is_told() -> None:
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    if not loader.exists():
        pytest.skip("another C library")
    assert why(loader.read_bytes()).startswith("the dynamic loader")


def test_gccgo_is_told(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "go.c").write_text("void go(void) {}\n")
    (tmp_path / "main.c").write_text("void go(void); int main(void) { go(); }\n")
    library = [compiler, "-shared", "-fPIC", "-Wl,-soname,libgo.so.22", "-o", "libgo.so", "go.c"]
    subprocess.run(library, cwd=tmp_path, check=True)
    link = [compiler, "-o", "main", "main.c", "-L.", "-lgo"]
    subprocess.run(link, cwd=tmp_path, check=True)
    assert why((tmp_path / "main").read_bytes()) == "a Go program built by gccgo"
    static = made_elf(
        {
            ".symtab": bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x400000, 1),
            ".strtab": b"\0__go_init_main\0",
        }
    )
    assert why(static) == "a Go program built by gccgo"
