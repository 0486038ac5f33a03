"""Uprobes in target processes, which the keeper puts in and takes out.

Example: ``cp new old`` overwrites a server's file while a probe stands in it. The breakpoint would
then lie in the middle of another instruction. So the keeper holds a lease (fcntl(2), F_RDLCK) on
each file with a probe. A process that opens the file for writing, or truncates it, has to wait
until the keeper has taken the probes out, some milliseconds. A file that cannot be held so gets no
probe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tracer.capture.keeper_targets import Targets
from tracer.kernel.bpf_call import open_uprobe, open_uprobe_link

__all__ = ["Probes"]


class _File:
    """A file that is held still while probes stand in it; it owns the descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits to write it."""
        return fcntl.fcntl(self.fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def close(self) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(self.fd)


class _Probed:
    """The probes of one process in one file."""

    def __init__(self, pid: int, pidfd: int, file: _File) -> None:
        self.pid, self.pidfd, self.file = pid, pidfd, file
        self.links: list[int] = []


class Probes:
    """All that stand.

    Args:
        targets: where they may.
        programs: what runs there, by name.
        links: whether they are to be had as links.
    """

    def __init__(self, targets: Targets, programs: Mapping[str, int], *, links: bool) -> None:
        self._targets, self._programs, self._links = targets, programs, links
        self._probed: list[_Probed] = []
        self._files: dict[tuple[int, int], _File] = {}
        # A lease that is to be broken tells by SIGIO.
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGIO, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def wait_for(self, question: int) -> None:
        """Until there is something to read: give way meanwhile to who writes, and who ends."""
        while True:
            poll = select.poll()
            for fd in (question, self._woken, *(probed.pidfd for probed in self._probed)):
                poll.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._leave(probed for probed in self._probed if probed.file.wanted)
            self._leave(probed for probed in self._probed if probed.pidfd in ready)
            if question in ready:
                return

    def change(
        self, pid: int | None, fds: Sequence[int], places: list[tuple[str, int, str]]
    ) -> None:
        """Put probes into a process; with no places, take them out of it, or out of all (None).

        Args:
            pid: the process.
            fds: of the file, one; it stays the caller's.
            places: name of the program, offset in the file, and the bytes there in hexadecimal.

        Raises:
            OSError: it cannot be done.
        """
        if not places or pid is None:
            self._leave(probed for probed in self._probed if pid in (None, probed.pid))
            return
        status = os.fstat(fds[0])
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(1, "not a regular file")
        pidfd = self._targets.hold(pid)
        try:
            file = self._held(os.dup(fds[0]), (status.st_dev, status.st_ino))
        except OSError:
            os.close(pidfd)
            raise
        if any(probed.pid == pid and probed.file is file for probed in self._probed):
            # A command is asked for before its exec and after it: each hit would be told twice.
            os.close(pidfd)
            return
        probed = _Probed(pid, pidfd, file)
        self._probed.append(probed)
        try:
            self._put(probed, places)
        except OSError:
            self._leave([probed])
            raise

    def _held(self, fd: int, key: tuple[int, int]) -> _File:
        if key in self._files:
            os.close(fd)
            return self._files[key]
        try:
            self._files[key] = _File(fd)
        except OSError as error:
            os.close(fd)
            why = f"the file cannot be held still ({error.strerror})"
            raise OSError(error.errno, why) from None
        return self._files[key]

    def _put(self, probed: _Probed, places: list[tuple[str, int, str]]) -> None:
        at: dict[str, list[int]] = {}
        for program, offset, expected in places:
            found = bytes.fromhex(expected)
            if os.pread(probed.file.fd, len(found), offset) != found:
                raise OSError(errno.ESTALE, "the file is not the one that was looked at")
            if program not in self._programs:
                raise PermissionError(1, "this capture has no such probe")
            at.setdefault(program, []).append(offset)
        path = f"/proc/self/fd/{probed.file.fd}"
        for program, offsets in at.items():
            fd = self._programs[program]
            if self._links:
                probed.links.append(open_uprobe_link(path, offsets, fd, probed.pid))
            else:
                for offset in offsets:
                    probed.links.append(open_uprobe(path, offset, fd, probed.pid))
        if select.select([probed.pidfd], [], [], 0)[0]:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    def _leave(self, which: Iterable[_Probed]) -> None:
        leaving = list(which)
        links = [link for probed in leaving for link in probed.links]
        if links:
            # Each waits for the kernel's grace period; together they wait for one.
            with ThreadPoolExecutor(max_workers=16) as pool:
                list(pool.map(os.close, links))
        for probed in leaving:
            os.close(probed.pidfd)
            self._probed.remove(probed)
        for key, file in list(self._files.items()):
            if not any(probed.file is file for probed in self._probed):
                file.close()
                del self._files[key]
