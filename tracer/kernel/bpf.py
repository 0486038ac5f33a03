"""The few system calls of bpf(2) and perf_event_open(2) that a capture makes.

Everything made here is a file descriptor, so it disappears with the process, however that ends.
Errors are OSError, or :class:`LoadError` with the verifier's message.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from tracer.kernel.bpf_call import bpf

__all__ = [
    "KPROBE",
    "TRACE_ITERATOR",
    "TRACE_TRACEPOINT",
    "TRACING",
    "UPROBE_MULTI",
    "LoadError",
    "create_map",
    "create_task_storage",
    "delete",
    "keys",
    "load_program",
    "lookup",
    "online_cpus",
    "open_tracepoint",
    "possible_cpus",
    "run_iterator",
    "update",
]

# linux/bpf.h
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY, _PROG_LOAD = range(6)
_RAW_TRACEPOINT_OPEN: Final = 17
_BTF_LOAD: Final = 18
_LINK_CREATE: Final = 28
_ITER_CREATE: Final = 33
_TASK_STORAGE: Final = 29  # enum bpf_map_type
_NO_PREALLOC: Final = 1
KPROBE: Final = 2  # enum bpf_prog_type
TRACING: Final = 26
TRACE_TRACEPOINT: Final = 23  # enum bpf_attach_type
TRACE_ITERATOR: Final = 28
UPROBE_MULTI: Final = 48

_MAX_ENTRIES: Final = (1 << 32) - 1
_LOG_BYTES: Final = 1 << 20


class LoadError(Exception):
    """The verifier refused a program; the text is the end of its log."""


def _name(name: str) -> bytes:
    return name.encode()[:15]


def possible_cpus() -> int:
    """How many values a per-CPU map has for each key."""
    text = Path("/sys/devices/system/cpu/possible").read_text("utf-8")
    return max(int(number) for part in text.split(",") for number in part.split("-")) + 1


def online_cpus() -> list[int]:
    """The numbers of the CPUs that are there now."""
    cpus: list[int] = []
    for part in Path("/sys/devices/system/cpu/online").read_text("utf-8").strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def create_map(name: str, kind: int, key: int, value: int, entries: int, flags: int) -> int:
    """A map of ``entries`` with keys and values of so many bytes; a ring is its entries long."""
    if entries > _MAX_ENTRIES:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    return bpf(
        _MAP_CREATE,
        struct.pack("<IIIIIII16s", kind, key, value, entries, flags, 0, 0, _name(name)),
    )


def create_task_storage(name: str, value: int) -> int:
    """A map with a value of so many bytes on each task_struct that a program gives one to."""
    # The kernel wants both types described: an int and a struct, of which it asks the size alone.
    names = b"\0int\0value\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("<III", 5, 4 << 24, value)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    text = header + types + names
    blob = ctypes.create_string_buffer(text, len(text))
    btf = bpf(_BTF_LOAD, struct.pack("<QQI", ctypes.addressof(blob), 0, len(text)))
    try:
        # As in create_map; interface, BTF, type of the key, type of the value.
        return bpf(
            _MAP_CREATE,
            struct.pack(
                "<IIIIIII16sIIII",
                *(_TASK_STORAGE, 4, value, 0, _NO_PREALLOC, 0, 0, _name(name)),
                *(0, btf, 1, 2),
            ),
        )
    finally:
        os.close(btf)


def load_program(name: str, kind: int, code: bytes, attach: int = 0, btf_id: int = 0) -> int:
    """Load instructions, verified.

    Args:
        name: for who lists the kernel's programs.
        kind: ``enum bpf_prog_type``.
        code: the instructions.
        attach: how it will be attached, where a kind has several ways.
        btf_id: of what a TRACING program is attached to (:meth:`tracer.kernel.btf.Btf.attach_id`).

    Raises:
        LoadError: the verifier refused them.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Dual BSD/GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)

    def load(log_level: int) -> int:
        size, address = (_LOG_BYTES, ctypes.addressof(log)) if log_level else (0, 0)
        attributes = struct.pack(
            "<IIQQIIQII16sIIIIQIIQII",
            kind,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
            log_level,
            size,
            address,
            0,
            0,
            _name(name),
            0,
            attach,
            # No BTF of its own, nor what that would tell of functions and lines.
            *(0, 0, 0, 0, 0, 0, 0),
            btf_id,
        )
        return bpf(_PROG_LOAD, attributes)

    try:
        return load(0)
    except OSError as error:
        # Once more, for the reason; a log costs time, and is seldom wanted.
        try:
            return load(1)
        except OSError:
            reason = log.value.decode("utf-8", "replace")[-2000:].strip()
            raise LoadError(reason or error.strerror) from error


def open_tracepoint(program: int) -> int:
    """Run a program at the tracepoint it was loaded for until the descriptor is closed."""
    return bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program))


def run_iterator(program: int) -> None:
    """Run a program once for each of the things that it was loaded to walk over."""
    link = bpf(_LINK_CREATE, struct.pack("<IIII", program, 0, TRACE_ITERATOR, 0))
    try:
        walk = bpf(_ITER_CREATE, struct.pack("<II", link, 0))
        try:
            while os.read(walk, 4096):
                pass
        finally:
            os.close(walk)
    finally:
        os.close(link)


def _element(command: int, fd: int, key: np.ndarray, value: np.ndarray, flags: int = 0) -> None:
    bpf(command, struct.pack("<IxxxxQQQ", fd, key.ctypes.data, value.ctypes.data, flags))


def lookup(fd: int, key: np.ndarray, value: np.ndarray) -> None:
    """Read the value of ``key`` into ``value``; KeyError where there is none."""
    try:
        _element(_MAP_LOOKUP, fd, key, value)
    except FileNotFoundError:
        raise KeyError(key) from None


def update(fd: int, key: np.ndarray, value: np.ndarray) -> None:
    """Set the value of ``key``."""
    _element(_MAP_UPDATE, fd, key, value)


def delete(fd: int, key: np.ndarray) -> None:
    """Remove ``key``; KeyError where there is none."""
    try:
        bpf(_MAP_DELETE, struct.pack("<IxxxxQ", fd, key.ctypes.data))
    except FileNotFoundError:
        raise KeyError(key) from None


def keys(fd: int, dtype: np.dtype[np.generic]) -> Iterator[np.ndarray]:
    """The keys of a map, which may change meanwhile."""
    key, following = None, np.zeros((), dtype)
    while True:
        address = 0 if key is None else key.ctypes.data
        try:
            bpf(_MAP_NEXT_KEY, struct.pack("<IxxxxQQQ", fd, address, following.ctypes.data, 0))
        except FileNotFoundError:
            return
        key = following.copy()
        yield key
