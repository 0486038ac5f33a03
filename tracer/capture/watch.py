"""A flight recorder: the last seconds of a program's records in memory, to be written on demand.

Example: ``pretake watch --pid 4242`` runs for weeks and writes nothing. At 3 am a goroutine stalls
for 200 ms, and the watch writes the 30 s before it and the 5 s after it, as a trace.

It is :class:`~tracer.capture.live.Live` with another end: what the rings give goes to a window
(:mod:`tracer.capture.window`), and to who computes stall time from it, if anybody does. Nothing
that it keeps grows with time: neither programs that have ended, nor stacks that no row has.
"""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.attendant import leave_attendant
from tracer.capture.dumps import Dumps
from tracer.capture.frozen import Frozen, reach_in_span
from tracer.capture.head import Head
from tracer.capture.images import Image
from tracer.capture.kernel_stacks import KernelStack
from tracer.capture.live import Live, LiveRows
from tracer.capture.options import CaptureOptions, probe_defines
from tracer.capture.privilege import check_privilege
from tracer.capture.programs import Programs
from tracer.capture.record import left_out, new_manifest
from tracer.capture.several import Several
from tracer.capture.start import follow
from tracer.capture.uploads import Uploads
from tracer.capture.window import Slice, Window
from tracer.errors import PretakeError
from tracer.kernel.table_rings import default_cpu_bytes
from tracer.targets import jail
from tracer.trace.clock import Moment, note_clocks
from tracer.trace.containers import NOWHERE, Container
from tracer.trace.manifest import Missing
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["LATE_NS", "Watch", "WatchOptions", "watch"]

LATE_NS: Final = 500_000_000
"""A dump waits so long for rows that come late."""

_RULES_LATE_S: Final = 4.0
"""By so much the window is longer than was asked: a rule is known to hold some seconds late."""
_PERIOD_S: Final = 1.0
"""Each time that we wake, all of Python comes into the CPU's caches again, which costs more than
the records of some ten thousand events do."""
_PERIOD_LEAST_S: Final = 0.02
_FILL_WANTED: Final = 0.35
"""A ring that is fuller than this is read again sooner; the kernel wakes us at a half."""
_CPU_BYTES_MOST: Final = 8 << 20
"""Memory of a CPU's rings, where nobody says: all of it is touched once the rings went round, and
they are read long before they are full."""
_LATE_WAIT_S: Final = 5.0
"""A plugin that makes no thread is found so late: looks at 200 processes are not for nothing."""
_FORGET_PERIOD_NS: Final = 10_000_000_000
_EXEC: Final = TABLES["task"].column("kind").code("exec")


@dataclass(frozen=True)
class WatchOptions:
    """How much is kept.

    Args:
        seconds: of the window.
        memory_bytes: of the records in it.
        rows: whether :meth:`Watch.rows` is wanted.
    """

    seconds: float = 30.0
    memory_bytes: int = 128 << 20
    rows: bool = True


