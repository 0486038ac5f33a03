"""The BPF programs in the kernel: loaded, attached, and their maps.

:mod:`tracer.kernel.compiler` makes them; here they meet their maps, whose sizes are only known
now.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.compiler import (
    FOLLOW_PROCESS,
    RING_TABLES,
    TASK_STORAGE,
    TRACEPOINTS,
    MapShape,
    compile_programs,
)
from tracer.kernel.ringbuf import Ring
from tracer.kernel.slots import SlotRing, slots_of
from tracer.targets.layout import LAYOUT_DTYPE, Probe, RuntimeLayout

__all__ = ["LossSpan", "Program", "RingCount", "ring_pages"]

# Share of the whole buffer that each table's ring gets, in 64ths.
_SHARES: Final = {
    "sched_switch": 12,
    "sched_wakeup": 8,
    "syscall": 16,
    "block": 16,
    "runtime": 8,
    "signal": 2,
    "task": 2,
}
_PAGE: Final = 4096
_PER_CPU_ARRAY: Final = 6  # enum bpf_map_type
# struct live_site of live.bpf.c
_LIVE_SITE: Final = np.dtype([("stack", "<u8"), ("nr", "<i8")])
# enum where of common.bpf.c
_IN_UNKNOWN: Final = 2
_BEFORE_EXEC: Final = 3


def ring_pages(buffer_bytes: int) -> dict[str, int]:
    """Pages of each table's ring, powers of two, together at most ``buffer_bytes``.

    A ring has at least one page, so a very small buffer is exceeded.
    """
    pages = {}
    for table in RING_TABLES:
        wanted = max(buffer_bytes * _SHARES[table.name] // 64 // _PAGE, 1)
        pages[table.name] = 1 << (wanted.bit_length() - 1)
    return pages


@dataclass(frozen=True)
class RingCount:
    """Records of one table since the programs were loaded, over all CPUs."""

    sent: int
    lost: int


@dataclass(frozen=True)
class LossSpan:
    """A span in which one ring lost records on one CPU, in nanoseconds."""

    table: str
    cpu: int
    begin_ns: int
    end_ns: int
    lost: int


class Program:
    """The programs in the kernel.

    Args:
        buffer_bytes: for all rings together.
        max_threads: target threads that can live at one time.
        max_sites: stacks that programs compiled with LIVE tell apart.
        defines: what the programs are compiled with, for example ``DETAIL_FULL``.

    Nothing is attached until :meth:`attach`, and :meth:`close` (or the process's end, however
    it comes) takes everything away again: it all hangs on file descriptors.

    Raises:
        PretakeError: bcc or headers are missing, the kernel lacks something, or the caller
            lacks the privilege.
    """

    def __init__(
        self,
        buffer_bytes: int,
        max_threads: int = 65536,
        max_sites: int = 2048,
        defines: Mapping[str, int] | None = None,
    ) -> None:
        self._object = compile_programs(defines or {})
        self._shapes = {shape.name: shape for shape in self._object.maps}
        self._cpus = bpf.possible_cpus()
        self._fds: dict[str, int] = {}
        self._functions: dict[str, int] = {}
        self._probe_fds: list[int] = []
        self._epoch = 0
        self.rings: dict[str, Ring | SlotRing] = {}
        online = bpf.online_cpus()
        entries = {"live_sites": max_sites, "live_stacks": max_sites}
        for table in RING_TABLES:
            size = ring_pages(buffer_bytes)[table.name] * _PAGE
            entries[f"{table.name}_ring"] = size
            entries[f"{table.name}_ends"] = self._cpus
            slots = slots_of(size, len(online), table.dtype)
            entries[f"{table.name}_slots"] = slots * len(online)
        try:
            for shape in self._object.maps:
                self._fds[shape.name] = _create(shape, entries.get(shape.name, shape.entries))
            for table in RING_TABLES:
                name, dtype = table.name, table.dtype
                if f"{name}_ring" in self._fds:
                    size = entries[f"{name}_ring"]
                    self.rings[name] = Ring(self._fds[f"{name}_ring"], size, dtype)
                    continue
                slots = entries[f"{name}_slots"] // len(online)
                ends, fd = self._fds[f"{name}_ends"], self._fds[f"{name}_slots"]
                self.rings[name] = SlotRing(ends, fd, online, self._cpus, slots, dtype)
            room = np.zeros((), self._shapes["thread_room"].dtype)
            room["left"] = max_threads
            self._update("thread_room", np.array(0, np.uint32), room)
        except PretakeError:
            self.close()
            raise

    @property
    def uprobe_links(self) -> bool:
        """Whether uprobes are to be had without CAP_SYS_ADMIN."""
        return self._object.uprobe_links

    def attach(self, leave_out: Container[str] = ()) -> list[str]:
        """Put the programs at their tracepoints; returns the names of those.

        Args:
            leave_out: tracepoints to go without, for who measures what each one costs.

        Raises:
            PretakeError: the kernel refused.
        """
        attached = [name for name in TRACEPOINTS if name not in leave_out]
        for tracepoint in attached:
            try:
                function = TRACEPOINTS[tracepoint]
                program = self._load(function, bpf.TRACING, bpf.TRACE_TRACEPOINT)
                self._probe_fds.append(bpf.open_tracepoint(program))
            except OSError as error:
                raise PretakeError(
                    f"cannot attach to tracepoint {tracepoint}: {error.strerror}",
                    "see 'pretake doctor'",
                ) from error
        return attached

    def attach_uprobe(self, probe: Probe) -> None:
        """Put a program at a function of a file, in every process that runs it.

        Raises:
            PretakeError: the kernel refused.
        """
        try:
            if self.uprobe_links:
                program = self._load(probe.handler, bpf.KPROBE, bpf.UPROBE_MULTI)
                fd = bpf.open_uprobe_link(probe.path, probe.file_offset, program)
            else:
                program = self._load(probe.handler, bpf.KPROBE)
                fd = bpf.open_uprobe(probe.path, probe.file_offset, program)
            self._probe_fds.append(fd)
        except OSError as error:
            raise PretakeError(
                f"cannot probe {probe.symbol} in {probe.path}: {error.strerror}"
            ) from error

    def detach(self) -> None:
        """Take every probe away; rings and counters stay to be read."""
        # Each uprobe waits for the kernel's grace period; together they wait for one.
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(os.close, self._probe_fds))
        self._probe_fds.clear()

    def close(self) -> None:
        """Take everything away."""
        self.detach()
        for ring in self.rings.values():
            ring.close()
        self.rings.clear()
        for fd in (*self._functions.values(), *self._fds.values()):
            os.close(fd)
        self._functions.clear()
        self._fds.clear()

    def follow(self, pid: int, *, before_exec: bool = False) -> None:
        """Make targets of the threads that a process has now and that are none yet.

        Those that a target makes are targets from birth.

        Args:
            pid: the process.
            before_exec: tell nothing of it before it becomes another program.
        """
        self._look_at_threads(pid, _BEFORE_EXEC if before_exec else _IN_UNKNOWN)

    def leave(self) -> None:
        """Record no more of any thread: to take the probes away takes a tenth of a second."""
        self._look_at_threads(0, 0)

    def _look_at_threads(self, tgid: int, where: int) -> None:
        order = np.zeros((), self._shapes["follow_orders"].dtype)
        order["tgid"], order["where"] = tgid, where
        self._update("follow_orders", np.array(0, np.uint32), order)
        try:
            bpf.run_iterator(self._load(FOLLOW_PROCESS, bpf.TRACING, bpf.TRACE_ITERATOR))
        except OSError as error:
            raise PretakeError(
                f"cannot look at the machine's threads: {error.strerror}", "see 'pretake doctor'"
            ) from error

    def threads_missed(self) -> int:
        """Threads of targets that there was no room to follow."""
        return int(self._read("thread_room", 0)["missed"])

    def set_layout(self, tgid: int, layout: RuntimeLayout) -> None:
        """Tell where process ``tgid``, which runs already, keeps its runtime."""
        self._update("runtime_layouts", np.array(tgid, np.uint32), layout.pack())

    def set_binary(self, path: Path, layout: RuntimeLayout) -> None:
        """Tell the layout of a binary, for every target process that will exec it."""
        status = path.stat()
        key = np.array([status.st_ino, status.st_size], np.uint64)
        self._update("runtime_binaries", key, layout.pack())

    @property
    def wake_fd(self) -> int:
        """Becomes readable when a target execs: the ring of table task."""
        return self._fds["task_ring"]

    def layout_of(self, tgid: int) -> np.ndarray | None:
        """Where a process keeps, or kept, its runtime: a record of ``LAYOUT_DTYPE``, or None."""
        layout = np.zeros((), LAYOUT_DTYPE)
        try:
            bpf.lookup(self._fds["runtime_layouts"], np.array(tgid, np.uint32), layout)
        except KeyError:
            return None
        return layout

    def stacks(self) -> dict[int, tuple[int, list[int]]]:
        """The stacks that threads blocked with, by stack_id.

        Returns:
            The process that each was seen in first, and its addresses, innermost first.
        """
        found = {}
        fd = self._fds["stacks"]
        for key in bpf.keys(fd, np.dtype(np.uint32)):
            stack = np.zeros((), self._shapes["stacks"].dtype)
            with contextlib.suppress(KeyError):
                bpf.lookup(fd, key, stack)
                addresses = [int(pc) for pc in stack["pc"] if pc]
                found[int(key)] = (int(stack["tgid"]), addresses)
        return found

    def set_reference_layout(self, layout: RuntimeLayout) -> None:
        """Tell the reference runtime's layout, for every target process that starts an M."""
        self._update("reference_layout", np.array(0, np.uint32), layout.pack())

    def reference_mstarts(self) -> int:
        """How many Ms of reference runtimes began in targets."""
        return int(self._read("reference_mstarts", 0))

    def live_counts(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Number of the stack (0 for none), system call and counts of each site.

        Of programs compiled with LIVE; so are the next two.
        """
        for key in bpf.keys(self._fds["live_sites"], _LIVE_SITE):
            counts = np.zeros((), self._shapes["live_sites"].dtype)
            with contextlib.suppress(KeyError):
                bpf.lookup(self._fds["live_sites"], key, counts)
                yield int(key["stack"]), int(key["nr"]), counts

    def live_others(self) -> Iterator[tuple[int, np.ndarray]]:
        """System call and counts of the sites that there was no room to tell apart."""
        if not self._read("live_others_used", 0):
            return
        for number in range(self._shapes["live_others"].entries):
            counts = self._read("live_others", number)
            if counts["retake"].any():
                yield number, counts

    def live_stack(self, number: int) -> tuple[int, list[int]]:
        """The process that a stack was seen in first, and its addresses, innermost first."""
        stack = np.zeros((), self._shapes["live_stacks"].dtype)
        bpf.lookup(self._fds["live_stacks"], np.array(number, np.uint64), stack)
        return int(stack["tgid"]), [int(pc) for pc in stack["pc"] if pc]

    def counts(self) -> dict[str, RingCount]:
        """Records sent to and lost by each ring, by table."""
        result = {}
        for number, table in enumerate(RING_TABLES):
            ring = self.rings[table.name]
            if isinstance(ring, SlotRing):
                result[table.name] = RingCount(ring.sent, ring.lost)
                continue
            per_cpu = self._read("ring_counts", number)
            result[table.name] = RingCount(int(per_cpu["sent"].sum()), int(per_cpu["lost"].sum()))
        return result

    def take_loss_spans(self) -> list[LossSpan]:
        """The spans of loss of the last epoch but this; the next epoch begins.

        Call it now and then while records are lost. The half that is read was left by the
        programs one call ago, so nobody writes it any more.
        """
        old = (self._epoch + 1) & 1
        found = []
        for number, table in enumerate(RING_TABLES):
            slot = 2 * number + old
            per_cpu = self._read("loss_spans", slot)
            for cpu in np.flatnonzero(per_cpu["lost"]).tolist():
                begin, end, lost = per_cpu[cpu].item()
                found.append(LossSpan(table.name, cpu, begin, end, lost))
            if per_cpu["lost"].any():
                self._update("loss_spans", np.array(slot, np.uint32), np.zeros_like(per_cpu))
        self._epoch ^= 1
        self._update("loss_epoch", np.array(0, np.uint32), np.array(self._epoch, np.uint32))
        return found

    def run_statistics(self) -> dict[str, dict[str, int]]:
        """What the kernel says of each loaded program.

        Returns:
            By program: ``run_time_ns`` and ``run_cnt`` (0 unless the kernel counts them, see
            :func:`tracer.kernel.bpf.enable_statistics`), ``recursion_misses`` (how often it was
            left out, because it ran on that CPU already).
        """
        return {name: _fdinfo_numbers(fd) for name, fd in self._functions.items()}

    def _load(self, function: str, kind: int, attach: int = 0) -> int:
        if function not in self._functions:
            code = self._object.linked(function, self._fds)
            btf_id = self._object.btf_ids.get(function, 0)
            if kind == bpf.TRACING and not btf_id:
                raise PretakeError(
                    f"this kernel has no place for {function}", "see 'pretake doctor'"
                )
            try:
                self._functions[function] = bpf.load_program(function, kind, code, attach, btf_id)
            except bpf.LoadError as error:
                raise PretakeError(
                    f"the kernel refuses the program {function}: {str(error).splitlines()[-1]}",
                    "see 'pretake doctor'",
                ) from error
        return self._functions[function]

    def _read(self, name: str, index: int) -> np.ndarray:
        """The value at an index of an array map; of a per-CPU one, each CPU's."""
        shape = self._shapes[name]
        cpus = (self._cpus,) if shape.kind == _PER_CPU_ARRAY else ()
        value = np.zeros(cpus, shape.dtype)
        bpf.lookup(self._fds[name], np.array(index, np.uint32), value)
        return value

    def _update(self, name: str, key: np.ndarray, value: np.ndarray) -> None:
        try:
            bpf.update(self._fds[name], key, value)
        except OSError as error:
            raise PretakeError(f"no room in {name}: {error.strerror}") from error


def _create(shape: MapShape, entries: int) -> int:
    try:
        if shape.kind == TASK_STORAGE:
            return bpf.create_task_storage(shape.name, shape.value)
        return bpf.create_map(shape.name, shape.kind, shape.key, shape.value, entries, shape.flags)
    except PermissionError as error:
        raise PretakeError(
            "the kernel lets only root load BPF programs", "run it with sudo"
        ) from error
    except OSError as error:
        raise PretakeError(
            f"the kernel makes no map {shape.name} of {entries} entries: {error.strerror}",
            "take a smaller buffer, or see 'pretake doctor'",
        ) from error


def _fdinfo_numbers(fd: int) -> dict[str, int]:
    wanted = ("run_time_ns", "run_cnt", "recursion_misses")
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(pairs.get(name, "0")) for name in wanted}
