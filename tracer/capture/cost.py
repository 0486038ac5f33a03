"""What the BPF programs cost, from the kernel's own statistics, by samples.

The kernel counts the runs of BPF programs and their time only while it is asked to
(``BPF_ENABLE_STATS``), and counting makes each run some 20 ns longer. So it counts in short
samples, and the whole is estimated from them.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final, Protocol

from tracer.capture.keeper import Keeper
from tracer.kernel.bpf_call import enable_statistics
from tracer.kernel.loaded import Loaded
from tracer.trace.manifest import CaptureCost

__all__ = ["KeptStatistics", "RunTimeSampler", "Statistics"]

_SPAN_S: Final = 0.02
_PERIOD_S: Final = 0.5


class Statistics(Protocol):
    """The kernel's counting, on or off."""

    def on(self) -> None:
        """Begin to count; OSError where that is not to be had."""

    def off(self) -> None:
        """End it."""

    def close(self) -> None:
        """End it for good."""


class _OwnStatistics:
    """By the capability of this process (CAP_SYS_ADMIN)."""

    def __init__(self) -> None:
        self._fd = -1

    def on(self) -> None:
        self._fd = enable_statistics()

    def off(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        self.off()


class KeptStatistics:
    """By the keeper, for a tracer that has given up its capabilities."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def on(self) -> None:
        """Begin to count; OSError where the kernel refuses."""
        self._keeper.count(True)

    def off(self) -> None:
        """End it."""
        self._keeper.count(False)

    def close(self) -> None:
        """End it for good."""
        with contextlib.suppress(OSError):
            self.off()


class RunTimeSampler:
    """Samples how long and how often the programs run.

    Args:
        loaded: what runs.
        statistics: who may let the kernel count; this process if not given.

    Where the kernel does not count, nothing is told.
    """

    def __init__(self, loaded: Loaded, statistics: Statistics | None = None) -> None:
        self._loaded = loaded
        self._statistics = statistics or _OwnStatistics()
        self._counting = False
        self._next_s = 0.0
        self._begin_s = 0.0
        self._counted_s = 0.0
        self._able = True

    def step(self) -> None:
        """Begin or end a span if it is time; call it often."""
        now_s = time.monotonic()
        if self._counting:
            if now_s - self._begin_s >= _SPAN_S:
                self._end_span()
        elif self._able and now_s >= self._next_s:
            try:
                self._statistics.on()
            except OSError:
                self._able = False
                return
            self._counting = True
            self._begin_s = time.monotonic()
            self._next_s = now_s + _PERIOD_S

    def finish(self, wall_s: float, cost: CaptureCost) -> None:
        """Put what the samples tell of ``wall_s`` seconds into the manifest's costs."""
        if self._counting:
            self._end_span()
        self._statistics.close()
        if self._counted_s <= 0:
            return
        scale = wall_s / self._counted_s
        statistics = self._loaded.run_statistics()
        cost.bpf_run_s = scale * sum(n["run_time_ns"] for n in statistics.values()) / 1e9
        cost.bpf_runs = {
            name: round(scale * n["run_cnt"]) for name, n in statistics.items() if n["run_cnt"]
        }

    def _end_span(self) -> None:
        self._statistics.off()
        self._counting = False
        self._counted_s += time.monotonic() - self._begin_s
