"""What the caller may do: the capabilities a capture needs, and the process ids it sees."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tracer.errors import PretakeError

__all__ = ["check_privilege", "in_first_pid_namespace", "may_load_bpf"]

# linux/capability.h
_CAP_SYS_ADMIN: Final = 1 << 21
_CAP_PERFMON: Final = 1 << 38
_CAP_BPF: Final = 1 << 39

_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel's proc_ns.h


def may_load_bpf() -> bool:
    """Whether the caller has CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
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
