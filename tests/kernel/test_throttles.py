"""A CPU quota of a real cgroup: what it took is told, of whom it took it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.capture.throttles import _hierarchy, _throttled_ns
from tracer.trace.reader import Trace

PERIODS = 20
# Computes until the quota has ended so many periods.
BUSY = f"""
def throttled():
    return int(dict(line.split() for line in open({{stat!r}}))["nr_throttled"])
while throttled() < {PERIODS}:
    sum(range(20_000))
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup that may use a fifth of a CPU."""
    mount, controller = _hierarchy(Path("/proc"))
    assert mount is not None
    folder = mount / f"pretake-test-{os.getpid()}"
    if controller == "":
        (mount / "cgroup.subtree_control").write_text("+cpu")
    folder.mkdir()
    try:
        if controller == "":
            (folder / "cpu.max").write_text("20000 100000")
        else:
            (folder / "cpu.cfs_period_us").write_text("100000")
            (folder / "cpu.cfs_quota_us").write_text("20000")
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def test_what_a_quota_took_is_told_of_who_was_under_it(tmp_path: Path, group: Path) -> None:
    script = BUSY.format(stat=str(group / "cpu.stat"))
    inside = f'echo $$ > {group}/cgroup.procs; exec {sys.executable} -I -S -c "$0"'
    # One beside it that no quota holds.
    shell = (
        f"{sys.executable} -I -S -c 'input()' < /dev/null 2> /dev/null; sh -c '{inside}' \"$0\""
    )
    record(["sh", "-c", shell, script], output=tmp_path / "t", options=CaptureOptions())
    trace = Trace(tmp_path / "t")
    assert trace.manifest.exit_status == 0
    rows = trace.frame("throttle")
    took = rows[rows["throttled_ns"] > 0]
    assert set(took["cgroup"]) == {f"/{group.name}"}
    (pid,) = set(took["pid"])
    tasks = trace.frame("task")
    became = tasks[(tasks["pid"] == pid) & (tasks["kind"] == "exec")]
    assert len(became) > 0
    # The kernel counts from the first period on; the last one's end nobody asked for.
    all_ns = _throttled_ns(group / "cpu.stat")
    assert all_ns is not None
    told = int(took["throttled_ns"].sum())
    assert all_ns // 2 <= told <= all_ns
    ordered = rows[rows["pid"] == pid].sort_values("begin_ns")
    assert (ordered["begin_ns"].to_numpy()[1:] == ordered["end_ns"].to_numpy()[:-1]).all()
