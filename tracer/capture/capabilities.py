"""Who a process is and what it may do: Linux's users and capabilities.

It uses Python's own library only, because the keeper (:mod:`tracer.capture.keeper_process`) runs
it with capabilities.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

__all__ = ["become", "held"]

_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP = 6, 7, 8  # linux/capability.h
_CAPABILITY_VERSION_3: Final = 0x20080522
# linux/prctl.h
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def held() -> int:
    """The calling thread's effective capabilities, as a set of bits."""
    status = Path("/proc/thread-self/status").read_text("utf-8", "surrogateescape")
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def become(uid: int, gid: int, *, keep: int = 0) -> None:
    """Become another user with few capabilities or none, for good.

    Call it while there is one thread: each has capabilities of its own. Who is not root, and
    was only given some capabilities, stays who it is, and keeps those of ``keep`` that it has.

    Args:
        uid: the user.
        gid: the only group.
        keep: capabilities to keep, as a set of bits.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = held()
    kept = before & keep
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if before >> _CAP_SETPCAP & 1:
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.geteuid() == 0 and before >> _CAP_SETUID & 1 and before >> _CAP_SETGID & 1:
        # Else the kernel takes all of them as user 0 goes.
        libc.prctl(_PR_SET_KEEPCAPS, 1 if kept else 0, 0, 0, 0)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # effective, permitted, inheritable; the lower 32 of each, then the upper.
    if libc.capset(header, struct.pack("<6I", low, low, 0, high, high, 0)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
