"""Programs whose files hurt their readers, among others that are captured all the same."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from analysis import load
from tests.go import toolchains
from tests.unit.targets.damage import laid_open
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

READS = "60"


def changed(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def test_a_capture_goes_on_where_a_program_cannot_be_read(tmp_path: Path) -> None:
    static = toolchains.build("blockread", "1.27.3", "static")
    data = static.read_bytes()
    # The kernel runs all of them: it reads segments only, and Go never reads its own DWARF.
    sections = bytearray(data)
    struct.pack_into("<H", sections, 60, 0xFFFF)
    no_sections = changed(tmp_path / "sections", bytes(sections))
    opened = laid_open(static)
    at = opened.sections[".debug_abbrev"][0]
    abbreviations = bytearray(opened.data)
    abbreviations[at : at + 64] = b"\xff" * 64
    no_dwarf = changed(tmp_path / "dwarf", bytes(abbreviations))
    # Another version, so that what is told of one is not told of both.
    whole = tmp_path / "whole"
    shutil.copy(toolchains.build("blockread", "1.25.5", "static"), whole)

    output = tmp_path / "t"
    # Each twice: the second process of a binary is in reach from its exec, on any machine.
    programs = (no_sections, no_dwarf, whole) * 2
    script = "; ".join(f"{program} {READS}" for program in programs)
    record(["sh", "-c", script], output=output, options=CaptureOptions())
    trace = load(output)
    assert trace.manifest.exit_status == 0
    assert trace.manifest.complete
    why = [missing.why for missing in trace.manifest.missing]
    assert any("no whole ELF file" in line for line in why)
    assert all("\n" not in line for line in why)
    tasks, blocks = trace.frame("task"), trace.frame("block")
    held = {
        comm: blocks["tid"].isin(set(tasks.loc[tasks["comm"] == comm, "tid"])).sum()
        for comm in ("sections", "dwarf", "whole")
    }
    assert held["sections"] == 0
    assert held["dwarf"] > 0
    assert held["whole"] > 0
