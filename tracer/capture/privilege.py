"""What the caller may do: the capabilities a capture needs, and the process ids it sees."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from tracer.errors import PretakeError

__all__ = ["check_privilege", "drop_capabilities", "in_first_pid_namespace", "may_load_bpf"]

# linux/capability.h
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = (1 << bit for bit in (0, 1, 2))
_CAP_SETPCAP, _CAP_SYS_PTRACE, _CAP_SYS_ADMIN = (1 << bit for bit in (8, 19, 21))
_CAP_PERFMON, _CAP_BPF = (1 << bit for bit in (38, 39))

# What a capture still does: put a probe into a program that is exec'd later, and look at its
# binary, whosever it is.
_KEPT: Final = _CAP_BPF | _CAP_PERFMON | _CAP_SYS_PTRACE | _CAP_DAC_READ_SEARCH
# Give files to who called sudo, in a folder that is his.
_KEPT_FOR_OWNER: Final = _CAP_CHOWN | _CAP_DAC_OVERRIDE

_CAPABILITY_VERSION_3: Final = 0x20080522
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAPBSET_DROP: Final = 24

_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel's proc_ns.h


def may_load_bpf() -> bool:
    """Whether the caller has CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON."""
    held = _held()
    return bool(held & _CAP_SYS_ADMIN or (held & _CAP_BPF and held & _CAP_PERFMON))


def in_first_pid_namespace() -> bool:
    """Whether process ids here are those that the kernel's probes tell."""
    return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE


def check_privilege() -> None:
    """Refuse to begin what cannot work.

    Raises:
        PretakeError: the caller lacks the capabilities, or is in a container of its own.
    """
    if not may_load_bpf():
        raise PretakeError("capture needs root, or CAP_BPF and CAP_PERFMON", "run it with sudo")
    if not in_first_pid_namespace():
        raise PretakeError(
            "this is a container with its own process ids, and the kernel tells the host's",
            "capture from the host, or run the container with --pid=host",
        )


def drop_capabilities(*, files_for_another: bool, uprobes_as_admin: bool) -> None:
    """Give up, for good, what a capture needs no more once its probes are in place.

    Call it while there is one thread: each has its own capabilities, and new ones inherit. What
    stays is CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, for programs that are
    exec'd later.

    Args:
        files_for_another: also keep what it takes to write files that belong to somebody else
            (CAP_CHOWN, CAP_DAC_OVERRIDE).
        uprobes_as_admin: also keep CAP_SYS_ADMIN, which a kernel before 6.6 wants for those.

    Raises:
        PretakeError: the kernel refused, which it never should.
    """
    held = _held()
    kept = held & (_KEPT | (_KEPT_FOR_OWNER if files_for_another else 0))
    if uprobes_as_admin or not held & _CAP_BPF:
        # Before 5.8 there is no CAP_BPF, and a container may be given CAP_SYS_ADMIN alone.
        kept |= held & _CAP_SYS_ADMIN
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if held & _CAP_SETPCAP:
        for capability in range(64):
            if not kept >> capability & 1:
                libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # effective, permitted, inheritable; the lower 32 of each, then the upper.
    if libc.capset(header, struct.pack("<6I", low, low, 0, high, high, 0)) != 0:
        raise PretakeError(
            f"capabilities cannot be dropped ({os.strerror(ctypes.get_errno())})",
            "see 'pretake doctor'",
        )


def _held() -> int:
    """The calling thread's effective capabilities."""
    status = Path("/proc/thread-self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)
