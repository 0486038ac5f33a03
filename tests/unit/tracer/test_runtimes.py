"""How a capture begins to know runtimes, without a process."""

from __future__ import annotations

import pytest

from tracer.capture import runtimes
from tracer.capture.runtimes import Runtimes


class Busy(Runtimes):
    """Has so many things to do, and then a process that is due after so long, for ever."""

    def __init__(self, steps: int, due_s: float) -> None:
        self.left, self.due_s = steps, due_s

    def step(self) -> bool:
        """Do one of them."""
        self.left -= 1
        return self.left > 0

    @property
    def wait_s(self) -> float:
        """When the process is due."""
        return self.due_s


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """The time of it."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Move it."""
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.mark.parametrize(
    ("steps", "due_s", "slept"),
    [
        (50, float("inf"), []),  # what can be done is done at once
        (3, 0.03, [0.03, 0.03, 0.03]),  # 0.03, 0.06 and 0.09 are within 0.1 s
        (1, 0.2, []),  # that is for later
    ],
)
def test_a_capture_begins_without_a_rest_between_two_probes(
    steps: int, due_s: float, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(runtimes, "time", clock)
    Busy(steps, due_s).finish_probing()
    assert clock.slept == slept
