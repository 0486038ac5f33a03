"""How long Ps are held, while a program runs: histograms kept in the kernel, and nothing else.

No row leaves the kernel but births and programs of threads, so the cost for hours is that of the
probes. What is told is the time from a thread's block to the moment the runtime took its P
(``retake``), and the same where at the block a goroutine waited and no idle P and no spinning M
could take it (``harm``), by system call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.launch import Command, RunningProcess, threads_of
from tracer.options import CaptureOptions
from tracer.privilege import check_privilege
from tracer.program import Program
from tracer.runtimes import Runtimes
from tracer.symbols import Symbols

__all__ = ["WHATS", "Histogram", "Live", "live"]

WHATS: Final = ("retake", "harm")
"""What there are histograms of, in the order of ``enum live_what``."""

_BUFFER_BYTES: Final = 1 << 20
_BUCKETS: Final = 256
_TASKS_PERIOD_S: Final = 0.05
_KEY: Final = np.dtype([("nr", "<i2"), ("what", "u1"), ("bucket", "u1")])


@dataclass(frozen=True)
class Histogram:
    """Counts of times in buckets a quarter of an octave wide: each is known to within 12 %.

    Args:
        counts: by number of the bucket; bucket ``4 * e + q`` holds the times of
            ``2**e * (1 + q / 4)`` ns and above.
    """

    counts: np.ndarray

    @property
    def total(self) -> int:
        """How many times were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float | None:
        """The time, ns, that ``share`` of all are no longer than; None where there are none."""
        if not self.total:
            return None
        reached = np.searchsorted(np.cumsum(self.counts), share * self.total)
        # The middle of the bucket.
        return float((lower_ns(int(reached)) + lower_ns(int(reached) + 1)) / 2)


def lower_ns(bucket: int) -> float:
    """The least time that a bucket holds."""
    exponent, quarter = divmod(bucket, 4)
    return float(2.0**exponent * (1 + quarter / 4)) if bucket else 0.0


class Live:
    """A program that is watched; made by :func:`live`."""

    def __init__(self, target: Command | RunningProcess, program: Program) -> None:
        self._target = target
        self._program = program
        self._runtimes = Runtimes(program, CaptureOptions(), Symbols(program))
        if isinstance(target, Command):
            self._runtimes.expect(target.executable)
        else:
            self._runtimes.attach_running(target.pid)
        program.attach()
        if isinstance(target, Command):
            program.follow(target.pid, before_exec=True)
            target.open_gate()
            return
        known: set[int] = set()
        # One that is made meanwhile is a target from birth, or seen by the next look.
        while new := set(threads_of(target.pid)) - known:
            program.follow(target.pid)
            known |= new

    def wait(self, seconds: float) -> bool:
        """Watch for so long; True if the program has ended."""
        deadline = time.monotonic() + seconds
        while True:
            for name, ring in self._program.rings.items():
                records = ring.peek()
                if name == "task" and len(records):
                    self._runtimes.on_tasks(records.copy())
                ring.release()
            left_s = deadline - time.monotonic()
            if self._target.wait(max(min(left_s, _TASKS_PERIOD_S), 0)):
                return True
            if left_s <= 0:
                return False

    def histograms(self) -> dict[tuple[int, str], Histogram]:
        """Since the begin, by number of the system call and one of :data:`WHATS`."""
        found: dict[tuple[int, str], np.ndarray] = {}
        for (number, what, bucket), count in self._program.live_counts(_KEY):
            counts = found.setdefault((number, WHATS[what]), np.zeros(_BUCKETS, np.int64))
            counts[bucket] = count
        return {key: Histogram(counts) for key, counts in found.items()}


@contextlib.contextmanager
def live(command: Sequence[str] | None = None, pid: int | None = None) -> Iterator[Live]:
    """Watch a command, which is ended in the end, or a running process, which is left running.

    Raises:
        PretakeError: there is nothing to watch, or the caller lacks the privilege.
    """
    if (command is None) == (pid is None):
        raise PretakeError("there is nothing to watch", "give a command behind --, or --pid")
    check_privilege()
    with contextlib.ExitStack() as stack:
        target = RunningProcess(pid) if pid is not None else Command(command or ())
        stack.callback(target.close)
        program = Program(_BUFFER_BYTES, defines={"LIVE": 1})
        stack.callback(program.close)
        if isinstance(target, Command):
            stack.callback(target.end)
        yield Live(target, program)
