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

from tracer.arch import of_trace

__all__ = ["ALLOWED", "forbid_new_privileges", "install"]

ALLOWED: Final = (
    "read",
    "pread64",
    "lseek",
    "fstat",
    "close",
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "clock_gettime",
    "rt_sigreturn",
    "exit",
    "exit_group",
)
"""All of it; mmap and mprotect besides, as long as they ask for no executable memory."""

_NO_CODE: Final = ("mmap", "mprotect")
_PROT_EXEC: Final = 4
_X32: Final = 0x40000000

# linux/bpf_common.h and linux/seccomp.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _THIRD_ARGUMENT = 0, 4, 32
_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050000 | 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class _Fprog(ctypes.Structure):
    # Not made where it is used, for Python 3.14 imports a module then, and no file can be opened.
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


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
    fprog = _Fprog(len(program) // 8, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(fprog))


def _program() -> bytes:
    machine = of_trace(platform.machine())
    if machine is None:
        raise OSError(f"no filter for {platform.machine()}")
    # Each test skips its own return where it does not hold, so that no jump is ever long.
    rows = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for name in ALLOWED:
        rows += [(_EQUAL, 0, 1, machine.nr(name)), (_RETURN, 0, 0, _ALLOW)]
    for name in _NO_CODE:
        rows += [
            (_EQUAL, 0, 4, machine.nr(name)),
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
