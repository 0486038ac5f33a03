"""A capture by perf events: switches of one's own process without privilege, or a whole machine's.

It sees when each thread left and entered a CPU, whether the thread blocked or was preempted, and
births, names and ends of threads. It cannot see system calls, wake-ups and the runtime. So such
a trace has the tables ``sched_switch``, ``task`` and ``loss``. A command that runs the reference
runtime leaves the runtime's own record at its end; the retakes in it become rows of ``runtime``
and ``block`` (:mod:`tracer.trace.own_record`).

- Of one process (an ordinary user's own, at ``perf_event_paranoid`` up to 2): an event for each
  thread and possible CPU, inherited by what the process makes later. A record tells one side of a
  switch.
- Of the machine (``host``, needs CAP_PERFMON): an event for each CPU that is there, whose records
  tell both.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.capture.launch import RECORD_VARIABLE, Command, RunningProcess, threads_of
from tracer.capture.machine import MachineWatch
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.perf_rings import PerfRings
from tracer.capture.record import new_manifest, stopped_by_signals
from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import calling_user
from tracer.kernel.perf_events import TaskRecord, decode_switches, decode_task
from tracer.kernel.table_rings import default_cpu_bytes
from tracer.trace.clock import KernelClock, note_clocks
from tracer.trace.manifest import Manifest, Missing
from tracer.trace.own_record import read_own_record
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN
from tracer.trace.writer import TraceWriter, check_output

__all__ = ["record_by_perf"]

_PERIOD_S: Final = 0.005
_PROGRESS_PERIOD_S: Final = 0.25
_PREEMPTED = TABLES["sched_switch"].column("prev_state").code("preempted")
_BLOCKED = TABLES["sched_switch"].column("prev_state").code("blocked")
_OF_SWITCHES: Final = ("ts_ns", "prev_tid", "prev_state", "cpu")


def record_by_perf(
    command: Sequence[str] | None = None,
    *,
    output: str | Path,
    pid: int | None = None,
    options: CaptureOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Capture switches by perf events; as :func:`tracer.capture.record.record`, with
    ``options.host``.

    Raises:
        PretakeError: the kernel forbids it (``perf_event_paranoid``), or what record raises.
    """
    options = options or CaptureOptions()
    path = Path(output)
    check_output(path, options.force)
    if (command is None) == (pid is None):
        raise PretakeError("there is nothing to trace", "give a command behind --, or --pid")
    with contextlib.ExitStack() as stack:
        wanted = options.runtime in ("auto", "reference")
        target = (
            RunningProcess(pid) if pid is not None else Command(command or (), own_record=wanted)
        )
        stack.callback(target.close)
        stop = threading.Event()
        stack.enter_context(stopped_by_signals(stop))
        tids = [] if options.host else threads_of(target.pid)
        if not tids and not options.host:
            raise PretakeError(f"there is no process {target.pid}", "look for it with pgrep")
        rings = PerfRings(
            tids,
            options.buffer_bytes or default_cpu_bytes(),
            from_exec=isinstance(target, Command) and not options.host,
        )
        stack.callback(rings.close)
        manifest = new_manifest(target, options)
        manifest.backend = "perf"
        manifest.attached = ["perf:context_switch", "perf:task", "perf:comm"]
        manifest.missing = [Missing("system calls, wake-ups", "perf events tell of switches only")]
        writer = TraceWriter(
            path,
            manifest,
            force=options.force,
            owner=calling_user(),
            part_seconds=options.part_seconds,
        )
        return _Capture(target, rings, writer, manifest, stop, options).run(progress)


