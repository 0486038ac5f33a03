"""Context switches of threads through perf_event_open(2), and the ring they arrive in.

One software event on one thread (``PERF_COUNT_SW_DUMMY`` with ``context_switch``) tells every
switch of that thread, at ``perf_event_paranoid`` 2 without any privilege. The record carries the
thread's own pid and tid (``sample_id_all``), and says whether the thread was preempted or left by
itself. The discussion of Go issue 29734 stopped at the missing tid; one event for each thread
gives it.

The layouts are those of ``include/uapi/linux/perf_event.h``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tracer.arch import this_machine
from tracer.errors import PretakeError
from tracer.kernel.fence import fence

__all__ = [
    "SWITCH_RECORD",
    "SwitchEvent",
    "TaskRecord",
    "decode_switches",
    "decode_task",
    "paranoid",
]

_PERF_FLAG_FD_CLOEXEC: Final = 1 << 3
_PERF_TYPE_SOFTWARE: Final = 1
_PERF_COUNT_SW_DUMMY: Final = 9
_SAMPLE_TID: Final = 1 << 1
_SAMPLE_TIME: Final = 1 << 2
_SAMPLE_CPU: Final = 1 << 7
_CLOCK_MONOTONIC: Final = 1

_DISABLED: Final = 1 << 0
_INHERIT: Final = 1 << 1
_EXCLUDE_KERNEL: Final = 1 << 5
_EXCLUDE_HV: Final = 1 << 6
_COMM: Final = 1 << 9
_ENABLE_ON_EXEC: Final = 1 << 12
_TASK: Final = 1 << 13
_WATERMARK: Final = 1 << 14
_SAMPLE_ID_ALL: Final = 1 << 18
_USE_CLOCKID: Final = 1 << 25
_CONTEXT_SWITCH: Final = 1 << 26

_RECORD_LOST: Final = 2
_RECORD_COMM: Final = 3
_RECORD_EXIT: Final = 4
_RECORD_FORK: Final = 7
_RECORD_SWITCH: Final = 14
_RECORD_SWITCH_CPU_WIDE: Final = 15
_MISC_COMM_EXEC: Final = 1 << 13
_MISC_SWITCH_OUT: Final = 1 << 13
_MISC_SWITCH_OUT_PREEMPT: Final = 1 << 14

# type, size, config, period, sample_type, read_format, flags, watermark, bp_type, config1,
# config2, branch, regs_user, stack_user, clockid, regs_intr, aux_watermark, max_stack,
# reserved, aux_sample_size, reserved: PERF_ATTR_SIZE_VER6.
_ATTR: Final = struct.Struct("=IIQQQQQIIQQQQIiQIHHII")
_HEADER: Final = struct.Struct("=IHH")
_SAMPLE_TAIL: Final = struct.Struct("=iiqi4x")
_POSITION: Final = struct.Struct("=Q")
_IOC_SET_OUTPUT: Final = 0x2405
_DATA_HEAD: Final = 1024  # offset of data_head in the control page; data_tail follows it
_DATA_TAIL: Final = 1032

_LIBC = ctypes.CDLL(None, use_errno=True)

_SAMPLE_ID = [("pid", "<i4"), ("tid", "<i4"), ("time_ns", "<i8"), ("cpu", "<i4"), ("_", "<i4")]
_RAW_SWITCH = np.dtype([("type", "<u4"), ("misc", "<u2"), ("size", "<u2"), *_SAMPLE_ID])
_RAW_CPU_WIDE = np.dtype(
    [
        ("type", "<u4"),
        ("misc", "<u2"),
        ("size", "<u2"),
        ("other_pid", "<i4"),
        ("other_tid", "<i4"),
        *_SAMPLE_ID,
    ]
)
SWITCH_RECORD = np.dtype(
    [
        ("time_ns", "<i8"),
        ("pid", "<i4"),
        ("tid", "<i4"),
        ("other_tid", "<i4"),
        ("cpu", "<i4"),
        ("out", "?"),
        ("preempted", "?"),
    ]
)
"""One switch: CLOCK_MONOTONIC ns, whose, the other side's tid (-1 where the kernel does not tell
it: only a machine-wide event does), CPU, out or in, and for an out whether the thread could have
gone on (``PERF_RECORD_MISC_SWITCH_OUT_PREEMPT``)."""


def paranoid() -> int:
    """``kernel.perf_event_paranoid``: up to 2, an ordinary user may watch his own threads."""
    try:
        return int(Path("/proc/sys/kernel/perf_event_paranoid").read_text("utf-8"))
    except OSError as error:
        raise PretakeError(
            "this kernel has no perf events", "use another retake policy or backend"
        ) from error


class SwitchEvent:
    """The switches of one thread, or of one CPU.

    Args:
        tid: the thread; -1 for every thread on ``cpu`` (needs CAP_PERFMON).
        cpu: the CPU; -1 for wherever the thread runs.
        pages: size of the ring, a power of two.
        watermark_bytes: fill at which a poll of the descriptor wakes: 1 wakes at each record,
            0 at half the ring. (``wakeup_events`` would never wake for these records: it counts
            samples only.)
        inherit: also the threads that this one makes later (needs ``cpu`` >= 0: the kernel
            gives an inherited per-thread event no ring).
        tasks: also births, names and ends of threads.
        from_exec: tell nothing before the thread's next exec.
        share: put the records into that event's ring, which is of the same CPU.

    Raises:
        PretakeError: the kernel forbids it, or the thread is gone.
    """

    def __init__(
        self,
        tid: int,
        cpu: int = -1,
        *,
        pages: int = 1,
        watermark_bytes: int = 1,
        inherit: bool = False,
        tasks: bool = False,
        from_exec: bool = False,
        share: SwitchEvent | None = None,
    ) -> None:
        self.tid = tid
        flags = (_INHERIT if inherit else 0) | (_TASK | _COMM if tasks else 0)
        flags |= _DISABLED | _ENABLE_ON_EXEC if from_exec else 0
        self._fd = _open(tid, cpu, watermark_bytes or pages * mmap.PAGESIZE // 2, flags)
        self._map: mmap.mmap | None = None
        if share is not None:
            fcntl.ioctl(self._fd, _IOC_SET_OUTPUT, share.fileno())
            return
        try:
            self._map = mmap.mmap(self._fd, (1 + pages) * mmap.PAGESIZE)
        except OSError as error:
            os.close(self._fd)
            raise PretakeError(
                f"no memory for a perf ring of {pages} pages ({error.strerror})",
                "raise kernel.perf_event_mlock_kb or take a smaller buffer",
            ) from error
        self._start = mmap.PAGESIZE
        self._size = pages * mmap.PAGESIZE
        self._tail = 0

    def fileno(self) -> int:
        """The descriptor, for poll and epoll."""
        return self._fd

    @property
    def map(self) -> mmap.mmap:
        """The control page and the ring, for a reader in C, who then is the only one."""
        assert self._map is not None, "it shares another's ring"
        return self._map

    def read(self) -> bytes:
        """All whole records that are there, and their room given back."""
        if self._map is None:
            return b""
        (head,) = _POSITION.unpack_from(self._map, _DATA_HEAD)
        fence()
        length = head - self._tail
        if length == 0:
            return b""
        begin = self._tail % self._size
        first = min(length, self._size - begin)
        data = self._map[self._start + begin : self._start + begin + first]
        if first < length:
            data += self._map[self._start : self._start + length - first]
        self._tail = head
        fence()
        _POSITION.pack_into(self._map, _DATA_TAIL, head)
        return data

    def is_blocked(self) -> bool:
        """Drain, and tell whether the newest switch says that the thread blocked.

        The way for a scheduler that wants to know one thing of one thread, and fast: what
        happened before the newest record is over.
        """
        data = self.read()
        if len(data) < _RAW_SWITCH.itemsize:
            return False
        kind, misc, _ = _HEADER.unpack_from(data, len(data) - _RAW_SWITCH.itemsize)
        return (
            kind == _RECORD_SWITCH
            and bool(misc & _MISC_SWITCH_OUT)
            and not misc & _MISC_SWITCH_OUT_PREEMPT
        )

    def close(self) -> None:
        """Give the ring and the descriptor back; a second call does nothing."""
        if self._fd >= 0:
            if self._map is not None:
                self._map.close()
            os.close(self._fd)
            self._fd = -1


def _open(tid: int, cpu: int, watermark_bytes: int, more: int) -> int:
    flags = _EXCLUDE_KERNEL | _EXCLUDE_HV | _WATERMARK | _SAMPLE_ID_ALL | _USE_CLOCKID
    flags |= _CONTEXT_SWITCH | more
    attr = _ATTR.pack(
        *(_PERF_TYPE_SOFTWARE, _ATTR.size, _PERF_COUNT_SW_DUMMY, 0),
        *(_SAMPLE_TID | _SAMPLE_TIME | _SAMPLE_CPU, 0, flags, watermark_bytes),
        *(0, 0, 0, 0, 0, 0, _CLOCK_MONOTONIC, 0, 0, 0, 0, 0, 0),
    )
    fd = int(
        _LIBC.syscall(
            ctypes.c_long(this_machine().nr("perf_event_open")),
            ctypes.c_char_p(attr),
            ctypes.c_int(tid),
            ctypes.c_int(cpu),
            ctypes.c_int(-1),
            ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC),
        )
    )
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number in (errno.EACCES, errno.EPERM):
        raise PretakeError(
            f"perf events are forbidden here (kernel.perf_event_paranoid is {paranoid()})",
            "as root: sysctl kernel.perf_event_paranoid=2, or run as root",
        )
    if number == errno.ESRCH:
        raise PretakeError(f"no such thread: {tid}", "it may have ended")
    raise PretakeError(f"perf_event_open failed: {os.strerror(number)}")


def decode_switches(data: bytes, others: list[bytes] | None = None) -> tuple[np.ndarray, int]:
    """Decode what :meth:`SwitchEvent.read` returned, with no Python per record.

    Args:
        data: whole records, as read from one ring.
        others: where records of other kinds go, if they are wanted (:func:`decode_task`).

    Returns:
        An array of :data:`SWITCH_RECORD`, in the ring's order, and how many records the kernel
        said it lost (``PERF_RECORD_LOST``).
    """
    parts: list[np.ndarray] = []
    lost = 0
    offset = 0
    while offset < len(data):
        kind, _, size = _HEADER.unpack_from(data, offset)
        raw = {_RECORD_SWITCH: _RAW_SWITCH, _RECORD_SWITCH_CPU_WIDE: _RAW_CPU_WIDE}.get(kind)
        if raw is None or size != raw.itemsize:
            if kind == _RECORD_LOST:
                lost += struct.unpack_from("=Q", data, offset + 16)[0]
            elif others is not None:
                others.append(data[offset : offset + size])
            offset += size
            continue
        # A run of records of this kind has a constant stride; it ends at the first that is
        # of another kind, which is rare (a loss).
        run = np.frombuffer(data, raw, (len(data) - offset) // raw.itemsize, offset)
        same = (run["type"] == kind) & (run["size"] == size)
        length = len(run) if same.all() else int(np.argmin(same))
        parts.append(_switches(run[:length]))
        offset += length * raw.itemsize
    return (np.concatenate(parts) if parts else np.empty(0, SWITCH_RECORD)), lost


@dataclass(frozen=True)
class TaskRecord:
    """A thread was made (``fork``), named (``name``, ``exec``) or ended (``exit``)."""

    kind: str
    time_ns: int
    pid: int
    tid: int
    parent_tid: int
    comm: bytes
    cpu: int


def decode_task(record: bytes) -> TaskRecord | None:
    """One record of another kind than a switch; None for one that tells of no thread's life."""
    kind, misc, _ = _HEADER.unpack_from(record)
    _, _, time_ns, cpu = _SAMPLE_TAIL.unpack_from(record, len(record) - 24)
    if kind in (_RECORD_FORK, _RECORD_EXIT):
        pid, _, tid, parent = struct.unpack_from("=4i", record, 8)
        word = "fork" if kind == _RECORD_FORK else "exit"
        return TaskRecord(word, time_ns, pid, tid, parent if word == "fork" else -1, b"", cpu)
    if kind == _RECORD_COMM:
        pid, tid = struct.unpack_from("=2i", record, 8)
        word = "exec" if misc & _MISC_COMM_EXEC else "name"
        comm = record[16 : len(record) - 24].split(b"\0")[0]
        return TaskRecord(word, time_ns, pid, tid, -1, comm, cpu)
    return None


def _switches(run: np.ndarray) -> np.ndarray:
    switches = np.empty(len(run), SWITCH_RECORD)
    for name in ("time_ns", "pid", "tid", "cpu"):
        switches[name] = run[name]
    switches["other_tid"] = run["other_tid"] if "other_tid" in (run.dtype.names or ()) else -1
    switches["out"] = run["misc"] & _MISC_SWITCH_OUT != 0
    switches["preempted"] = run["misc"] & _MISC_SWITCH_OUT_PREEMPT != 0
    return switches
