"""What the BPF programs cost, from the kernel's own statistics, by samples.

The kernel counts runs and their time only while somebody asks for it (``BPF_ENABLE_STATS``), and
the counting makes each run some 20 ns dearer. So it is asked for in short spans only, and what
they tell stands for the whole.
"""

from __future__ import annotations

import os
import time
from typing import Final

from tracer import kernel
from tracer.manifest import CaptureCost
from tracer.program import Program

__all__ = ["RunTimeSampler"]

_SPAN_S: Final = 0.02
_PERIOD_S: Final = 0.5


class RunTimeSampler:
    """Samples how long and how often a program's functions run.

    Args:
        program: what runs.

    Where the kernel does not count, nothing is told.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._fd: int | None = None
        self._next_s = 0.0
        self._begin_s = 0.0
        self._counted_s = 0.0
        self._able = True

    def step(self) -> None:
        """Begin or end a span if it is time; call it often."""
        now_s = time.monotonic()
        if self._fd is not None:
            if now_s - self._begin_s >= _SPAN_S:
                self._end_span()
        elif self._able and now_s >= self._next_s:
            try:
                self._fd = kernel.enable_statistics()
            except OSError:
                self._able = False
                return
            self._begin_s = time.monotonic()
            self._next_s = now_s + _PERIOD_S

    def finish(self, wall_s: float, cost: CaptureCost) -> None:
        """Put what the samples tell of ``wall_s`` seconds into the manifest's costs."""
        if self._fd is not None:
            self._end_span()
        if self._counted_s <= 0:
            return
        scale = wall_s / self._counted_s
        statistics = self._program.run_statistics()
        cost.bpf_run_s = scale * sum(n["run_time_ns"] for n in statistics.values()) / 1e9
        cost.bpf_runs = {
            name: round(scale * n["run_cnt"]) for name, n in statistics.items() if n["run_cnt"]
        }

    def _end_span(self) -> None:
        assert self._fd is not None
        os.close(self._fd)
        self._fd = None
        self._counted_s += time.monotonic() - self._begin_s
