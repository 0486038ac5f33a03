"""Programs here run with one P, so that what waits for a P waits for that one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forced import KERNEL, lacking
from tests.go.looked import programs
from tracer.capture.programs import Programs


@pytest.fixture(autouse=True)
def _one_p(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMAXPROCS", "1")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Programs]:
    """The BPF programs of the default capture, loaded once for all tests of a file."""
    with programs() as loaded:
        yield loaded


@pytest.fixture
def ahead_of_others() -> Iterator[None]:
    """What else runs on the machine takes no CPU from the program, whose own clock is the witness:
    what it waits for a CPU it takes for something else."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def five_percent() -> Iterator[Path]:
    """A cgroup whose threads may use 5 ms of CPU in each 100 ms."""
    own = f"pretake-test-{os.getpid()}"
    unified, cpu = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")
    if (unified / "cgroup.controllers").exists():
        group = unified / own
        settings = {"cpu.max": "5000 100000"}
    else:
        group = cpu / own
        settings = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "5000"}
    try:
        group.mkdir()
        for name, value in settings.items():
            (group / name).write_text(value)
    except OSError as error:
        lacking(f"no quota can be set: {error}", KERNEL)
    yield group
    group.rmdir()
