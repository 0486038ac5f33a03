"""Run as a process: shuts itself in as the parser is, tries what it should not be able to do.

python in_jail.py REPORT try     writes what came of each attempt into the file REPORT
python in_jail.py REPORT spin    never ends by itself, and ignores the signal that ends it
python in_jail.py REPORT sleep   waits for ever
python in_jail.py REPORT x32     makes a system call of another numbering
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from tracer.targets.jail.confine import become_nobody, shut_in

_SIZE = 1 << 16
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
# Numbers of x86-64: asm/unistd_64.h.
_NUMBERS = {
    "open": 2,
    "openat": 257,
    "openat2": 437,
    "execve": 59,
    "fork": 57,
    "clone3": 435,
    "socket": 41,
    "ptrace": 101,
    "process_vm_readv": 310,
    "kill": 62,
    "tgkill": 234,
    "pidfd_open": 434,
    "bpf": 321,
    "perf_event_open": 298,
    "io_uring_setup": 425,
    "userfaultfd": 323,
    "memfd_create": 319,
    "prctl": 157,
    "seccomp": 317,
    "setuid": 105,
    "unshare": 272,
    "mount": 165,
    "unlink": 87,
    "chmod": 90,
    "write": 1,
    "sendmsg": 46,
    "dup": 32,
    "setitimer": 38,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "setrlimit": 160,
    "prlimit64": 302,
    "getpid": 39,
}
_X32_GETPID = 0x40000000 | 39


def main(report: str, what: str) -> None:
    """Shut in, then try."""
    with open(report, "r+b") as file:  # noqa: PTH123
        file.truncate(_SIZE)
        room = mmap.mmap(file.fileno(), _SIZE)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    attempts = _attempts()
    become_nobody()
    shut_in(())
    room[-1] = 1
    if what == "spin":
        while True:
            pass
    if what == "sleep":
        threading_lock().acquire()
    if what == "x32":
        _LIBC.syscall(_X32_GETPID)
    told = json.dumps({name: attempt() for name, attempt in attempts.items()}).encode()
    room[: len(told)] = told
    os._exit(0)


def threading_lock() -> Any:  # noqa: ANN401
    """A lock that is held: to take it waits in futex, which is allowed."""
    import _thread

    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


def _attempts() -> dict[str, Callable[[], str]]:
    attempts = {name: _called(number) for name, number in _NUMBERS.items()}
    attempts["executable memory"] = _executable
    attempts["600 MB"] = _much
    return attempts


def _called(number: int) -> Callable[[], str]:
    path = ctypes.c_char_p(b"/etc/passwd")

    def attempt() -> str:
        ctypes.set_errno(0)
        result = _LIBC.syscall(ctypes.c_long(number), path, 0, 0, 0, 0, 0)
        return "done" if result >= 0 else os.strerror(ctypes.get_errno())

    return attempt


def _executable() -> str:
    try:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    except OSError as error:
        return error.strerror or ""
    return "done"


def _much() -> str:
    try:
        bytes(600 << 20)
    except MemoryError:
        return "no memory"
    return "done"


if __name__ == "__main__":
    main(*sys.argv[1:])
