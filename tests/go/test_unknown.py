"""Programs whose runtime cannot be read: what needs no offsets is captured, the rest is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis import load
from analysis.loaded import LoadedTrace
from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

READS = 100
NR_READ = 0


def loaded(output: Path, *command: str) -> LoadedTrace:
    record(command, output=output, options=CaptureOptions(probes="exact"))
    return load(output)


@pytest.mark.parametrize(("version", "says"), [("1.25.5", "go1.99.9"), ("1.27.3", "go1.18.9")])
def test_a_version_that_is_in_no_table_and_has_no_debug_information(
    version: str, says: str, tmp_path: Path
) -> None:
    binary = tmp_path / "later"
    shutil.copy(toolchains.build("blockread", version, "stripped"), binary)
    text = binary.read_bytes()
    later = says.encode().ljust(len(version) + 2)[: len(version) + 2]
    assert text.count(f"go{version}".encode()) >= 1
    binary.write_bytes(text.replace(f"go{version}".encode(), later))

    trace = loaded(tmp_path / "t", str(binary), str(READS))
    assert trace.manifest.exit_status == 0
    assert (trace.manifest.target.runtime, trace.manifest.target.version) == ("go", says)
    lacks = {missing.what: missing.why for missing in trace.manifest.missing}
    assert f"no row for {says}" in lacks["block, and p, m and goid of runtime"]
    # No P is made up, and nobody is told that none was held.
    assert len(trace.frame("block")) == 0
    assert not trace.summary()["p_known"]
    runtime = trace.frame("runtime")
    assert runtime[["p", "m", "goid", "npidle", "global_runq"]].isna().all(axis=None)
    # Retakes, calls and switches are there.
    assert (runtime["kind"] == "retake").sum() > 2
    calls = trace.frame("syscall")
    # A read whose timer was due before the thread came to it does not block: few of them.
    assert ((calls["nr"] == NR_READ) & (calls["blocks"] > 0)).sum() > READS * 0.8
    assert len(trace.frame("sched_switch")) > READS * 0.8


def test_a_program_without_a_runtime(tmp_path: Path) -> None:
    trace = loaded(tmp_path / "t", "sh", "-c", "read -r line < /dev/null; exit 0")
    assert trace.manifest.target.runtime == "none"
    assert [missing.what for missing in trace.manifest.missing] == ["P, M and G"]
    assert not trace.summary()["p_known"]
    assert len(trace.frame("sched_switch")) > 0
