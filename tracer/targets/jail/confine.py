"""The rights that the parser of strangers' files gives up before it reads a byte.

There are two processes, and so two steps. The server becomes nobody once, at its start. Each of
its children, which reads one file and ends, sets the limits and the filter of system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from typing import Final

from tracer.targets.jail import seccomp

__all__ = [
    "ADDRESS_SPACE_BYTES",
    "CPU_S",
    "NOBODY",
    "WALL_S",
    "become_nobody",
    "shut_in",
    "wall_s",
]

NOBODY: Final = 65534
"""uid and gid of who owns nothing, the kernel's overflow id."""
ADDRESS_SPACE_BYTES: Final = 512 << 20
"""Of the whole process, the interpreter with its libraries (about 100 MB) included."""
CPU_S: Final = 2
WALL_S: Final = 2.0
_BUSY_AT_MOST: Final = 4.0

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL = 4, 24, 47, 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES: Final = 64


def become_nobody() -> None:
    """Give up, for good, user, groups and capabilities; where there is no right to, the latter.

    Nobody else who is nobody may look at the memory of this process, nor is there a core dump.

    Raises:
        OSError: capabilities are left, which never should be.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    for capability in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    # An ordinary user stays who he is, and so does root of a namespace that has no such user.
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
    seccomp.forbid_new_privileges()
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def wall_s() -> float:
    """How long a parser may take in all, seconds: :data:`WALL_S`, up to 4 times that if busy.

    Where more threads want to run than there are CPUs, an honest parser waits for its turns: on a
    server at full load its tenth of a second of CPU time takes a second and more.
    """
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return WALL_S * min(max(busy, 1.0), _BUSY_AT_MOST)


def shut_in(kept: tuple[int, ...]) -> None:
    """Leave this process no descriptors but these, no more than its limits, and few calls.

    The kernel ends it after :func:`wall_s`, or :data:`CPU_S` of CPU time; it cannot put that
    off, since no call that would is left to it.

    Raises:
        OSError: the kernel has no seccomp.
    """
    low = 0
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for signo in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, wall_s())
    for kind, limit in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    seccomp.install()
