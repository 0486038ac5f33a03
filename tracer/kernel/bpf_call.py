"""The system calls bpf(2) and perf_event_open(2), and the few of their uses that need no numpy.

They are apart from :mod:`tracer.kernel.bpf` so that the keeper (:mod:`tracer.capture.
keeper_process`), which keeps capabilities, runs nothing but Python's own library.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tracer.arch import this_machine

__all__ = ["bpf", "enable_statistics", "open_uprobe", "open_uprobe_link", "task_has"]

# linux/bpf.h
_MAP_LOOKUP: Final = 1
_LINK_CREATE: Final = 28
_ENABLE_STATS: Final = 32
_UPROBE_MULTI: Final = 48

_PERF_FLAG_FD_CLOEXEC: Final = 8
_PERF_ATTR_SIZE: Final = 112
_PERF_IOC_ENABLE: Final = 0x2400
_PERF_IOC_SET_BPF: Final = 0x40042408
_UPROBE_TYPE: Final = Path("/sys/bus/event_source/devices/uprobe/type")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _syscall(name: str, *arguments: object) -> int:
    result = int(_LIBC.syscall(this_machine().nr(name), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def bpf(command: int, attributes: bytes) -> int:
    """One call of bpf(2); OSError where the kernel refuses."""
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    return _syscall("bpf", command, buffer, len(buffer))


def open_uprobe(path: str, file_offset: int, program: int, pid: int) -> int:
    """Run a program where one process executes a file's code, until the descriptor is closed.

    Args:
        path: the file.
        file_offset: of the instruction.
        program: loaded as a KPROBE program.
        pid: the process; what it forks is another.
    """
    text = ctypes.create_string_buffer(os.fsencode(path))
    # perf_event_attr: type, size, config, period, sample type, read format, flags, wakeup,
    # breakpoint type, config1 (the file), config2 (the offset).
    attributes = struct.pack(
        "<IIQQQQQIIQQ",
        int(_UPROBE_TYPE.read_text("utf-8")),
        _PERF_ATTR_SIZE,
        *(0, 1, 0, 0, 0, 1, 0),
        ctypes.addressof(text),
        file_offset,
    )
    buffer = ctypes.create_string_buffer(attributes, _PERF_ATTR_SIZE)
    # The event is of one thread, but the breakpoint is in the memory that all its threads share.
    fd = _syscall("perf_event_open", buffer, pid, -1, -1, _PERF_FLAG_FD_CLOEXEC)
    try:
        fcntl.ioctl(fd, _PERF_IOC_SET_BPF, program)
        fcntl.ioctl(fd, _PERF_IOC_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_uprobe_link(path: str, file_offsets: Sequence[int], program: int, pid: int) -> int:
    """As :func:`open_uprobe`, at several places, and without CAP_SYS_ADMIN.

    Since 89ae89f53d20 ("bpf: Add multi uprobe link"); the program is loaded for UPROBE_MULTI. The
    kernel puts no breakpoint into a process but this one (uprobe_multi_link_filter), and none
    into anybody once it has ended.
    """
    text = ctypes.create_string_buffer(os.fsencode(path))
    offsets = (ctypes.c_uint64 * len(file_offsets))(*file_offsets)
    # link_create: program, target, attach type, flags; path, offsets, reference counters,
    # cookies, how many, flags, pid.
    return bpf(
        _LINK_CREATE,
        struct.pack(
            "<IIIIQQQQIII",
            *(program, 0, _UPROBE_MULTI, 0),
            *(ctypes.addressof(text), ctypes.addressof(offsets), 0, 0, len(offsets), 0, pid),
        ),
    )


def enable_statistics() -> int:
    """Let the kernel count runs of BPF programs and their time, until closed."""
    return bpf(_ENABLE_STATS, struct.pack("<I", 0))


def task_has(storage: int, value_bytes: int, pidfd: int) -> bool:
    """Whether the first thread of a process has a value in a map of task storage."""
    key, value = ctypes.c_int(pidfd), ctypes.create_string_buffer(value_bytes)
    attributes = struct.pack(
        "<IxxxxQQQ", storage, ctypes.addressof(key), ctypes.addressof(value), 0
    )
    try:
        bpf(_MAP_LOOKUP, attributes)
    except OSError:
        return False
    return True
