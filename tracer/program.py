"""The BPF programs of ``tracer/bpf``: compiled, loaded, attached, and their maps.

The files are joined into one text, each behind a ``#line`` so that a message names the right
place, and compiled by bcc with the record structs made from :mod:`tracer.schema` and the running
kernel's offsets from its BTF. What varies goes in as ``-D`` numbers; no text is substituted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracer.adapters.layout import Probe, RuntimeLayout, layout_c_header
from tracer.bcc_loader import kernel_source, load_bcc
from tracer.btf import kernel_btf
from tracer.errors import PretakeError
from tracer.ringbuf import Ring
from tracer.schema import TABLES, c_header

__all__ = ["RAW_TRACEPOINTS", "LossSpan", "Program", "RingCount", "ring_pages"]

SOURCES: Final = (
    "common.bpf.c",
    "runtime_state.bpf.c",
    "runtime_probes.bpf.c",
    "signals.bpf.c",
    "sched.bpf.c",
    "syscalls.bpf.c",
    "tasks.bpf.c",
)

RAW_TRACEPOINTS: Final = {
    # Those that tell of new targets come first, so that no target is born unseen.
    "sched_process_fork": "on_sched_process_fork",
    "sched_process_exec": "on_sched_process_exec",
    "sched_process_exit": "on_sched_process_exit",
    "task_rename": "on_task_rename",
    "sys_exit": "on_sys_exit",
    "sys_enter": "on_sys_enter",
    "sched_waking": "on_sched_waking",
    "sched_wakeup_new": "on_sched_wakeup_new",
    "signal_generate": "on_signal_generate",
    "signal_deliver": "on_signal_deliver",
    "sched_switch": "on_sched_switch",
}
"""Raw tracepoints and the programs that go there, in the order they are attached."""

RING_TABLES: Final = tuple(table for table in TABLES.values() if table.ring)

_OFFSETS: Final = {
    # The first struct and path that this kernel has.
    "TASK_PID": (("task_struct", "pid"),),
    "TASK_TGID": (("task_struct", "tgid"),),
    "TASK_COMM": (("task_struct", "comm"),),
    # __state since 2f064a59a11f ("sched: Change task_struct::state").
    "TASK_STATE": (("task_struct", "__state"), ("task_struct", "state")),
    # In thread_info since bcf9033e5449 ("sched: move CPU field back into thread_info").
    "TASK_CPU": (("task_struct", "thread_info.cpu"), ("task_struct", "cpu")),
    "TASK_FSBASE": (("task_struct", "thread.fsbase"),),
    "TASK_MM": (("task_struct", "mm"),),
    "MM_EXE_FILE": (("mm_struct", "exe_file"),),
    "MM_START_CODE": (("mm_struct", "start_code"),),
    "FILE_INODE": (("file", "f_inode"),),
    "INODE_INO": (("inode", "i_ino"),),
    "INODE_SIZE": (("inode", "i_size"),),
    "REGS_NR": (("pt_regs", "orig_ax"),),
    "REGS_PC": (("pt_regs", "ip"),),
    "REGS_ARG0": (("pt_regs", "di"),),
    "REGS_ARG1": (("pt_regs", "si"),),
    "REGS_ARG2": (("pt_regs", "dx"),),
}

# Share of the whole buffer that each table's ring gets, in 64ths.
_SHARES: Final = {
    "sched_switch": 16,
    "sched_wakeup": 16,
    "syscall": 16,
    "block": 8,
    "runtime": 4,
    "signal": 2,
    "task": 2,
}
_PAGE: Final = 4096
_BPF_ANY: Final = 0


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
        defines: further ``-D``, for example ``DETAIL_FULL``.

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
        defines: Mapping[str, int] | None = None,
    ) -> None:
        self._pages = ring_pages(buffer_bytes)
        self._lib = load_bcc().libbcc.lib
        flags = {
            "MAX_THREADS": max_threads,
            **_kernel_defines(),
            **{f"{name.upper()}_PAGES": pages for name, pages in self._pages.items()},
            **(defines or {}),
        }
        self._bpf = _compile([f"-D{name}={value}" for name, value in flags.items()])
        self._tracepoint_fds: dict[str, int] = {}
        self._uprobe_fds: list[int] = []
        self._functions: dict[str, int] = {}
        self._epoch = 0
        self.rings = {
            table.name: Ring(
                self._map_fd(f"{table.name}_ring"), self._ring_bytes(table.name), table.dtype
            )
            for table in RING_TABLES
        }

    def attach(self) -> list[str]:
        """Put the programs at their tracepoints; returns the names of those."""
        for tracepoint, function in RAW_TRACEPOINTS.items():
            fd = self._lib.bpf_attach_raw_tracepoint(
                self._load(function, "RAW_TRACEPOINT"), tracepoint.encode()
            )
            if fd < 0:
                reason = os.strerror(ctypes.get_errno())
                raise PretakeError(f"cannot attach to tracepoint {tracepoint} ({reason})")
            self._tracepoint_fds[tracepoint] = fd
        return list(self._tracepoint_fds)

    def attach_uprobe(self, probe: Probe) -> None:
        """Put a program at a function of a file, in every process that runs it.

        Raises:
            PretakeError: the kernel refused.
        """
        name = f"pretake_{os.getpid()}_{len(self._uprobe_fds)}"
        fd = self._lib.bpf_attach_uprobe(
            self._load(probe.handler, "KPROBE"),
            0,
            name.encode(),
            os.fsencode(probe.path),
            probe.file_offset,
            -1,
            0,
        )
        if fd < 0:
            reason = os.strerror(ctypes.get_errno())
            raise PretakeError(f"cannot probe {probe.symbol} in {probe.path} ({reason})")
        self._uprobe_fds.append(fd)

    def detach(self) -> None:
        """Take every probe away; rings and counters stay to be read."""
        for fd in self._tracepoint_fds.values():
            os.close(fd)
        self._tracepoint_fds.clear()
        # Each waits for the kernel's grace period; side by side they wait for the same one.
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(self._lib.bpf_close_perf_event_fd, self._uprobe_fds))
        self._uprobe_fds.clear()

    def close(self) -> None:
        """Take everything away."""
        self.detach()
        for ring in self.rings.values():
            ring.close()
        self._bpf.cleanup()

    def add_thread(self, tid: int, tgid: int, where: str) -> None:
        """Make a thread a target.

        Args:
            tid: the thread.
            tgid: its process.
            where: ``before_exec`` for one that is yet to become the program asked for, else
                ``unknown``.
        """
        states = {"unknown": 2, "before_exec": 3}
        threads = self._bpf[b"threads"]
        state = threads.Leaf()
        state.tgid = tgid
        state.where = states[where]
        threads[threads.Key(tid)] = state

    def threads(self) -> set[int]:
        """Ids of the threads that are targets now."""
        return {key.value for key in self._bpf[b"threads"]}

    def threads_missed(self) -> int:
        """New threads of targets that there was no room to follow."""
        return int(self._bpf[b"threads_missed"][0].value)

    def set_layout(self, tgid: int, layout: RuntimeLayout) -> None:
        """Tell where process ``tgid``, which runs already, keeps its runtime."""
        key = np.array(tgid, np.uint32)
        self._update("runtime_layouts", key, layout.pack())

    def set_binary(self, path: Path, layout: RuntimeLayout) -> None:
        """Tell the layout of a binary, for every target process that will exec it."""
        status = path.stat()
        key = np.array([status.st_ino, status.st_size], np.uint64)
        self._update("runtime_binaries", key, layout.pack())

    def set_reference_layout(self, layout: RuntimeLayout) -> None:
        """Tell the reference runtime's layout, for every target process that starts an M."""
        self._update("reference_layout", np.array(0, np.uint32), layout.pack())

    def reference_mstarts(self) -> int:
        """How many Ms of reference runtimes began in targets."""
        return int(self._bpf[b"reference_mstarts"][0].value)

    def counts(self) -> dict[str, RingCount]:
        """Records sent to and lost by each ring, by table."""
        counts = self._bpf[b"ring_counts"]
        result = {}
        for number, table in enumerate(RING_TABLES):
            per_cpu = counts[number]
            result[table.name] = RingCount(
                sum(count.sent for count in per_cpu), sum(count.lost for count in per_cpu)
            )
        return result

    def take_loss_spans(self) -> list[LossSpan]:
        """The spans of loss of the last epoch but this; the next epoch begins.

        Call it now and then while records are lost. The half that is read was left by the
        programs one call ago, so nobody writes it any more.
        """
        spans = self._bpf[b"loss_spans"]
        old = (self._epoch + 1) & 1
        found = []
        for number, table in enumerate(RING_TABLES):
            slot = spans.Key(2 * number + old)
            per_cpu = spans[slot]
            for cpu, span in enumerate(per_cpu):
                if span.lost:
                    found.append(LossSpan(table.name, cpu, span.begin_ns, span.end_ns, span.lost))
            if any(span.lost for span in per_cpu):
                spans[slot] = spans.Leaf()
        self._epoch ^= 1
        epoch = self._bpf[b"loss_epoch"]
        epoch[epoch.Key(0)] = epoch.Leaf(self._epoch)
        return found

    def run_statistics(self) -> dict[str, dict[str, int]]:
        """What the kernel says of each loaded program.

        Returns:
            By program: ``run_time_ns`` and ``run_cnt`` (0 unless the kernel's
            ``bpf_stats_enabled`` is on), ``recursion_misses`` (how often it was left out,
            because it ran on that CPU already).
        """
        return {name: _fdinfo_numbers(fd) for name, fd in self._functions.items()}

    def _load(self, function: str, kind: str) -> int:
        if function not in self._functions:
            bcc = load_bcc()
            try:
                with _stderr_to_text() as log:
                    loaded = self._bpf.load_func(function.encode(), getattr(bcc.BPF, kind))
            except Exception as error:
                raise PretakeError(
                    f"the kernel refuses the program {function}: {_last_line(log(), error)}",
                    "see 'pretake doctor'",
                ) from error
            self._functions[function] = int(loaded.fd)
        return self._functions[function]

    def _map_fd(self, name: str) -> int:
        return int(self._lib.bpf_table_fd(self._bpf.module, name.encode()))

    def _ring_bytes(self, table: str) -> int:
        return self._pages[table] * _PAGE

    def _update(self, name: str, key: np.ndarray, value: np.ndarray) -> None:
        failed = self._lib.bpf_update_elem(
            self._map_fd(name),
            key.ctypes.data_as(ctypes.c_void_p),
            value.ctypes.data_as(ctypes.c_void_p),
            _BPF_ANY,
        )
        if failed:
            raise PretakeError(f"no room in {name}: {os.strerror(ctypes.get_errno())}")


