"""The compiled wheels: where each says that it runs, and a run by each Python that there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from packaging.utils import parse_wheel_filename

from tests.forced import lacking
from tests.wheel.installed import ROOT, Run, environment, installed_in, open_to_all, pip
from tools.cross import PYTHON
from tools.pythons import VERSIONS, pythons
from tools.wheels import MACHINES

_FORCE: Final = "PRETAKE_FORCE_PYTHONS"
_ELF_NAMES: Final = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
_WITNESS: Final = re.compile(r'the following platform tag:\s+"(\w+)"')
DEPENDENCIES_ASK_FOR: Final = (2, 28)
"""Of glibc: what Arrow's wheels do."""
READS: Final = 23
"""That block, of the workload ``prime``."""
NATIVE, FOREIGN = MACHINES
EACH: Final = [*((version, NATIVE) for version in VERSIONS), (PYTHON, FOREIGN)]


def wheel_for(compiled: list[Path], version: str, machine: str) -> Path:
    """The wheel for a Python and an architecture; the test is skipped where no wheel is for it."""
    tag = f"cp{version.replace('.', '')}"
    found = [
        path for path in compiled if path.name.split("-")[2] == tag and path.stem.endswith(machine)
    ]
    if not found:
        lacking(f"there is no wheel for Python {version} on {machine}", _FORCE)
    [wheel] = found
    return wheel


def libraries(wheel: Path) -> Iterator[tuple[str, ELFFile]]:
    with zipfile.ZipFile(wheel) as members:
        for name in members.namelist():
            if name.endswith(".so"):
                yield name, ELFFile(BytesIO(members.read(name)))


def needed_of_glibc(library: ELFFile) -> Iterator[tuple[int, ...]]:
    """The versions of the C library's symbols that a library needs."""
    for section in library.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                for version in versions:
                    if version.name.startswith("GLIBC_"):
                        yield tuple(map(int, version.name.removeprefix("GLIBC_").split(".")))


@pytest.mark.parametrize(("version", "machine"), EACH)
def test_the_tag_is_what_the_symbols_allow(
    compiled: list[Path], version: str, machine: str
) -> None:
    wheel = wheel_for(compiled, version, machine)
    _, _, _, tags = parse_wheel_filename(wheel.name)
    told = {tag.platform for tag in tags}
    newest = max(of for _, library in libraries(wheel) for of in needed_of_glibc(library))
    asked = [re.fullmatch(rf"manylinux_2_(\d+)_{machine}", name) for name in told]
    least = [(2, int(match[1])) for match in asked if match]
    assert least, told
    assert newest <= min(least), (newest, told)
    # Where the packages run that it depends on, it does.
    assert min(least) <= DEPENDENCIES_ASK_FOR
    shown = subprocess.check_output(
        [sys.executable, "-m", "auditwheel", "show", str(wheel)],
        text=True,
        env={"PATH": sysconfig.get_path("scripts")},
    )
    witness = _WITNESS.search(" ".join(shown.split()))
    assert witness is not None, shown
    assert witness[1] == f"manylinux_2_{min(least)[1]}_{machine}"


@pytest.mark.parametrize(("version", "machine"), EACH)
def test_every_module_is_there_for_the_architecture(
    compiled: list[Path], version: str, machine: str
) -> None:
    wheel = wheel_for(compiled, version, machine)
    reference = wheel_for(compiled, PYTHON, NATIVE)
    suffix = f".cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"
    wanted = {name.partition(".")[0] for name, _ in libraries(reference)}
    assert "reference_runtime/_native" in wanted
    assert "reference_runtime__mypyc" in wanted
    found = dict(libraries(wheel))
    assert set(found) == {name + suffix for name in wanted}
    for name, library in found.items():
        assert library["e_machine"] == _ELF_NAMES[machine], name
        for section in library.iter_sections():
            if isinstance(section, DynamicSection):
                # Else it looks for libraries in folders of the machine that built it.
                tags = {tag.entry.d_tag for tag in section.iter_tags()}
                assert not tags & {"DT_RPATH", "DT_RUNPATH"}, name


@pytest.fixture(scope="module", params=VERSIONS)
def installed(
    request: pytest.FixtureRequest, compiled: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, str]:
    """What runs the wheel for a Python, and its command's path. pip chose the wheel."""
    wheel = wheel_for(compiled, request.param, NATIVE)
    found = pythons()
    if request.param not in found:
        lacking(f"there is no Python {request.param}", _FORCE)
    folder = tmp_path_factory.mktemp(f"python{request.param}")
    open_to_all(folder)
    python = environment(found[request.param], folder / "venv")
    asked = f"pretake=={parse_wheel_filename(wheel.name)[1]}"
    pinned = ["--only-binary=:all:", "-c", ROOT / "constraints.txt"]
    pip(python, *pinned, "--find-links", wheel.parent, asked)
    return installed_in(folder / "venv", folder / "empty"), str(folder / "venv/bin/pretake")


@pytest.mark.timeout(900)
def test_a_capture_counts_the_retakes_that_the_runtime_counted(installed: tuple[Run, str]) -> None:
    run, command = installed
    assert run("--version").split(", ")[-1].strip() == "reference runtime compiled"
    prime = ("run", "prime", "--json")
    assert json.loads(run(*prime))["compiled"]
    told = json.loads(run("record", "-q", "-o", "prime.pretake", "--", command, *prime))
    summary = json.loads(run("summary", "--json", "prime.pretake"))
    # The workload's blocking reads, and what else blocked.
    assert summary["retakes"]["sysmon"] == told["runtime"]["retakes"] >= READS
    run("check", "prime.pretake")
    run("report", "prime.pretake", "-o", "prime.html")