class Watch(Live):
    """Programs that are watched; made by :func:`watch`.

    Attributes:
        window: the last seconds.
    """

    _target: Several

    def __init__(
        self,
        targets: Several,
        programs: Programs,
        options: CaptureOptions,
        kept: WatchOptions,
        drop: bool,
    ) -> None:
        self._kept_options = kept
        self._options = options
        self._head = Head()
        self._ahead: dict[str, int | None] = {}
        self._moments: deque[Moment] = deque()
        self._old: dict[tuple[int, int], int] = {}
        self._forgotten_ns = 0
        self._stacks_refused = 0
        self._told_cut = False
        note_clocks(self._ahead, targets.pids)
        self._asked = set(targets.pids)
        self._manifest = new_manifest(targets, options)
        super().__init__(targets, programs, options, drop, kept.rows, _LATE_WAIT_S)
        targets.open_by(self._runtimes.files)

    def rows(self, last: bool = False) -> LiveRows | None:
        """The rows since the last time, if they are wanted; call it once a second in any case."""
        if self._kept is None:
            self._take()
            self._take_beside()
            return None
        return super().rows(last)

    def step(self) -> list[str]:
        """Find new processes, and forget what no window needs; call it once a second.

        Returns:
            Lines that say who came and who ended.
        """
        lines = []
        for pid in self._target.find():
            try:
                self._join(pid)
            except (OSError, PretakeError) as error:
                # The others are watched on.
                lines.append(f"process {pid} cannot be watched: {error}")
            else:
                lines.append(f"watching {self.comm_of(pid) or 'a process'} ({pid})")
        unread = self._target.take_unread()
        if unread:
            first, *others = unread
            lines.append(
                f"whether process {first} is a Go program is not known"
                f"{f', nor of {len(others)} more' if others else ''}: "
                f"{self._target.unread[first]}"
            )
        for pid in self._target.take_ended():
            lines.append(f"process {pid} has ended")
        now_ns = self._clock.now_ns()
        self._moments.append(self._clock.moment())
        while len(self._moments) > 1 and self._moments[1].monotonic_ns <= self.window.begin_ns:
            self._moments.popleft()
        if now_ns - self._forgotten_ns >= _FORGET_PERIOD_NS:
            self._forgotten_ns = now_ns
            self._forget_images(now_ns)
            self._forget_stacks()
        reach_s = (now_ns - self.window.begin_ns) / 1e9
        if self.window.cut and reach_s < self._kept_options.seconds and not self._told_cut:
            self._told_cut = True
            lines.append(
                f"--memory has room for the last {reach_s:.1f} s now, and not for --seconds"
            )
        return lines

    @property
    def targets(self) -> Several:
        """Those that are watched."""
        return self._target

    @property
    def now_ns(self) -> int:
        """CLOCK_MONOTONIC of the machine."""
        return self._clock.now_ns()

    def comm_of(self, pid: int) -> str | None:
        """The name of a process that lives; None where it is not known."""
        image = self._images.current(pid)
        return None if image is None else image.comm

    def place_of(self, pid: int) -> Container:
        """The container and the pod of a process; of nothing known where it is not."""
        image = self._images.current(pid)
        return NOWHERE if image is None else image.place

    def events(self) -> int:
        """Records that the kernel sent since the begin."""
        return sum(count.sent for count in self._programs.rings.counts().values())

    def losses(self) -> dict[str, int]:
        """Records that found no room in a ring since the begin, by table."""
        return {name: count.lost for name, count in self._programs.rings.counts().items()}

    def freeze(self, begin_ns: int, end_ns: int, about: dict[str, object]) -> Frozen:
        """What a trace of a span is made of; call it ``LATE_NS`` after the span's end.

        Args:
            begin_ns: wanted begin, CLOCK_MONOTONIC; the window's, if that is later.
            end_ns: the end.
            about: why it is written: the manifest keeps it as ``asked.watch``.
        """
        self._take()
        self.window.add_table("throttle", self._throttles.take(), self._clock.now_ns())
        wanted_ns = max(begin_ns, self.begin_ns)
        slices = self.window.slices(self._clock.now_ns())
        begin_ns = max(wanted_ns, slices[0].begin_ns)
        programs = {
            (int(pid), int(generation))
            for records in (self._head.tasks, *(s.records.get("task") for s in slices))
            if records is not None
            for pid, generation in records[["pid", "generation"]].tolist()
        }
        manifest = copy.deepcopy(self._manifest)
        manifest.begins(self._moment(begin_ns))
        manifest.ends(self._moment(end_ns))
        pids = {pid for pid, _ in programs}
        manifest.pid = next(iter(pids)) if len(pids) == 1 else None
        manifest.clocks_ahead_ns = {
            pid: ahead for pid, ahead in self._ahead.items() if int(pid) in pids
        }
        self._runtimes.finish()
        manifest.target = copy.deepcopy(self._runtimes.target)
        manifest.attached = [*self._attached, *self._runtimes.attached]
        manifest.capture.map_bytes = self._programs.loaded.map_bytes()
        manifest.missing = [
            *self._runtimes.missing,
            *left_out(self._symbols, self._programs, self._options),
        ]
        unread = self._target.unread
        if unread:
            manifest.missing.append(
                Missing(
                    f"whether {len(unread)} processes are Go programs",
                    "; ".join(sorted(set(unread.values()))[:3]),
                    "watch those by --pid",
                )
            )
        short_s = (begin_ns - wanted_ns) / 1e9
        if short_s > 0.001:
            manifest.missing.append(
                Missing(
                    f"the first {short_s:.3g} s of the time before",
                    "the window has no more memory",
                    "give a larger --memory",
                )
            )
        manifest.asked["watch"] = {
            **about,
            "before_s": self._kept_options.seconds,
            "processes": {
                str(image.pid): {"comm": image.comm, **image.place._asdict()}
                for image in self._images
                if image.pid in pids & self._asked
            },
        }
        return Frozen(
            begin_ns,
            end_ns,
            slices,
            self._head.copy(),
            self._stacks(slices),
            reach_in_span(self._images, programs, begin_ns),
            self._symbols,
            manifest,
        )

    def _join(self, pid: int) -> None:
        # A target first: the keeper opens files of targets alone.
        present = follow(pid, self._programs)
        self._runtimes.attach_running(pid)
        note_clocks(self._ahead, [pid])
        self._asked.add(pid)
        self._add_present(pid, present)

    def _begin(self) -> None:
        kept = self._kept_options
        self._period_s = _PERIOD_S
        self.window = Window(
            round((kept.seconds + _RULES_LATE_S) * 1e9),
            kept.memory_bytes,
            self.begin_ns,
            self._gone,
        )
        for pid in self._target.pids:
            self._add_present(pid, follow(pid, self._programs))
        self._moments.append(self._clock.moment())

    def _take(self) -> None:
        before_ns = self._taken_ns
        super()._take()
        fill = max(ring.peeked_fill for ring in self._programs.rings.rings.values())
        took_s = (self._taken_ns - before_ns) / 1e9
        # Of less a moment nothing follows.
        if took_s >= _PERIOD_LEAST_S:
            wanted_s = took_s * _FILL_WANTED / max(fill, 1e-3)
            # Slower by steps, since a burst may follow a silence; faster at once.
            wanted_s = min(wanted_s, 2 * self._period_s)
            self._period_s = min(max(wanted_s, _PERIOD_LEAST_S), _PERIOD_S)
        self.window.step(self._clock.now_ns())

    def _take_beside(self) -> pa.Table | None:
        throttle = super()._take_beside()
        if throttle is not None:
            self.window.add_table("throttle", throttle, self._clock.now_ns())
        return throttle

    def _seen(self, table: str, pieces: list[np.ndarray]) -> None:
        # The window's copy serves the rules, too.
        records = self.window.add(table, pieces, self._clock.now_ns())
        if table == "task":
            execs = records[records["kind"] == _EXEC]
            if len(execs):
                self._look_at_clocks(execs)
        self._keep(table, records)

    def _look_at_clocks(self, execs: np.ndarray) -> None:
        for pid, generation in execs[["pid", "generation"]].tolist():
            told = self._programs.layouts.exec_image(pid, generation)
            # Its own process may have ended, and may not be looked at by who is nobody.
            by_pid = {pid: None if told is None else told.ahead_ns}
            note_clocks(self._ahead, by_pid, by_pid.__getitem__)

    def _gone(self, piece: Slice) -> None:
        self._head.take(piece.records)

    def _moment(self, ns: int) -> Moment:
        """A moment of the window by both clocks."""
        before = self._moments[0]
        for moment in self._moments:
            if moment.monotonic_ns <= ns:
                before = moment
        return Moment(ns, before.boottime_ns + ns - before.monotonic_ns)

    def _stacks(self, slices: list[Slice]) -> dict[int, KernelStack]:
        found = {}
        for number in _stack_ids(slices).tolist():
            stack = self._programs.loaded.look_up("stacks", np.array(number, np.uint32))
            if stack is not None:
                found[number] = KernelStack.of(stack)
        return found

    def _forget_images(self, now_ns: int) -> None:
        """Programs that ended, or became others, before the window began."""
        past: list[Image] = [
            image for image in self._images if self._images.current(image.pid) is not image
        ]
        self._old = {
            (image.pid, image.generation): self._old.get((image.pid, image.generation), now_ns)
            for image in past
        }
        for image in past:
            if self._old[image.pid, image.generation] < self.window.begin_ns - LATE_NS:
                self._images.forget(image)
                self._runtimes.unseen.forget(image)
        lives = {str(image.pid) for image in self._images}
        self._ahead = {pid: ahead for pid, ahead in self._ahead.items() if pid in lives}
        self._asked = {pid for pid in self._asked if str(pid) in lives}

    def _forget_stacks(self) -> None:
        """Where the kernel had no room for another stack: those that no row of the window has."""
        refused = self._programs.followed.shortfalls()["stacks"]
        if refused == self._stacks_refused:
            return
        self._stacks_refused = refused
        self._take()
        wanted = set(_stack_ids(self.window.slices(self._clock.now_ns())).tolist())
        keys = list(self._programs.loaded.keys("stacks", np.dtype(np.uint32)))
        for key in keys:
            if int(key) not in wanted:
                self._programs.loaded.delete("stacks", key)


