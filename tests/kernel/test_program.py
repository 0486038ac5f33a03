"""The programs in the kernel: what is kept of them, and what a machine is told it lacks."""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.capture.doctor import MODES, diagnose
from tracer.capture.options import CaptureOptions
from tracer.capture.programs import Programs
from tracer.capture.record import record
from tracer.errors import PretakeError
from tracer.kernel import bpf, compiler, features, fitting, kept
from tracer.kernel.bpf import LoadError
from tracer.kernel.compiler import RING_TABLES
from tracer.kernel.object import Object
from tracer.kernel.table_rings import RingSizes
from tracer.trace.schema import TABLES

# Those that ask the doctor may be the first to compile the programs of every mode.
_COMPILES = pytest.mark.timeout(1200)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache in place of the machine's."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(kept, "cache_folder", lambda: folder)
    monkeypatch.setenv(fitting.FORCE, "compiled")
    return folder


def no_compiler(*_: object) -> Object:
    raise AssertionError("compiled once more")


@pytest.mark.usefixtures("cache")
def test_programs_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitting.fitted_programs({})
    monkeypatch.setattr(compiler, "_compile", no_compiler)
    assert fitting.fitted_programs({}) == first
    # An option is a constant of the programs that there are.
    assert fitting.fitted_programs({"ALL_SIGNALS": 1}) != first
    with pytest.raises(AssertionError, match="compiled once more"):
        fitting.fitted_programs({"LIVE": 1})


@pytest.mark.parametrize("fault", ["damaged", "writable", "a link", "in a writable folder"])
def test_what_is_kept_is_used_only_if_it_is_whole_and_root_s_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # Without a trial of the kernel's flag: the programs alone are kept.
    asked = {"CALLS_EXACT": 1}
    fitting.fitted_programs(asked)
    [file] = cache.iterdir()
    if fault == "damaged":
        file.write_text(file.read_text()[:1000])
    elif fault == "writable":
        file.chmod(0o666)
    elif fault == "a link":
        shutil.move(file, cache.parent / "elsewhere")
        file.symlink_to(cache.parent / "elsewhere")
    else:
        cache.chmod(0o777)
    monkeypatch.setattr(compiler, "_compile", no_compiler)
    with pytest.raises(AssertionError, match="compiled once more"):
        fitting.fitted_programs(asked)


def power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


@pytest.mark.parametrize("cpus", [1, 2, 128])
def test_rings_grow_with_the_cpus(cpus: int) -> None:
    sizes = RingSizes(1 << 20, range(cpus), cpus)
    used = 0
    for table in RING_TABLES:
        slots = sizes.slots(table)
        assert len(slots) == cpus
        assert len(set(slots)) == 1
        assert power_of_two(slots[0])
        # A CPU's is as long as on a machine that has one CPU.
        assert slots == RingSizes(1 << 20, [0], 1).slots(table) * cpus
        assert power_of_two(sizes.ring_bytes(table))
        used += slots[0] * table.dtype.itemsize
    assert 1 << 18 < used <= 1 << 20


def test_a_ring_has_a_slot_however_small_the_buffer() -> None:
    sizes = RingSizes(1, [0, 1], 2)
    assert {tuple(sizes.slots(table)) for table in RING_TABLES} == {(1, 1)}
    assert {sizes.ring_bytes(table) for table in RING_TABLES} == {mmap.PAGESIZE}


def test_the_rings_of_1024_cpus_are_such_as_the_kernel_makes() -> None:
    sizes = RingSizes(32 << 20, range(1024), 1024)
    # The number of entries, which of a ring buffer is its bytes, has 32 bits.
    assert max(sizes.ring_bytes(table) for table in RING_TABLES) == 2 << 30
    assert max(sizes.entries().values()) < 1 << 32


