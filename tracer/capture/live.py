"""How long Ps are held, while a program runs, in histograms that the kernel keeps.

No row leaves the kernel except one for each new program, so watching for hours costs no more
than the probes. There are two histograms for each system call and stack. ``retake`` has the
times from a thread's block until the runtime took its P. ``harm`` has the same times of those
blocks at which a goroutine waited and no idle P and no spinning M could take it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.binaries import Binaries
from tracer.capture.images import Images
from tracer.capture.kernel_stacks import KernelStack
from tracer.capture.late import LateRuntimes
from tracer.capture.launch import Command, RunningProcess
from tracer.capture.options import CaptureOptions, probe_defines
from tracer.capture.privilege import check_privilege, give_up
from tracer.capture.programs import Programs
from tracer.capture.runtimes import Runtimes
from tracer.capture.start import attach, begin
from tracer.capture.symbols import Symbols
from tracer.capture.target_files import TargetFiles
from tracer.errors import PretakeError
from tracer.targets import jail
from tracer.trace.schema import UNKNOWN

__all__ = ["OTHERS", "WHATS", "Histogram", "Live", "live", "lower_ns"]

WHATS: Final = ("retake", "harm")
"""What is counted: the rows of an array from :meth:`Live.counts`."""

OTHERS: Final = -2
"""Stands for the stacks that the kernel had no room to tell apart."""

_BUFFER_BYTES: Final = 1 << 20


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

    def __init__(
        self,
        target: Command | RunningProcess,
        programs: Programs,
        options: CaptureOptions,
        drop: bool,
    ) -> None:
        self._target = target
        self._programs = programs
        self._binaries = Binaries()
        images = Images()
        self._symbols = Symbols(images, self._binaries)
        files = TargetFiles()
        self._runtimes = Runtimes(programs.layouts, options, images, self._binaries, files)
        self._late = LateRuntimes(self._runtimes, images, files)
        # By the kernel's number of a stack, ours; and those that nobody has asked for yet.
        self._stack_ids: dict[int, int] = {}
        self._new_stacks: dict[int, KernelStack] = {}
        attach(target, programs, self._runtimes)
        if drop:
            give_up(programs.loaded)
        begin(target, programs)

    def wait(self, seconds: float) -> bool:
        """Watch for so long; True if the program has ended.

        The watcher sleeps, unless the kernel wakes it because a target became another program.
        """
        deadline = time.monotonic() + seconds
        while True:
            for name, ring in self._programs.rings.rings.items():
                records = ring.peek()
                if name == "task" and len(records):
                    rows = records.copy()
                    self._runtimes.on_tasks(rows)
                    self._late.on_tasks(rows)
                ring.release()
            more = self._runtimes.step() or self._late.step()
            left_s = max(deadline - time.monotonic(), 0)
            if self._target.wait(0 if more else left_s, self._programs.rings.wake_fd):
                return True
            if left_s <= 0:
                return False

    @property
    def runtime(self) -> str:
        """Whose P, M and G are in reach so far: ``go``, ``reference`` or ``none``."""
        self._runtimes.finish()
        return self._runtimes.target.runtime

    @property
    def missing(self) -> list[str]:
        """What cannot be seen, and why."""
        return [str(missing) for missing in self._runtimes.missing]

    def counts(self) -> dict[tuple[int, int], np.ndarray]:
        """What was counted since the begin.

        Returns:
            By number of the system call and stack_id (``UNKNOWN`` where there is no stack,
            :data:`OTHERS` where there was no room for it): a row of counts, as a
            :class:`Histogram` takes them, for each of :data:`WHATS`.
        """
        found = {}
        for stack, number, counts in self._programs.live.sites():
            found[number, self._stack_id(stack)] = np.stack([counts[what] for what in WHATS])
        for number, counts in self._programs.live.others():
            found[number, OTHERS] = np.stack([counts[what] for what in WHATS])
        return found

    def new_stacks(self) -> dict[str, pa.Table]:
        """The tables stack and address of stacks that are new in :meth:`counts`, if any are."""
        new, self._new_stacks = self._new_stacks, {}
        return self._symbols.tables_of(new) if new else {}

    def close(self) -> None:
        """Let go of the files that were looked at."""
        self._binaries.close()

    def _stack_id(self, stack: int) -> int:
        if not stack:
            return UNKNOWN
        if stack not in self._stack_ids:
            number = self._stack_ids[stack] = len(self._stack_ids)
            self._new_stacks[number] = self._programs.live.stack(stack)
        return self._stack_ids[stack]


@contextlib.contextmanager
def live(
    command: Sequence[str] | None = None,
    pid: int | None = None,
    *,
    max_sites: int = 2048,
    drop: bool = False,
    probes: str = "none",
) -> Iterator[Live]:
    """Watch a command, which is ended in the end, or a running process, which is left running.

    Args:
        command: program and arguments.
        pid: a running process, instead of a command.
        max_sites: stacks that are told apart, and pairs of a system call and a stack.
        drop: once the probes are in place, become who called sudo (root itself: nobody), without
            any capability and for good.
        probes: as in :class:`~tracer.capture.options.CaptureOptions`; not ``both``.

    Raises:
        PretakeError: there is nothing to watch, or the caller lacks the privilege.
    """
    if (command is None) == (pid is None):
        raise PretakeError("there is nothing to watch", "give a command behind --, or --pid")
    options = CaptureOptions(probes=probes)
    check_privilege()
    jail.warm_up()
    with contextlib.ExitStack() as stack:
        target = RunningProcess(pid) if pid is not None else Command(command or ())
        stack.callback(target.close)
        defines = {"LIVE": 1, **probe_defines(options.probes)}
        programs = Programs(_BUFFER_BYTES, max_sites=max_sites, defines=defines)
        stack.callback(programs.close)
        if isinstance(target, Command):
            stack.callback(target.end)
        watched = Live(target, programs, options, drop)
        stack.callback(watched.close)
        yield watched
