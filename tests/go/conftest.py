"""Programs here run with one P, so that what waits for a P waits for that one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

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