class _Capture:
    def __init__(
        self,
        target: Command | RunningProcess,
        rings: PerfRings,
        writer: TraceWriter,
        manifest: Manifest,
        stop: threading.Event,
        options: CaptureOptions,
    ) -> None:
        self._target = target
        self._rings = rings
        self._writer = writer
        self._manifest = manifest
        self._stop = stop
        self._options = options
        self._events = 0
        self._lost = 0
        self._clock = KernelClock()
        self._begin_ns = self._clock.now_ns()
        self._taken_ns: dict[int, int] = {}
        # The blocks of an own record are looked up among the switches: with one that is lost
        # they are doubtful.
        asked = isinstance(target, Command) and target.record_fd is not None
        self._made_of_switches = ("block",) if asked else ()

    def run(self, progress: Callable[[Progress], None] | None) -> Path:
        manifest = self._manifest
        manifest.begins(self._clock.moment())
        machine = MachineWatch()
        began_s, cpu_s = time.monotonic(), time.process_time()
        failure: PretakeError | None = None
        try:
            if isinstance(self._target, Command):
                self._target.open_gate()
            else:
                note_clocks(manifest.clocks_ahead_ns, [self._target.pid])
            self._loop(began_s, progress)
            manifest.ends(self._clock.moment())
            manifest.machine = machine.finish()
            if isinstance(self._target, Command):
                self._target.end()
            self._take(every=True)
            self._add_own_record()
        except PretakeError as error:
            manifest.error, failure = error.problem, error
        if isinstance(self._target, Command):
            self._target.end()
            manifest.exit_status = self._target.exit_status
            manifest.workload = self._target.result()
        cost = manifest.capture
        cost.wall_s = time.monotonic() - began_s
        cost.cpu_s = time.process_time() - cpu_s
        cost.events_per_s = self._events / cost.wall_s
        manifest.lost = {"sched_switch": self._lost}
        manifest.missing += self._rings.missing
        self._writer.close(manifest)
        if failure is not None:
            raise failure
        return self._writer.path

    def _loop(self, began_s: float, progress: Callable[[Progress], None] | None) -> None:
        told_s = began_s
        limit_s = self._options.seconds
        while not self._stop.is_set() and not self._target.wait(_PERIOD_S):
            self._rings.look()
            self._take()
            now_s = time.monotonic()
            if limit_s is not None and now_s - began_s >= limit_s:
                return
            if progress is not None and now_s - told_s >= _PROGRESS_PERIOD_S:
                told_s = now_s
                size = self._writer.bytes
                progress(Progress(now_s - began_s, self._events, self._lost, size))

    def _take(self, *, every: bool = False) -> None:
        """What waits in the rings, to the trace; ``every`` as for :meth:`PerfRings.to_read`."""
        for cpu, event in self._rings.to_read(every=every):
            begin_ns = self._taken_ns.get(cpu, self._begin_ns)
            self._taken_ns[cpu] = self._clock.now_ns()
            data = event.read()
            if not data:
                continue
            others: list[bytes] = []
            switches, lost = decode_switches(data, others)
            self._write("sched_switch", switch_rows(switches, self._options.host))
            self._on_tasks(others)
            if lost:
                self._lost += lost
                for table in ("sched_switch", *self._made_of_switches):
                    row = _loss_row(table, begin_ns, self._clock.now_ns(), lost, cpu)
                    self._write("loss", row)
        self._writer.rotate()

    def _add_own_record(self) -> None:
        """What the runtime itself tells of its retakes, where it tells something."""
        manifest, missing = self._manifest, self._manifest.missing
        target = self._target
        if not isinstance(target, Command) or target.record_fd is None:
            missing.append(Missing("P and G", "a runtime tells of them only to who started it"))
            return
        try:
            record = read_own_record(target.record_fd)
        except PretakeError as error:
            missing.append(Missing("P and G", error.problem))
            return
        told = retakes_told(target.result())
        if told is None and not len(record):
            missing.append(Missing("P and G", "the program left no record of a runtime"))
            return
        manifest.target.runtime = "reference"
        manifest.attached.append(f"own record:{RECORD_VARIABLE}")
        if told is not None and told > len(record):
            missing.append(Missing(f"{told - len(record)} retakes", "they are not in the record"))
        missing.append(Missing("calls that kept their P, run queues", "they are in no record"))
        self._write("runtime", record.runtime_rows())
        # What was drained is read again, from the disk, so that memory stays flat.
        self._writer.rotate(now=True)
        trace = Trace(self._writer.path)
        blocks = record.block_rows(
            trace.read_row_group("sched_switch", group, _OF_SWITCHES)
            for group in trace.row_groups("sched_switch", "ts_ns")
        )
        self._write("block", blocks)
        unblocked = len(record) - blocks.num_rows
        if unblocked:
            why = "the thread had not blocked, or not while the capture looked"
            missing.append(Missing(f"the block of {unblocked} retakes", why))

    def _on_tasks(self, others: list[bytes]) -> None:
        tasks = [task for task in map(decode_task, others) if task is not None]
        became = [task.pid for task in tasks if task.kind == "exec"]
        note_clocks(self._manifest.clocks_ahead_ns, became)
        self._write("task", _task_rows(tasks))

    def _write(self, table: str, rows: pa.Table) -> None:
        self._events += rows.num_rows
        self._writer.write(table, rows)


def switch_rows(switches: np.ndarray, host: bool) -> pa.Table:
    """Switch records as rows of table sched_switch.

    Args:
        switches: of :data:`tracer.kernel.perf_events.SWITCH_RECORD`.
        host: they are machine-wide: each switch is told twice, by who leaves and by who enters,
            and the first of the two is enough.
    """
    if host:
        switches = switches[switches["out"]]
    out = switches["out"]
    table = TABLES["sched_switch"]
    rows = np.zeros(len(switches), table.dtype)
    rows["ts_ns"] = switches["time_ns"]
    rows["cpu"] = switches["cpu"]
    rows["prev_tid"] = np.where(out, switches["tid"], switches["other_tid"])
    rows["next_tid"] = np.where(out, switches["other_tid"], switches["tid"])
    reason = np.where(switches["preempted"], _PREEMPTED, _BLOCKED)
    # An idle CPU's own thread neither blocks nor is preempted.
    rows["prev_state"] = np.where(out & (rows["prev_tid"] != 0), reason, UNKNOWN)
    return table.to_arrow(rows)


def retakes_told(result: dict[str, Any] | None) -> int | None:
    """How many retakes a reference runtime counted, by what ``pretake run`` left as its result."""
    runtime = (result or {}).get("runtime")
    told = runtime.get("retakes") if isinstance(runtime, dict) else None
    return told if isinstance(told, int) else None


def _task_rows(records: list[TaskRecord]) -> pa.Table:
    table = TABLES["task"]
    rows = np.zeros(len(records), table.dtype)
    code = table.column("kind").code
    for row, task in zip(rows, records, strict=True):
        row["ts_ns"], row["tid"], row["pid"] = task.time_ns, task.tid, task.pid
        row["parent_tid"], row["comm"], row["cpu"] = task.parent_tid, task.comm, task.cpu
        row["kind"] = code(task.kind)
    return table.to_arrow(rows)


def _loss_row(lost_of: str, begin_ns: int, end_ns: int, lost: int, cpu: int) -> pa.Table:
    table = TABLES["loss"]
    rows = np.zeros(1, table.dtype)
    rows["begin_ns"], rows["end_ns"], rows["lost"], rows["cpu"] = begin_ns, end_ns, lost, cpu
    rows["table"] = table.column("table").code(lost_of)
    return table.to_arrow(rows)
