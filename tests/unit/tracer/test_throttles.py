"""What quotas took, from a /proc and a cgroup hierarchy made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tracer.capture.throttles import PERIOD_NS, Throttles
from tracer.trace.schema import TABLES

TASK = TABLES["task"]
MS = 1_000_000


class Machine:
    """Processes in cgroups, below a folder."""

    def __init__(self, folder: Path, version: int) -> None:
        self.proc, self.mount, self.version = folder / "proc", folder / "cgroup", version
        (self.proc / "self").mkdir(parents=True)
        kind = f"cgroup none rw,{'cpu'}" if version == 1 else "cgroup2 none rw"
        mounts = f"20 1 0:1 / /other rw - tmpfs none rw\n30 1 0:2 / {self.mount} rw - {kind}\n"
        (self.proc / "self/mountinfo").write_text(mounts)

    def put(self, pid: int, path: str) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        lines = (
            f"4:memory:/elsewhere\n3:cpu,cpuacct:{path}\n" if self.version == 1 else f"0::{path}\n"
        )
        (self.proc / str(pid) / "cgroup").write_text(lines)

    def took(self, path: str, ms: int) -> None:
        folder = self.mount / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        told = f"throttled_time {ms * MS}" if self.version == 1 else f"throttled_usec {ms * 1000}"
        (folder / "cpu.stat").write_text(f"usage_usec 5\nnr_throttled 3\n{told}\n")


def tasks(*rows: tuple[str, int, int]) -> np.ndarray:
    records = np.zeros(len(rows), TASK.dtype)
    for record, (kind, tid, pid) in zip(records, rows, strict=True):
        record["kind"], record["tid"], record["pid"] = TASK.column("kind").code(kind), tid, pid
    return records


@pytest.mark.parametrize("version", [1, 2])
def test_the_cgroup_that_took_most_is_told(tmp_path: Path, version: int) -> None:
    """Its own took 30 of a period, the one above it 50 (of which others have some)."""
    machine = Machine(tmp_path, version)
    machine.put(7, "/pods/one")
    for path, ms in (("/pods/one", 100), ("/pods", 400)):
        machine.took(path, ms)
    throttles = Throttles(machine.proc)
    throttles.on_tasks(tasks(("exec", 7, 7), ("fork", 8, 7)))
    throttles.step(0)
    machine.took("/pods/one", 130)
    machine.took("/pods", 450)
    throttles.step(PERIOD_NS - 1)  # not yet
    throttles.step(PERIOD_NS)
    machine.took("/pods/one", 190)
    assert throttles.table(2 * PERIOD_NS).to_pylist() == [
        {"begin_ns": 0, "end_ns": PERIOD_NS, "throttled_ns": 50 * MS, "cgroup": "/pods", "pid": 7},
        {
            "begin_ns": PERIOD_NS,
            "end_ns": 2 * PERIOD_NS,
            "throttled_ns": 60 * MS,
            "cgroup": "/pods/one",
            "pid": 7,
        },
    ]


def test_what_a_cgroup_took_before_a_process_came_is_not_its(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    machine.put(7, "/a")
    machine.took("/a", 5)
    machine.took("/b", 900)
    throttles = Throttles(machine.proc)
    throttles.on_tasks(tasks(("present", 7, 7)))
    throttles.step(0)
    machine.put(7, "/b")
    throttles.step(PERIOD_NS)
    machine.took("/b", 910)
    rows = throttles.table(2 * PERIOD_NS).to_pylist()
    assert [(row["cgroup"], row["throttled_ns"]) for row in rows] == [("/b", 0), ("/b", 10 * MS)]


def test_no_row_where_nothing_could_be_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    throttles = Throttles(machine.proc)
    throttles.on_tasks(tasks(("exec", 7, 7), ("exec", 8, 8), ("exec", 9, 9)))
    # 7 has ended, 8 is beside the root of this namespace, 9 is in a cgroup that counts nothing.
    machine.put(8, "/../other")
    machine.put(9, "/plain")
    throttles.step(0)
    assert throttles.table(PERIOD_NS).num_rows == 0
    (tmp_path / "none").mkdir()
    nowhere = Throttles(tmp_path / "none")
    nowhere.on_tasks(tasks(("exec", 7, 7)))
    assert nowhere.table(PERIOD_NS).num_rows == 0


def test_who_ended_is_not_asked_any_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    machine.put(7, "/a")
    machine.took("/a", 5)
    throttles = Throttles(machine.proc)
    throttles.on_tasks(tasks(("exec", 7, 7)))
    throttles.step(0)
    throttles.on_tasks(tasks(("exit", 9, 7)))
    throttles.step(PERIOD_NS)
    throttles.on_tasks(tasks(("exit", 7, 7)))
    # Its number is another's by now.
    assert throttles.table(2 * PERIOD_NS).num_rows == 1


def test_periods_in_which_nothing_is_taken_are_one_row(tmp_path: Path) -> None:
    """Asked at 0, 1, 2, 3, 4 and 5 periods; 20 ms are taken in the third."""
    machine = Machine(tmp_path, 2)
    machine.put(7, "/a")
    machine.took("/a", 5)
    throttles = Throttles(machine.proc)
    throttles.on_tasks(tasks(("exec", 7, 7)))
    for period in range(5):
        if period == 3:
            machine.took("/a", 25)
        throttles.step(period * PERIOD_NS)
    told = throttles.table(5 * PERIOD_NS).to_pylist()
    spans = [(r["begin_ns"], r["end_ns"], r["throttled_ns"]) for r in told]
    assert spans == [
        (0, 2 * PERIOD_NS, 0),
        (2 * PERIOD_NS, 3 * PERIOD_NS, 20 * MS),
        (3 * PERIOD_NS, 5 * PERIOD_NS, 0),
    ]
    # What was taken away is not made longer afterwards.
    throttles.step(6 * PERIOD_NS)
    assert len(throttles) == 1


def test_a_quota_that_takes_nothing_is_told_now_and_then_and_one_that_does_at_once(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path, 2)
    machine.put(7, "/a")
    machine.took("/a", 100)
    throttles = Throttles(machine.proc)
    throttles.on_tasks(tasks(("exec", 7, 7)))
    assert throttles.is_quiet
    for second in range(10):
        throttles.step(second * 1000 * MS)
        assert throttles.is_quiet
    # One that ended has told nothing since: it waits no longer than others.
    throttles.on_tasks(tasks(("exit", 7, 7)))
    throttles.step(10_000 * MS)
    assert not throttles.is_quiet
    (row,) = throttles.take().to_pylist()
    assert (row["begin_ns"], row["end_ns"], row["throttled_ns"]) == (0, 9_000 * MS, 0)
    assert throttles.is_quiet
    throttles.on_tasks(tasks(("exec", 7, 7)))
    throttles.step(11_000 * MS)
    machine.took("/a", 130)
    throttles.step(12_000 * MS)
    assert not throttles.is_quiet
