"""Programs of real Go toolchains for arm64, read on any machine: nothing of them runs here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.conftest import BOTH_MODELS
from tests.go import toolchains
from tests.unit.targets.damage import laid_open
from tracer.arch import ARM64
from tracer.capture.doctor import of_binary
from tracer.targets import go, jail
from tracer.targets.elf import Elf
from tracer.targets.find import look_at
from tracer.targets.go import GO_FIELDS, GoBinary, measure_offsets
from tracer.targets.go_data import all_ps_address, scheduler_address, syscalltick_offset
from tracer.targets.go_offsets import shipped_offsets
from tracer.targets.pclntab import Pclntab
from tracer.trace.unknown import UNKNOWN

pytestmark = pytest.mark.go

VERSIONS = [
    pytest.param(version, marks=() if version in BOTH_MODELS else pytest.mark.every)
    for version in ("1.19.8", *BOTH_MODELS)
]


@pytest.mark.parametrize("linkage", ["arm64", "arm64-pie"])
@pytest.mark.parametrize("version", VERSIONS)
def test_code_tells_what_symbols_tell(version: str, linkage: str) -> None:
    with Elf(toolchains.build("sleeps", version, linkage)) as elf:
        table, found = Pclntab(elf), go.look(elf, deep=True)
        assert elf.arch is ARM64
        assert isinstance(found, GoBinary)
        assert (found.version, found.offsets_from) == (f"go{version}", "dwarf")
        assert not found.missing
        offsets = measure_offsets(elf)
        assert set(offsets) == set(GO_FIELDS)
        assert offsets == shipped_offsets("arm64")[f"go{version}"]
        sched, allp = elf.symbol("runtime.sched"), elf.symbol("runtime.allp")
        assert (found.layout.sched, found.layout.allp) == (sched, allp)
        assert scheduler_address(elf, table, offsets["sched_lock"]) == sched
        assert all_ps_address(elf, table) == allp
        tick = syscalltick_offset(elf, table, offsets["p_syscalltick"])
        assert tick == offsets["m_syscalltick"]


def stripped(program: Path, to: Path) -> Path:
    """What strip(1) leaves (it knows this machine's programs only): no symbols, no DWARF."""
    data = bytearray(program.read_bytes())
    opened = laid_open(program)
    for name, at in opened.section_headers.items():
        if name in (".symtab", ".strtab") or name.startswith(".debug_"):
            data[at + 4 : at + 8] = bytes(4)  # sh_type: none
    to.write_bytes(data)
    return to


@pytest.mark.parametrize("linkage", ["arm64", "arm64-pie"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_stripped_one_is_read_all_the_same(version: str, linkage: str, tmp_path: Path) -> None:
    program = toolchains.build("sleeps", version, linkage)
    whole = go.inspect(program)
    with Elf(stripped(program, tmp_path / "stripped")) as elf:
        assert not elf.has_symbols
        found = go.look(elf, deep=True)
    assert isinstance(found, GoBinary)
    assert isinstance(whole, GoBinary)
    assert not found.missing
    assert found.offsets_from == f"go{version}"
    assert found.layout == whole.layout
    assert [probe.file_offset for probe in found.probes] == [p.file_offset for p in whole.probes]
    # On a function's first branch, with its arguments and return address as they came.
    assert sum(not probe.emulated for probe in found.probes) <= 1


@pytest.mark.parametrize("linkage", ["arm64-no-symbols", "arm64-no-symbols-pie"])
def test_one_without_symbols_from_the_start(linkage: str) -> None:
    found = go.inspect(toolchains.build("sleeps", BOTH_MODELS[-1], linkage))
    assert isinstance(found, GoBinary)
    assert not found.has_symbols
    assert not found.missing
    assert UNKNOWN not in (found.layout.sched, found.layout.allp)


def test_where_a_call_returns_to_has_a_function_and_a_line() -> None:
    """Tables of code count in instructions of 4 bytes."""
    path = toolchains.build("sleeps", BOTH_MODELS[-1], "arm64")
    with Elf(path) as elf:
        table = Pclntab(elf)
        main, sleep = table.function("main.main"), table.function("syscall.Nanosleep")
        assert main is not None
        assert sleep is not None
        (call,) = table.calls(main, sleep)
        source = table.source_at(call)
        assert source is not None
        file, line = source
        text = (Path(toolchains.__file__).parent / "sleeps" / "main.go").read_text()
        assert file.endswith("sleeps/main.go")
        assert "syscall.Nanosleep(" in text.splitlines()[line - 1]
        assert table.safe_point(call) == "safe"
        entry = table.function("runtime.entersyscall")
        assert entry is not None
        assert table.safe_point(entry.begin) == "runtime"


def test_the_jail_reads_one() -> None:
    path = toolchains.build("sleeps", BOTH_MODELS[-1], "arm64-no-symbols")
    fd = os.open(path, os.O_RDONLY)
    try:
        jailed = jail.look(fd, path, deep=True)
    finally:
        os.close(fd)
    assert jailed == go.inspect(path)
    assert look_at(path) == jailed


@pytest.mark.skipif(platform.machine() == "aarch64", reason="it runs there")
def test_doctor_says_where_it_runs() -> None:
    (check,) = of_binary(toolchains.build("sleeps", BOTH_MODELS[-1], "arm64"))
    assert (check.ok, check.needed) == (False, False)
    told = f"go{BOTH_MODELS[-1]}, for aarch64: nothing of it runs on {platform.machine()}"
    assert (check.detail, check.mend) == (told, "capture it on aarch64")
