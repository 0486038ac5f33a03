"""One capture, from start to finish.

Example:
    >>> record(["./server"], output="server.pretake", options=CaptureOptions(seconds=10))
    PosixPath('server.pretake')

The order of its steps makes its counts exact. :mod:`tracer.capture.start` has the order of the
beginning. At the end the probes go first, and the drain stops when every record that was sent is
stored or counted as lost.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

from tracer.capture.attendant import Attendant, leave_attendant
from tracer.capture.binaries import Binaries
from tracer.capture.cost import Samples, tell_cost
from tracer.capture.drain import Drain
from tracer.capture.images import Images
from tracer.capture.kernel_stacks import kernel_stacks
from tracer.capture.late import LateRuntimes
from tracer.capture.launch import Command, RunningProcess, present_rows
from tracer.capture.machine import MachineWatch
from tracer.capture.options import CaptureOptions, Progress, probe_defines
from tracer.capture.privilege import capture_user, check_privilege, give_up
from tracer.capture.programs import Programs
from tracer.capture.reach import reach_table
from tracer.capture.runtimes import Runtimes
from tracer.capture.several import Several
from tracer.capture.start import attach, begin
from tracer.capture.symbols import Symbols
from tracer.capture.target_files import TargetFiles
from tracer.capture.throttles import Throttles
from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import calling_user
from tracer.kernel.compiler import TELL_CALLS
from tracer.targets import jail
from tracer.trace.clock import KernelClock, Moment, note_clocks
from tracer.trace.manifest import Manifest, Missing
from tracer.trace.schema import TABLES
from tracer.trace.unknown import UNKNOWN_RESULT, counted
from tracer.trace.writer import TraceWriter, check_output

__all__ = ["left_out", "new_manifest", "record", "stopped_by_signals"]

_PROGRESS_PERIOD_S: Final = 0.25
_THROTTLES_KEPT: Final = 10_000
"""Rows in memory, of some 200 bytes."""
_EXEC: Final = TABLES["task"].column("kind").code("exec")
_END_AHEAD_NS: Final = 1_000_000
_SHORTFALLS: Final = {
    "foreign_calls": (
        "the numbers of {} system calls",
        "they were made through the 32-bit entry, whose numbers are others",
    ),
    "stacks": (
        "the stacks of {} blocks",
        "there was no room for another stack",
    ),
    "storage": (
        "up to {} switches, wake-ups and calls",
        "this kernel (to 6.1) refuses to look up a thread while it looks up another",
    ),
    "ps": (
        "the Ps of system calls in {} stops of the world, from about the 500th such P on",
        "there are more Ps than one look reads",
    ),
    "broken_calls": (
        "the ends of {} system calls that a signal broke off",
        "whether such a call began again is seen with '--calls exact' only",
    ),
}
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def record(
    command: Sequence[str] | None = None,
    *,
    output: str | Path,
    pid: int | None = None,
    options: CaptureOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    drop: bool = False,
    ended: Callable[[Manifest], None] | None = None,
) -> Path:
    """Capture a command or a running process, until it ends, time is up, or Ctrl-C.

    Args:
        command: program and arguments; its input and output are left alone. When the capture
            ends before the command does, the command is ended too.
        output: the trace's folder.
        pid: a running process, instead of a command; it is left running.
        options: what to capture.
        progress: called about four times a second.
        drop: once the probes are in place, become who called sudo (root itself: nobody), without
            any capability and for good.
        ended: called with the final manifest: who has given up its rights may not read a trace
            that lies in root's folder.

    Returns:
        The trace's folder. ``manifest.exit_status`` tells how the command ended.

    Raises:
        PretakeError: nothing was captured, for a reason the user can mend; or the disk filled
            up, and then the trace up to there is whole.
    """
    options = options or CaptureOptions()
    path = Path(output)
    check_output(path, options.force)
    if (command is None) == (pid is None):
        raise PretakeError("there is nothing to trace", "give a command behind --, or --pid")
    check_privilege()
    jail.warm_up()
    defines = probe_defines(options.probes)
    if options.detail == "full":
        defines["DETAIL_FULL"] = 1
    if options.calls == "exact":
        defines["CALLS_EXACT"] = 1
    if options.all_signals:
        defines["ALL_SIGNALS"] = 1
    if options.host:
        defines["HOST"] = 1
    if not options.stacks:
        defines["NO_STACKS"] = 1
    with contextlib.ExitStack() as stack:
        target = RunningProcess(pid) if pid is not None else Command(command or ())
        stack.callback(target.close)
        programs = Programs(options.buffer_bytes, options.max_threads, defines=defines)
        stack.callback(programs.close)
        stop = threading.Event()
        # From here on there is something to end in order.
        stack.enter_context(stopped_by_signals(stop))
        capture = _Capture(path, target, programs, options, stop, drop)
        written = capture.run(progress)
        if ended is not None:
            ended(capture.manifest)
        return written


class _Capture:
    def __init__(
        self,
        path: Path,
        target: Command | RunningProcess,
        programs: Programs,
        options: CaptureOptions,
        stop: threading.Event,
        drop: bool,
    ) -> None:
        self._clock = KernelClock()
        self._target = target
        self._programs = programs
        self._options = options
        self._binaries = Binaries()
        self._images = images = Images()
        self._symbols = Symbols(images, self._binaries)
        files = TargetFiles()
        self._runtimes = Runtimes(programs.layouts, options, images, self._binaries, files)
        self._late = LateRuntimes(self._runtimes, images, files)
        self._throttles = Throttles()
        self._manifest = new_manifest(target, options)
        self._stop = stop
        self._present = 0
        self._exec_seen = False
        if isinstance(target, RunningProcess):
            note_clocks(self._manifest.clocks_ahead_ns, [target.pid])
        self._manifest.attached = attach(target, programs, self._runtimes)
        self._writer = TraceWriter(
            path,
            self._manifest,
            force=options.force,
            owner=capture_user() if drop else calling_user(),
            part_seconds=options.part_seconds,
        )
        self._attendant: Attendant | None = None
        self._samples: Samples | None = None
        if drop:
            self._attendant = _leave_attendant(path)
            give_up(programs.loaded)
        else:
            self._samples = Samples()
        observers = {
            "task": self._on_tasks,
            "signal": self._symbols.on_signals,
            "syscall": self._on_calls,
        }
        self._drain = Drain(programs.rings, self._writer, observers)

    @property
    def manifest(self) -> Manifest:
        """What is known of it, up to now."""
        return self._manifest

    def run(self, progress: Callable[[Progress], None] | None) -> Path:
        began_s = time.monotonic()
        cpu_s = time.process_time()
        self._manifest.begins(self._clock.moment())
        self._machine = MachineWatch()
        try:
            self._begin()
            self._loop(began_s, progress)
        except PretakeError as error:
            self._manifest.error = error.problem
            self._end(began_s, cpu_s)
            raise
        self._end(began_s, cpu_s)
        return self._writer.path

    def _begin(self) -> None:
        present = begin(self._target, self._programs)
        if present:
            self._add_present(self._target.pid, present)

    def _look_at_clocks(self, execs: np.ndarray) -> None:
        # By the exec's own record: the process may have ended, and a tracer that is nobody may not
        # see whether root's process is in a time namespace.
        generations = dict(zip(execs["pid"].tolist(), execs["generation"].tolist(), strict=True))

        def ahead_ns(pid: int) -> int | None:
            told = self._programs.layouts.exec_image(pid, generations[pid])
            return None if told is None else told.ahead_ns

        note_clocks(self._manifest.clocks_ahead_ns, generations, ahead_ns)

    def _add_present(self, pid: int, tids: list[int]) -> None:
        rows = present_rows(pid, tids, self._clock.now_ns())
        self._present = len(rows)
        self._throttles.on_tasks(rows)
        self._symbols.on_tasks(rows)
        self._drain.add("task", TABLES["task"].to_arrow(rows))

    def _on_tasks(self, records: np.ndarray) -> None:
        became = records[records["kind"] == _EXEC]
        self._exec_seen = self._exec_seen or len(became) > 0
        self._look_at_clocks(became)
        self._throttles.on_tasks(records)
        self._symbols.on_tasks(records)
        self._runtimes.on_tasks(records)
        self._late.on_tasks(records)

    def _on_calls(self, records: np.ndarray) -> None:
        unknown = int(np.count_nonzero(records["ret"] == UNKNOWN_RESULT))
        self._manifest.capture.results_unknown += unknown

    def _loop(self, began_s: float, progress: Callable[[Progress], None] | None) -> None:
        limit_s = self._options.seconds
        told_s = began_s
        ended = False
        while not (ended or self._stop.is_set()):
            if self._samples is not None:
                self._samples.step()
            wait_s = self._drain.step()
            if self._runtimes.step() or self._late.step():
                wait_s = 0
            wait_s = min(wait_s, self._runtimes.wait_s)
            self._throttles.step(self._clock.now_ns())
            if len(self._throttles) > _THROTTLES_KEPT:
                self._drain.add("throttle", self._throttles.take())
            now_s = time.monotonic()
            if limit_s is not None:
                if now_s - began_s >= limit_s:
                    break
                wait_s = min(wait_s, limit_s - (now_s - began_s))
            if progress is not None and now_s - told_s >= _PROGRESS_PERIOD_S:
                told_s = now_s
                drain, size = self._drain, self._writer.bytes
                progress(Progress(now_s - began_s, drain.events, drain.lost, size))
            ended = self._target.wait(wait_s, self._programs.rings.wake_fd)

    def _end(self, began_s: float, cpu_s: float) -> None:
        manifest = self._manifest
        if self._exec_seen or not isinstance(self._target, Command):
            end = self._last_moment()
        else:
            # It is yet to be seen whether the command is a program at all.
            end = self._clock.moment()
        manifest.ends(end)
        manifest.machine = self._machine.finish()
        wall_s = time.monotonic() - began_s
        tell_cost(self._programs.loaded, self._counted_s(), wall_s, manifest.capture)
        self._programs.detach()
        failure: PretakeError | None = None
        if manifest.error is not None:
            self._drain.abandon()
            self._runtimes.finish()
        else:
            try:
                self._drain.drain()
                self._runtimes.finish()
                stacks = kernel_stacks(self._programs.loaded)
                for table, rows in self._symbols.tables(stacks).items():
                    self._drain.add(table, rows)
                self._drain.add("reach", reach_table(self._images))
                self._drain.add("throttle", self._throttles.table(end.monotonic_ns))
                self._drain.finish()
            except PretakeError as error:
                manifest.error, failure = error.problem, error
        self._binaries.close()
        if isinstance(self._target, Command):
            self._target.end()
            manifest.exit_status = self._target.exit_status
            manifest.workload = self._target.result()
            if not self._exec_seen and failure is None:
                self._writer.abort()
                self._end_attendant()
                raise self._no_program(self._target.argv[0])
        counts = self._programs.rings.counts()
        manifest.sent = {name: count.sent for name, count in counts.items()}
        manifest.sent["task"] += self._present
        manifest.lost = {name: count.lost for name, count in counts.items()}
        found = self._runtimes.target
        manifest.target.runtime, manifest.target.version = found.runtime, found.version
        manifest.target.p_in_syscall = found.p_in_syscall
        manifest.target.offsets_from = found.offsets_from
        manifest.target.path = found.path or manifest.target.path
        manifest.target.build_id = found.build_id or manifest.target.build_id
        manifest.attached += self._runtimes.attached
        manifest.missing += [
            *self._runtimes.missing,
            *left_out(self._symbols, self._programs, self._options),
        ]
        manifest.capture.wall_s = wall_s
        manifest.capture.map_bytes = self._programs.loaded.map_bytes()
        manifest.capture.cpu_s = time.process_time() - cpu_s
        manifest.capture.events_per_s = self._drain.events / wall_s if wall_s > 0 else None
        self._writer.close(manifest)
        self._end_attendant()
        if failure is not None:
            raise failure

    def _no_program(self, name: str) -> PretakeError:
        """Why no program came of the command."""
        if self._stop.is_set():
            return PretakeError(
                f"the capture was ended by a signal before {name} began", "let it run longer"
            )
        return PretakeError(
            f"{name} cannot be run", "the shell's message above says why; try it without pretake"
        )

    def _last_moment(self) -> Moment:
        """Set the end of the capture, just ahead, so that no record is later; wait for it."""
        ahead_ns = _END_AHEAD_NS
        while True:
            end_ns = self._clock.now_ns() + ahead_ns
            self._programs.followed.end_at(end_ns)
            if self._clock.now_ns() < end_ns:
                break
            ahead_ns *= 2  # set too late: what happened in between was told
        while (moment := self._clock.moment()).monotonic_ns < end_ns:
            time.sleep((end_ns - moment.monotonic_ns) / 1e9)
        past_ns = moment.monotonic_ns - end_ns
        return Moment(end_ns, moment.boottime_ns - past_ns)

    def _counted_s(self) -> float:
        if self._samples is not None:
            self._samples.close()
            return self._samples.counted_s
        return 0.0 if self._attendant is None else self._attendant.counted_s

    def _end_attendant(self) -> None:
        if self._attendant is not None:
            self._attendant.end()


def _leave_attendant(path: Path) -> Attendant:
    folder = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return leave_attendant(folder)
    finally:
        os.close(folder)


def left_out(symbols: Symbols, programs: Programs, options: CaptureOptions) -> Iterator[Missing]:
    """What the programs in the kernel and the symbols could not tell, since they were loaded."""
    # A copy: a dump that is being written may add one.
    for path, count in list(symbols.unknown.items()):
        yield Missing(f"{count} code addresses of {path}", "the file is not there any more")
    exact = options.as_asked()["calls"] == "exact"
    if not exact and TELL_CALLS not in programs.loaded.functions:
        yield Missing(
            "calls without their tracepoints",
            "this kernel does not show when a thread was in user code: every other process "
            "pays for its calls, as with '--calls exact'",
        )
    missed = programs.followed.missed()
    if missed:
        yield Missing(
            f"{missed} threads, and those that they made",
            f"more than {options.max_threads} lived at one time",
        )
    for name, count in programs.followed.shortfalls().items():
        yield from counted(count, *_SHORTFALLS[name])
    for name, numbers in programs.loaded.run_statistics().items():
        if numbers["recursion_misses"]:
            yield Missing(
                f"{numbers['recursion_misses']} runs of {name}",
                "the program ran already on that CPU",
            )


def new_manifest(target: Command | RunningProcess | Several, options: CaptureOptions) -> Manifest:
    """What is known of a capture before it begins."""
    manifest = Manifest(
        boot_id=_BOOT_ID.read_text("utf-8").strip(),
        host=socket.gethostname(),
        kernel=platform.release(),
        arch=platform.machine(),
        pid=target.pid,
        asked=options.as_asked(),
    )
    with contextlib.suppress(metadata.PackageNotFoundError):
        manifest.pretake_version = metadata.version("pretake")
    if isinstance(target, Command):
        manifest.command = target.argv
        manifest.target.path = str(target.executable)
    else:
        with contextlib.suppress(OSError):
            manifest.target.path = str(target.executable.readlink())
    return manifest


@contextlib.contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the capture, which ends in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def set_stop(_signo: int, _frame: object) -> None:
        stop.set()

    saved = {signo: signal.signal(signo, set_stop) for signo in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signo, handler in saved.items():
            signal.signal(signo, handler)