def test_a_cpu_that_comes_later_has_slots() -> None:
    table = TABLES["block"]
    # As many as the others, where few may come.
    assert len(set(RingSizes(8 << 20, [0, 2], 4).slots(table))) == 1
    # Where many may come that never do, they take little memory.
    slots = RingSizes(8 << 20, [0, 1], 240).slots(table)
    assert slots[0] == slots[1] > slots[2] == slots[239] >= 512
    assert sum(slots[2:]) * table.dtype.itemsize <= 64 << 20


def test_a_buffer_that_is_too_large_is_told() -> None:
    with pytest.raises(PretakeError, match="take a smaller buffer"):
        Programs(1 << 50)


def test_threads_beyond_the_limit_are_counted_and_told(tmp_path: Path) -> None:
    programs = Path(__file__).parent / "programs"
    command = [sys.executable, "-I", "-S", str(programs / "gated.py"), "6"]
    options = CaptureOptions(runtime="none", max_threads=4)
    path = record(
        ["sh", "-c", 'exec "$@" < /dev/null', "sh", *command],
        output=tmp_path / "x.pretake",
        options=options,
    )
    missing = (path / "manifest.json").read_text()
    assert "more than 4 lived at one time" in missing


@_COMPILES
def test_doctor_finds_this_machine_able() -> None:
    checks = {check.name: check for check in diagnose()}
    assert [check for check in checks.values() if check.needed and not check.ok] == []
    for mode in MODES:
        assert "attached" in checks[f"pretake {mode}"].detail
    assert checks["parser of programs"].detail == "works, as nobody under seccomp"


@_COMPILES
def test_a_refused_program_is_told_with_something_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object) -> int:
        raise LoadError("log\nprocessed 1000001 insns")

    monkeypatch.setattr(bpf, "load_program", refuse)
    monkeypatch.setattr(features, "lacking", list)
    checks = {check.name: check for check in diagnose()}
    for mode, (_, needed) in MODES.items():
        check = checks[f"pretake {mode}"]
        assert not check.ok
        assert check.needed is needed
        assert "the kernel refuses the program" in check.detail
        assert "processed 1000001 insns" in check.detail
        assert "doctor" not in check.mend
        assert "run a kernel that was tried" in check.mend


@_COMPILES
def test_a_kernel_without_a_feature_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Linux 5.10, by its words: it knows no task storage, and no such helper.
    def load(name: str, kind: int, code: bytes, attach: int, place: int) -> int:
        if struct.pack("<BBhi", 0x85, 0, 0, 175) in code:
            raise LoadError("invalid func unknown#175")
        return load_program(name, kind, code, attach, place)

    def no_storage(_name: str, _value: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    load_program = bpf.load_program
    monkeypatch.setattr(bpf, "load_program", load)
    monkeypatch.setattr(bpf, "create_task_storage", no_storage)
    assert features.lacking() == ["task storage for tracing programs", "bpf_task_pt_regs"]
    with pytest.raises(PretakeError, match=r"has no task storage .*, no bpf_task_pt"):
        Programs(1 << 20)
    check = next(check for check in diagnose() if check.name == "BPF features")
    assert (check.ok, check.needed, check.mend) == (False, True, features.MEND)


@_COMPILES
def test_doctor_looks_at_a_binary() -> None:
    checks = diagnose(Path("/bin/sh"))
    assert checks[-1].name == "/bin/sh"
    assert not checks[-1].ok
    assert not checks[-1].needed


def test_without_capabilities_a_capture_is_refused(tmp_path: Path) -> None:
    program = (
        "from tracer.capture.record import record\n"
        "from tracer.errors import PretakeError\n"
        "try:\n"
        f"    record(['true'], output={str(tmp_path / 'x.pretake')!r})\n"
        "except PretakeError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        ["setpriv", "--bounding-set=-all", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == ("capture needs root, or CAP_BPF and CAP_PERFMON: run it with sudo\n")
    assert list(tmp_path.iterdir()) == []


def test_under_sudo_a_trace_belongs_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "4321")
    path = record(["true"], output=tmp_path / "x.pretake")
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (path, *path.rglob("*"))}
    assert owners == {(1234, 4321)}
