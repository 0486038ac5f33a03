"""How long Ps are held, while a program runs, in histograms that the kernel keeps.

There are two histograms for each system call and stack. ``retake`` has the times from a thread's
block until the runtime took its P. ``harm`` has the same times, but only of blocks at which a
goroutine waited and no idle P and no spinning M could take it.

No row leaves the kernel except one for each new program, so a watch of hours costs no more than
the programs at the tracepoints. Only with ``rows``, from which the stall time of Ps is computed,
do all rows leave the kernel, as in a capture.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.binaries import Binaries
from tracer.capture.drain import loss_records
from tracer.capture.images import Images
from tracer.capture.kernel_stacks import KernelStack
from tracer.capture.late import LATE_WAIT_S, LateRuntimes
from tracer.capture.launch import Command, RunningProcess, present_rows
from tracer.capture.options import CaptureOptions, probe_defines
from tracer.capture.privilege import check_privilege, give_up
from tracer.capture.programs import Programs
from tracer.capture.reach import Reach, reach_table, reaches
from tracer.capture.runtimes import Runtimes
from tracer.capture.several import Several
from tracer.capture.start import attach, begin
from tracer.capture.symbols import Symbols
from tracer.capture.target_files import TargetFiles
from tracer.capture.throttles import Throttles
from tracer.errors import PretakeError
from tracer.targets import jail
from tracer.trace.clock import KernelClock
from tracer.trace.records import gathered
from tracer.trace.schema import UNKNOWN

__all__ = ["OTHERS", "WHATS", "Histogram", "Live", "LiveRows", "buckets_of", "live", "lower_ns"]

WHATS: Final = ("retake", "harm")
"""What is counted: the rows of an array from :meth:`Live.counts`."""

OTHERS: Final = -2
"""Stands for the stacks that the kernel had no room to tell apart."""

_BUFFER_BYTES: Final = 1 << 20
_ROWS_PERIOD_S: Final = 0.02
_FRESH_NS: Final = 50_000_000
"""Rings that were read so short a time ago are not read again for who asks for rows."""
_LATE_NS: Final = 500_000_000
"""A call's row comes with the next event of its thread, and a look at reach takes a while."""


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


def buckets_of(times_ns: np.ndarray) -> np.ndarray:
    """The bucket that each time above 0 is in, as the kernel has them (tracer/bpf/live.bpf.c)."""
    mantissa, exponent = np.frexp(times_ns.astype(np.float64))
    # frexp's mantissa is 0.5 to 1.
    return np.asarray(4 * (exponent - 1) + np.floor(4 * (2 * mantissa - 1)).astype(np.int64))