def _stack_ids(slices: list[Slice]) -> np.ndarray:
    pieces = [s.records["block"]["stack_id"] for s in slices if "block" in s.records]
    ids = np.unique(np.concatenate([np.zeros(0, np.int32), *pieces]))
    return np.asarray(ids[ids != UNKNOWN])


@contextlib.contextmanager
def watch(
    targets: Several,
    folder: Path,
    *,
    options: CaptureOptions,
    kept: WatchOptions,
    per_hour: int,
    disk_bytes: int,
    drop: bool = False,
    to: str | None = None,
    to_timeout_s: float = 60.0,
) -> Iterator[tuple[Watch, Dumps, Uploads | None]]:
    """Watch processes, and have a folder for dumps.

    Args:
        targets: who is watched; they are left running, and let go of at the end.
        folder: where dumps go (:class:`~tracer.capture.dumps.Dumps`).
        options: as of a capture.
        kept: how much is kept.
        per_hour: dumps that are written in an hour, at most.
        disk_bytes: what all dumps take, at most.
        drop: once the probes are in place, become who called sudo (root itself: nobody), without
            any capability and for good.
        to: where dumps go besides, as fsspec names it; None for nowhere.
        to_timeout_s: what takes nothing for so long takes nothing at all.

    Raises:
        PretakeError: the caller lacks the privilege, or the folder or the store is not to be had.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(targets.close)
        check_privilege()
        dumps = Dumps(folder, per_hour, disk_bytes, drop)
        stack.callback(dumps.close)
        # Before it starts others: what it forks may have nothing of theirs.
        if drop:
            stack.callback(leave_attendant(dumps.fd, counts=False).end)
        uploads = None
        if to is not None:
            uploads = Uploads(to, dumps.fd, to_timeout_s, dumps.names())
            stack.callback(uploads.close)
        jail.warm_up()
        targets.find()
        defines = probe_defines(options.probes)
        if not options.stacks:
            defines["NO_STACKS"] = 1
        cpu_bytes = options.buffer_bytes or min(default_cpu_bytes(), _CPU_BYTES_MOST)
        programs = Programs(cpu_bytes, options.max_threads, defines=defines)
        stack.callback(programs.close)
        watched = Watch(targets, programs, options, kept, drop)
        stack.callback(watched.close)
        yield watched, dumps, uploads
