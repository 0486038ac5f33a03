"""A command with and without a capture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tracer.capture.options import CaptureOptions
from tracer.capture.overhead import Overhead, measure_overhead


def test_pairs_alternate_and_all_runs_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", f"echo x >> {log}"]
    told = measure_overhead(command, CaptureOptions(runtime="none"), pairs=2)
    assert log.read_text() == "x\n" * 4
    assert len(told.untraced_s) == len(told.traced_s) == 2
    assert min(*told.untraced_s, *told.traced_s) > 0


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    told = Overhead(untraced_s=(1.0, 2.0, 4.0), traced_s=(1.5, 2.2, 4.0))
    assert told.ratios == [1.0, 1.1, 1.5]
    assert told.ratio == 1.1


def test_the_command_line() -> None:
    pretake = [sys.executable, "-m", "pretake", "record", "--measure-overhead", "1"]
    done = subprocess.run([*pretake, "--", "true"], capture_output=True, text=True, check=True)
    assert " times as long under a capture (" in done.stdout
    assert "in 1 pairs" in done.stdout
