"""What the machine did, read from a /proc of files made by hand."""

from __future__ import annotations

from pathlib import Path

from tracer.capture.machine import MachineWatch
from tracer.trace.manifest import Machine, Manifest, manifest_from_json


def proc(folder: Path, times: str, load: str) -> None:
    (folder / "stat").write_text(f"cpu  {times}\ncpu0 9 9 9 9 9 9 9 9 9 9\n")
    (folder / "loadavg").write_text(f"{load} 1.0 0.5 1/100 7\n")
    (folder / "cpuinfo").write_text("cpu MHz\t\t: 2000.0\nx : 1\ncpu MHz\t\t: 3000.0\n")


def test_shares_are_of_the_time_in_between(tmp_path: Path) -> None:
    """Of 100 ticks 30 are idle, 10 wait for a disk and 5 are stolen; the guest's are in user's."""
    proc(tmp_path, "100 0 50 800 20 0 0 10 100 0", "1.25")
    watch = MachineWatch(tmp_path)
    proc(tmp_path, "145 0 58 830 30 1 1 15 145 0", "2.50")
    assert watch.finish() == Machine(1.25, 2.5, 0.6, 0.05, 2500.0)


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert MachineWatch(tmp_path).finish() == Machine()
    (tmp_path / "stat").write_text("cpu 1 2\n")
    (tmp_path / "loadavg").write_text("high\n")
    assert MachineWatch(tmp_path).finish() == Machine()


def test_it_is_in_the_manifest() -> None:
    told = Manifest(machine=Machine(1.0, 2.0, 0.5, 0.0, None))
    assert manifest_from_json(told.to_json(), "t").machine == told.machine
