"""A P that is given to an M that is about to park, and is on its CPU still: nobody is woken."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.go.capture import capture
from tracer.kernel.bcc_loader import kernel_source, load_bcc

RUNS = 10
"""Where other programs want the CPUs, sysmon may come too late for most of the Ms that wait."""


@pytest.fixture
def parking_is_slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An M of ``blockread`` does not sleep before another one was to wake it."""
    bcc = load_bcc()
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(kernel_source()))
    programs = bcc.BPF(src_file=bytes(Path(__file__).with_name("parking.bpf.c")))
    again = programs.load_func(b"keep_on", bcc.BPF.RAW_TRACEPOINT)
    programs[b"again"][ctypes.c_int(0)] = ctypes.c_int(again.fd)
    programs.attach_raw_tracepoint(b"sys_enter", b"enter_call")
    yield
    programs.cleanup()


@pytest.mark.parametrize("version", ["1.25.5", "1.27.3"])
@pytest.mark.usefixtures("parking_is_slow", "ahead_of_others")
def test_sysmon_took_it(version: str, tmp_path: Path) -> None:
    without_wake = 0
    for run in range(RUNS):
        trace = capture(tmp_path / f"{run}", "blockread", ["60"], version=version, probes="none")
        runtime = trace.frame("runtime")
        retakes = runtime[runtime["kind"] == "retake"]
        # One P, and the other goroutine never blocks: so nobody else can have taken it.
        assert set(retakes["reason"]) == {"sysmon"}
        assert retakes["tid"].nunique() == 1
        assert set(retakes["tid"]).isdisjoint(trace.frame("block")["tid"])
        # The scene: P went to an M that was on its CPU, which docs/limits.md tells of.
        without_wake += max(len(retakes) - (runtime["kind"] == "acquirep").sum(), 0)
        if without_wake > 10:
            return
    pytest.fail(f"P was given to an M that was about to park {without_wake} times only")
