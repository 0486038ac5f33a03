"""What the BPF programs cost, from the kernel's own statistics, by samples.

The kernel counts the runs of BPF programs and their time only while it is asked to
(``BPF_ENABLE_STATS``), and counting makes each run some 20 ns longer. So it counts in short
samples, and the whole is estimated from them.
"""

from __future__ import annotations

import os
import time
from typing import Final

from tracer.kernel.bpf_call import enable_statistics
from tracer.kernel.loaded import Loaded
from tracer.trace.manifest import CaptureCost

__all__ = ["Samples", "tell_cost"]

_SPAN_S: Final = 0.02
_PERIOD_S: Final = 0.5


class Samples:
    """Lets the kernel count in short spans, by this process's CAP_SYS_ADMIN.

    Where the kernel refuses, nothing is counted.

    Attributes:
        counted_s: for how long it counted, in all spans that are over.
        begin_s: when the span that goes on began, by CLOCK_MONOTONIC; 0 for none.
    """

    def __init__(self) -> None:
        self.counted_s = self.begin_s = 0.0
        self._fd = -1
        self._next_s = 0.0

    def step(self) -> float:
        """Begin or end a span if it is time; how many seconds until it is time again."""
        now_s = time.monotonic()
        if self._fd >= 0:
            if now_s - self.begin_s >= _SPAN_S:
                self.close()
        elif now_s >= self._next_s:
            try:
                self._fd = enable_statistics()
            except OSError:
                self._next_s = float("inf")
                return _PERIOD_S
            self.begin_s = time.monotonic()
            self._next_s = now_s + _PERIOD_S
        due_s = self.begin_s + _SPAN_S if self._fd >= 0 else self._next_s
        return min(max(due_s - time.monotonic(), 0.0), _PERIOD_S)

    def close(self) -> None:
        """End the span that goes on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.counted_s += time.monotonic() - self.begin_s
            self.begin_s = 0.0


def tell_cost(loaded: Loaded, counted_s: float, wall_s: float, cost: CaptureCost) -> None:
    """Put what the samples tell into a manifest's costs; nothing where there were none.

    Args:
        loaded: what ran.
        counted_s: for how long the kernel counted.
        wall_s: of the capture.
        cost: filled in.
    """
    if counted_s <= 0:
        return
    scale = wall_s / counted_s
    statistics = loaded.run_statistics()
    cost.bpf_run_s = scale * sum(n["run_time_ns"] for n in statistics.values()) / 1e9
    cost.bpf_runs = {
        name: round(scale * n["run_cnt"]) for name, n in statistics.items() if n["run_cnt"]
    }