def _kernel_defines() -> dict[str, int]:
    btf = kernel_btf()
    defines: dict[str, int] = {}
    for name, places in _OFFSETS.items():
        offset = -1
        for struct_name, path in reversed(places):
            with contextlib.suppress(KeyError):
                offset = btf.offset(struct_name, path)
        defines[f"OFFSET_{name}"] = offset
    # preempt, prev, next, and since 5.18 prev_state.
    if btf.tracepoint_arguments("sched_switch") >= 4:
        defines["SCHED_SWITCH_HAS_PREV_STATE"] = 1
    return defines


def source_text() -> str:
    """All programs as one text."""
    folder = resources.files("tracer") / "bpf"
    parts = []
    for name in SOURCES:
        parts.append(f'#line 1 "{name}"\n{(folder / name).read_text()}')
    return "\n".join(parts)


def records_header() -> str:
    """The record structs and the numbers of the rings."""
    rings = [f"\tRING_{table.name.upper()}," for table in RING_TABLES]
    return "\n".join([c_header(), "enum ring {", *rings, "\tRING_COUNT,", "};", ""])


def _compile(flags: list[str]) -> Any:  # noqa: ANN401 - bcc has no types
    bcc = load_bcc()
    if "BCC_KERNEL_SOURCE" not in os.environ:
        os.environ["BCC_KERNEL_SOURCE"] = str(kernel_source())
    with tempfile.TemporaryDirectory(prefix="pretake-") as folder:
        Path(folder, "records.h").write_text(records_header())
        Path(folder, "layout.h").write_text(layout_c_header())
        try:
            with _stderr_to_text() as log:
                return bcc.BPF(text=source_text().encode(), cflags=[f"-I{folder}", *flags])
        except Exception as error:
            if os.geteuid() != 0:
                raise PretakeError(
                    "the kernel lets only root load BPF programs", "run it with sudo"
                ) from error
            raise PretakeError(
                f"the BPF programs cannot be loaded: {_last_line(log(), error)}",
                "see 'pretake doctor'",
            ) from error


@contextlib.contextmanager
def _stderr_to_text() -> Iterator[Any]:
    """Catch what bcc's library writes to file descriptor 2; yields a function that tells it."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        text = ""
        try:
            yield lambda: text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")


def _last_line(log: str, error: Exception) -> str:
    """The line of a compiler's or verifier's log that tells most."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines[-1:] or [str(error)])[0]


def _fdinfo_numbers(fd: int) -> dict[str, int]:
    wanted = ("run_time_ns", "run_cnt", "recursion_misses")
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(pairs.get(name, "0")) for name in wanted}
