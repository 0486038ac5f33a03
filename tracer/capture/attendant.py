"""The attendant: a process that does the tracer's last jobs after the tracer gave up its rights.

Example: root captures. The tracer becomes nobody and writes ``x.pretake`` as nobody. When it has
ended, the attendant gives that folder to root.

The tracer forks it before it gives up its rights, and the attendant keeps the capabilities of
:data:`KEPT`. It takes no messages: its only input is the tracer's end, even by a kill. Meanwhile
it turns on the kernel's statistics of the BPF programs in samples. At the end it gives the trace
to the user who asked for it, or removes its folder if nothing was captured.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import stat
import struct
import time
from pathlib import Path
from typing import Final

from tracer.capture.capabilities import become
from tracer.capture.cost import Samples
from tracer.capture.privilege import NOBODY, capture_user
from tracer.trace.parts import Owner

__all__ = ["KEPT", "Attendant", "give", "leave_attendant"]

_COUNTED: Final = struct.Struct("dd")
"""Of :class:`Samples`: ``counted_s`` and ``begin_s``."""
# linux/capability.h: chown, dac_override (to remove a folder from another's), sys_admin (for
# BPF_ENABLE_STATS)
KEPT: Final = sum(1 << bit for bit in (0, 1, 21))


class Attendant:
    """Begins it. Call it while there is one thread, before the tracer gives up its rights.

    Args:
        folder: a descriptor of the trace's folder.
        writer: the user that writes the trace.
        owner: user and group that are given the files that nobody made; None for no one.
        counts: whether it has the kernel count what the BPF programs take.
    """

    def __init__(self, folder: int, writer: int, owner: Owner, counts: bool = True) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        lives, self._alive = os.pipe2(os.O_CLOEXEC)
        begun, begins = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            # Nothing of the tracer's own runs on in here, whatever happens.
            try:
                os.setsid()  # Ctrl-C is for the tracer
                for signo in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(signo, signal.SIG_IGN)
                # Above all the probes, which end with the last descriptor of each.
                kept = sorted((folder, lives, begins))
                for low, high in zip([3, *(fd + 1 for fd in kept)], [*kept, 1 << 20], strict=True):
                    os.closerange(low, high)
                become(NOBODY, NOBODY, keep=KEPT)
                if counts:
                    _attend(lives, begins, self._shared)
                else:
                    os.close(begins)
                    os.read(lives, 1)
                if os.fstat(folder).st_uid == writer:
                    _settle(folder, owner)
            finally:
                os._exit(0)
        os.close(lives)
        os.close(begins)
        os.read(begun, 1)
        os.close(begun)

    @property
    def counted_s(self) -> float:
        """For how long the kernel has counted so far."""
        counted_s, begin_s = _COUNTED.unpack_from(self._shared)
        return float(counted_s + (time.monotonic() - begin_s if begin_s else 0.0))

    def end(self) -> None:
        """Let it do what is left; it is done on return."""
        if self._alive >= 0:
            os.close(self._alive)
            os.waitpid(self._pid, 0)
            self._alive = -1


def leave_attendant(folder: int, counts: bool = True) -> Attendant:
    """An attendant for what the tracer writes in a folder once it has become another user.

    Args:
        folder: a descriptor of it; it stays the caller's.
        counts: as for :class:`Attendant`.
    """
    writer = capture_user()[0]
    # Root's own trace is written by nobody, and root's again at the end.
    owner = (os.geteuid(), os.getegid()) if writer == NOBODY != os.geteuid() else None
    return Attendant(folder, writer, owner, counts)


def _attend(lives: int, begins: int, shared: mmap.mmap) -> None:
    samples = Samples()
    poll = select.poll()
    poll.register(lives, select.POLLIN)
    wait_s = samples.step()
    _COUNTED.pack_into(shared, 0, samples.counted_s, samples.begin_s)
    os.close(begins)
    while not poll.poll(wait_s * 1000):
        wait_s = samples.step()
        _COUNTED.pack_into(shared, 0, samples.counted_s, samples.begin_s)
    samples.close()


def _settle(folder: int, owner: Owner) -> None:
    if not os.listdir(folder):
        path = Path(f"/proc/self/fd/{folder}").readlink()
        parent = os.open("..", os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        with contextlib.suppress(OSError):
            os.rmdir(path.name, dir_fd=parent)
    elif owner is not None:
        give(folder, *owner)


def give(folder: int, uid: int, gid: int, of: int = NOBODY) -> None:
    """Give a trace's files to who asked for it; nothing but what the user ``of`` has there."""
    for name in os.listdir(folder):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_uid != of:
            continue
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            give(inner, uid, gid, of)
            os.close(inner)
        elif not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            continue
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
    os.chown(folder, uid, gid)
