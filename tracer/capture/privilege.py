"""What the caller may do, and which rights the tracer gives up once it is attached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tracer.capture.capabilities import become, held
from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import calling_user
from tracer.kernel.loaded import Loaded

__all__ = [
    "CAP_BPF",
    "NOBODY",
    "capture_user",
    "check_privilege",
    "give_up",
    "in_first_pid_namespace",
    "maps_work_for",
    "may_load_bpf",
]

# linux/capability.h
_CAP_CHOWN, _CAP_SETGID, _CAP_SETUID = 1 << 0, 1 << 6, 1 << 7
_CAP_SYS_ADMIN: Final = 1 << 21
_CAP_PERFMON: Final = 1 << 38
CAP_BPF: Final = 1 << 39

NOBODY: Final = 65534

_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel's proc_ns.h


def may_load_bpf() -> bool:
    """Whether the caller has CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON."""
    has = held()
    return bool(has & _CAP_SYS_ADMIN or (has & CAP_BPF and has & _CAP_PERFMON))


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


def capture_user() -> tuple[int, int]:
    """User and group that a tracer becomes once it is attached.

    That is who called sudo; root itself becomes nobody. Who is not root stays who it is, and so
    does root that may not become anybody, or give files away, as in a container with few
    capabilities.
    """
    needed = _CAP_CHOWN | _CAP_SETGID | _CAP_SETUID
    if os.geteuid() != 0 or held() & needed != needed:
        return os.geteuid(), os.getegid()
    return calling_user() or (NOBODY, NOBODY)


def give_up(loaded: Loaded) -> None:
    """Become :func:`capture_user`, with no capability, for good.

    What a capture still needs of them, its keeper has (:mod:`tracer.capture.keeper_process`), and
    its attendant (:mod:`tracer.capture.attendant`).
    Call it while there is one thread: each has its own capabilities, and new ones inherit.

    Args:
        loaded: the programs. A kernel before 5.19 lets nobody use even a map that was given,
            without CAP_BPF, if ``kernel.unprivileged_bpf_disabled`` is set: there that one
            capability stays.

    Raises:
        PretakeError: the kernel refused, which it never should.
    """
    uid, gid = capture_user()
    try:
        become(uid, gid, keep=0 if maps_work_for(loaded, uid, gid) else CAP_BPF)
    except OSError as error:
        raise PretakeError(
            f"capabilities cannot be dropped ({error.strerror})", "see 'pretake doctor'"
        ) from error


def maps_work_for(loaded: Loaded, uid: int, gid: int) -> bool:
    """Whether a user can use maps without a capability, tried by a process that gave them up."""
    pid = os.fork()
    if pid == 0:
        try:
            become(uid, gid)
            loaded.read("thread_room", 0)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
