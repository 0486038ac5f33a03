"""What the BPF programs cost, from the kernel's own statistics, by samples.

The kernel counts runs and their time only while somebody asks for it (``BPF_ENABLE_STATS``), and
the counting makes each run some 20 ns dearer. So it is asked for in short spans only, and what
they tell stands for the whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final, Protocol

from tracer.kernel import bpf
from tracer.kernel.loaded import Loaded
from tracer.trace.manifest import CaptureCost

__all__ = ["RunTimeSampler", "Statistics", "StatisticsHelper"]

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
        self._fd = bpf.enable_statistics()

    def off(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        self.off()


_HELPER: Final = """
import ctypes, os
libc, attributes, fd = ctypes.CDLL(None), bytes(128), -1
while order := os.read(0, 1):
    if fd >= 0:
        os.close(fd)
        fd = -1
    if order == b"1":
        fd = libc.syscall(321, 32, attributes, 128)
    os.write(1, b"y" if order == b"0" or fd >= 0 else b"n")
"""


class StatisticsHelper:
    """By a process that can do this and nothing else, for a tracer that gives up its capabilities.

    It reads orders of one byte, and ends with the tracer, however that ends.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HELPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the tracer
        )

    def on(self) -> None:
        """Begin to count; OSError where the kernel refuses."""
        self._order(b"1")

    def off(self) -> None:
        """End it."""
        self._order(b"0")

    def close(self) -> None:
        """End the process that samples."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _order(self, order: bytes) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order)
        if self._process.stdout.read(1) != b"y":
            raise OSError("the kernel does not count")


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