class Live:
    """A program that is watched; made by :func:`live`."""

    def __init__(
        self,
        target: Command | RunningProcess | Several,
        programs: Programs,
        options: CaptureOptions,
        drop: bool,
        rows: bool = False,
        late_wait_s: float = LATE_WAIT_S,
    ) -> None:
        self._clock = KernelClock()
        self._kept: dict[str, list[np.ndarray]] | None = {} if rows else None
        self._period_s = _ROWS_PERIOD_S if rows else math.inf
        self._taken_ns = 0
        """When the rings were last read: all that was sent before was taken."""
        self._reach: tuple[list[Reach], pa.Table] | None = None
        self._throttles = Throttles()
        self._target = target
        self._programs = programs
        self._binaries = Binaries()
        self._images = images = Images()
        self._symbols = Symbols(images, self._binaries)
        files = TargetFiles()
        self._runtimes = Runtimes(programs.layouts, options, images, self._binaries, files)
        self._late = LateRuntimes(self._runtimes, images, files, late_wait_s)
        # By the kernel's number of a stack, ours; and those that nobody has asked for yet.
        self._stack_ids: dict[int, int] = {}
        self._new_stacks: dict[int, KernelStack] = {}
        self._attached = attach(target, programs, self._runtimes)
        if drop:
            give_up(programs.loaded)
        self.begin_ns = self._clock.now_ns()
        """When the watch began, CLOCK_MONOTONIC."""
        self._begin()

    def wait(self, seconds: float) -> bool:
        """Watch for so long; True if the program has ended.

        The watcher sleeps, unless the kernel wakes it because a target became another program.
        """
        deadline = time.monotonic() + seconds
        while True:
            more = self._runtimes.step() or self._late.step()
            left_s = max(deadline - time.monotonic(), 0)
            if self._period_s < math.inf:
                self._throttles.step(self._clock.now_ns())
            wait_s = 0 if more else min(left_s, self._period_s, self._runtimes.wait_s)
            ended = self._target.wait(wait_s, self._programs.rings.wake_fd)
            # Once for each time that we wake: nine rings cost as much as a few hundred records.
            self._take()
            if ended or time.monotonic() >= deadline:
                return ended

    def rows(self, last: bool = False) -> LiveRows | None:
        """The rows since the last time, for who watches with ``rows``; else None.

        Args:
            last: none is waited for any more.
        """
        if self._kept is None:
            return None
        if last or self._clock.now_ns() - self._taken_ns > _FRESH_NS:
            self._take()
        throttle = self._take_beside()
        kept, self._kept = self._kept, {}
        tables = {"reach": self._reach_table()}
        if throttle is not None:
            tables["throttle"] = throttle
        return LiveRows(self._taken_ns - (0 if last else _LATE_NS), kept, tables)

    def _reach_table(self) -> pa.Table:
        """Table reach; as long as nothing changes in it, the same object."""
        told = reaches(self._images)
        if self._reach is None or self._reach[0] != told:
            self._reach = told, reach_table(self._images)
        return self._reach[1]

    def _begin(self) -> None:
        assert not isinstance(self._target, Several)
        present = begin(self._target, self._programs)
        if present:
            self._add_present(self._target.pid, present)

    def _add_present(self, pid: int, tids: list[int]) -> None:
        rows = present_rows(pid, tids, self._clock.now_ns())
        self._throttles.on_tasks(rows)
        self._seen("task", [rows])

    def _take(self) -> None:
        self._taken_ns = self._clock.now_ns()
        for name, ring in self._programs.rings.rings.items():
            pieces = ring.pieces()
            if pieces:
                if name == "task":
                    rows = gathered(pieces)
                    self._runtimes.on_tasks(rows)
                    self._late.on_tasks(rows)
                    self._throttles.on_tasks(rows)
                self._seen(name, pieces)
            ring.release()

    def _take_beside(self) -> pa.Table | None:
        """Take what comes through no ring: losses, and table throttle, which is returned if it
        tells anything."""
        spans = self._programs.rings.take_loss_spans()
        if spans:
            self._seen("loss", [loss_records(spans)])
        return None if self._throttles.is_quiet else self._throttles.take()

    def _seen(self, table: str, pieces: list[np.ndarray]) -> None:
        """Records came, which are the ring's own memory."""
        if self._kept is not None:
            self._keep(table, gathered(pieces))

    def _keep(self, table: str, records: np.ndarray) -> None:
        """Keep records for who asks for rows; they change no more."""
        if self._kept is not None:
            self._kept.setdefault(table, []).append(records)

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

    def unknown(self) -> dict[int, int]:
        """Ps that were taken, by number of the system call, after a block of which nobody knows
        whether its call had returned meanwhile: in no histogram."""
        return dict(self._programs.live.unknown())

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


@dataclass(frozen=True)
class LiveRows:
    """Rows that left the kernel, by table.

    Args:
        until_ns: what is later, other rows may still come before.
        records: of tables with rings, in no order, and of ``loss``; in pieces, as the rings had
            them.
        tables: those that have texts, as a trace's reader gives them. ``reach``: all of it each
            time, the same object as long as nothing changes; ``throttle``: what is new, if
            anything is to be told.
    """

    until_ns: int
    records: dict[str, list[np.ndarray]]
    tables: dict[str, pa.Table]


@contextlib.contextmanager
def live(
    command: Sequence[str] | None = None,
    pid: int | None = None,
    *,
    max_sites: int = 2048,
    drop: bool = False,
    probes: str = "none",
    rows: bool = False,
) -> Iterator[Live]:
    """Watch a command, which is ended in the end, or a running process, which is left running.

    Args:
        command: program and arguments.
        pid: a running process, instead of a command.
        max_sites: stacks that are told apart, and pairs of a system call and a stack.
        drop: once the probes are in place, become who called sudo (root itself: nobody), without
            any capability and for good.
        probes: as in :class:`~tracer.capture.options.CaptureOptions`; not ``both``.
        rows: whether :meth:`Live.rows` gives the rows of a capture, which costs as much as one.

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
        if rows:
            defines["LIVE_ROWS"] = 1
        room = options.buffer_bytes if rows else _BUFFER_BYTES
        programs = Programs(room, max_sites=max_sites, defines=defines)
        stack.callback(programs.close)
        if isinstance(target, Command):
            stack.callback(target.end)
        watched = Live(target, programs, options, drop, rows)
        stack.callback(watched.close)
        yield watched
