"""Which runtime a file or a process has."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

import reference_runtime
from tracer.errors import PretakeError
from tracer.targets import reference, runtime_of, runtimes_of_process
from tracer.targets.find import load_bias
from tracer.targets.go import GO_FIELDS
from tracer.targets.go_offsets import shipped_offsets
from tracer.targets.layout import RuntimeLayout

needs_compiled = pytest.mark.skipif(
    not reference_runtime.COMPILED, reason="an interpreted runtime has no symbols"
)


def test_other_programs_have_no_runtime(tmp_path: Path) -> None:
    assert runtime_of(Path("/bin/sh")) is None
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert runtime_of(script) is None
    (tmp_path / "short").write_bytes(b"\x7fELF\x02\x01")
    assert runtime_of(tmp_path / "short") is None


def test_an_elf_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(Path("/bin/sh").read_bytes()[:64])
    with pytest.raises(PretakeError, match="no whole ELF file"):
        runtime_of(cut)


def test_no_such_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PretakeError, match="No such file"):
        runtime_of(tmp_path / "none")


@needs_compiled
def test_the_reference_runtimes_offsets_are_those_of_its_objects() -> None:
    from reference_runtime.gmp import NO_P, P
    from reference_runtime.host import Lock

    library = reference.find()
    assert library is not None
    found = runtime_of(library)
    assert found is not None
    assert found.missing == ()
    assert {probe.handler for probe in found.probes} == {
        "reference_mstart",
        "reference_transition",
    }
    layout = found.layout

    def number(of: object, offset: int) -> int:
        return ctypes.c_int64.from_address(id(of) + offset).value

    p = P(7, 4, Lock())
    p.runqhead, p.runqtail = 11, 13
    assert number(p, layout.p_id) == 7
    assert number(p, layout.p_runqhead) == 11
    assert number(p, layout.p_runqtail) == 13
    assert number(NO_P, layout.p_id) == -1


@needs_compiled
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may open what another has mapped")
def test_the_reference_runtime_is_found_in_a_process() -> None:
    found = runtimes_of_process(os.getpid())
    assert [runtime.runtime for runtime in found] == ["reference"]


def test_a_process_that_is_gone_is_told() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(PretakeError):
        runtimes_of_process(pid)


def test_a_process_without_a_program_in_memory_has_no_bias() -> None:
    """As one that is in the middle of its exec, or has ended and was not waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(ProcessLookupError):
            load_bias(pid, 0x1000)
    finally:
        os.waitpid(pid, 0)
    own = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert load_bias(os.getpid(), 0x1000) == int(own[23]) - 0x1000


def test_every_shipped_row_has_every_offset() -> None:
    rows = shipped_offsets()
    series = {version.rpartition(".")[0] for version in rows}
    assert {"go1.19", "go1.21", "go1.22", "go1.24", "go1.25", "go1.26", "go1.27"} <= series
    for version, offsets in rows.items():
        assert set(offsets) == set(GO_FIELDS), version
        RuntimeLayout().with_offsets(offsets).pack()
