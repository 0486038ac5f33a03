"""The few system calls that the parser of strangers' files still has: seccomp(2), filter mode.

The filter is a classic BPF program that the kernel runs at every system call of the process, and
of all it may become. A call that is not on the list fails with EPERM; one of another
architecture's numbering (32-bit, x32) ends the process, as it would be read by wrong numbers.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

__all__ = ["ALLOWED", "forbid_new_privileges", "install"]

# linux/audit.h, asm/unistd.h: numbers of the calls below, in their order.
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

ALLOWED: Final = {
    # Name: its number on x86-64 and on arm64.
    "read": (0, 63),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "close": (3, 57),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "clock_gettime": (228, 113),
    "rt_sigreturn": (15, 139),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""All of it; mmap and mprotect besides, as long as they ask for no executable memory."""

_NO_CODE: Final = {"mmap": (9, 222), "mprotect": (10, 226)}
_PROT_EXEC: Final = 4
_X32: Final = 0x40000000

# linux/bpf_common.h and linux/seccomp.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _THIRD_ARGUMENT = 0, 4, 32
_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050000 | 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def forbid_new_privileges() -> None:
    """Let no exec of this process give it more than it has; a filter needs it.

    Raises:
        OSError: the kernel refused.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0)


def install() -> None:
    """Leave the calling process, for good, with :data:`ALLOWED`. It must have one thread.

    Raises:
        OSError: the kernel has no seccomp, or the architecture is another one.
    """
    program = _program()
    instructions = ctypes.create_string_buffer(program, len(program))

    class Fprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    fprog = Fprog(len(program) // 8, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(fprog))


def _program() -> bytes:
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(f"no filter for {machine}")
    architecture, column = _ARCHITECTURES[machine]
    # Each test skips its own return where it does not hold, so that no jump is ever long.
    rows = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for numbers in ALLOWED.values():
        rows += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    for numbers in _NO_CODE.values():
        rows += [
            (_EQUAL, 0, 4, numbers[column]),
            (_LOAD, 0, 0, _THIRD_ARGUMENT),
            (_ANY_OF, 1, 0, _PROT_EXEC),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _EPERM),
        ]
    rows.append((_RETURN, 0, 0, _EPERM))
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


def _prctl(option: int, first: int, second: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_ulong(first), ctypes.c_ulong(second), *(ctypes.c_ulong(0),) * 2)
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
