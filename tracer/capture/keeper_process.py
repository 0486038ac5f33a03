"""The keeper: the process that keeps what a capture needs of its capabilities.

The tracer gives up all of its own once it is attached. What a target execs later still has to be
looked at and probed, so a process of its own stays behind, which reads no target's bytes but
those under a probe, and answers the tracer only:

``open``    a descriptor to read ``exe``, ``maps`` or one mapped file of a target process;
            ``word``, 8 bytes of its memory (where a library keeps what is a thread's own);
            ``clock``, how far ahead of the machine's its CLOCK_MONOTONIC is
``probe``   uprobes into one target process, on a file that is held still; ``leave`` takes them out
``tracer``  what the tracer may not do to its own: end the command it started, have the kernel
            count what the BPF programs cost, give the trace to who asked for it

A process is a target if the BPF programs say so (or if it is the one the capture was started
for). It ends with the tracer, however that ends, and everything it holds goes with it.

A file is held still by a lease (fcntl(2), F_RDLCK): who opens it for writing or truncates it is
made to wait by the kernel until the probes are out, some milliseconds. So a breakpoint never
stands in a byte that changes. A file that cannot be held gets no probe.

It runs as nobody, with the capabilities of ``KEPT``; only Python's own library is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tracer.capture.capabilities import become
from tracer.kernel import bpf_call
from tracer.trace.clock import ahead_ns

__all__ = ["main"]

_NAMES: Final = re.compile(r"exe|maps|map_files/[0-9a-f]+-[0-9a-f]+")
_MESSAGE: Final = 1 << 16
_NOBODY: Final = 65534
# chown, dac_override (to remove a folder), dac_read_search, kill, sys_ptrace, sys_admin, lease,
# perfmon, bpf
KEPT: Final = sum(1 << bit for bit in (0, 1, 2, 5, 19, 21, 28, 38, 39))


class _File:
    """A file that is held still while probes stand in it."""

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


class _Keeper:
    def __init__(self, tracer: socket.socket, given: dict[str, Any], fds: list[int]) -> None:
        self._tracer = tracer
        self._links: bool = given["links"]
        self._storage_bytes: int = given["storage_bytes"]
        self._root: int = given["pid"]
        self._owner: list[int] | None = given["owner"]
        self._writer: int = given["writer"]
        self._storage, self._command, *programs = fds
        self._programs = dict(zip(given["programs"], programs, strict=True))
        self._probed: list[_Probed] = []
        self._files: dict[tuple[int, int], _File] = {}
        self._statistics = -1

    def run(self) -> None:
        """Answer until the tracer is gone."""
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A lease that is to be broken tells by SIGIO, and Ctrl-C is for the tracer.
        signal.signal(signal.SIGIO, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        while True:
            poll = select.poll()
            for fd in (self._tracer.fileno(), woken, *(probed.pidfd for probed in self._probed)):
                poll.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                self._give_way()
            ended = [probed for probed in self._probed if probed.pidfd in ready]
            if ended:
                self._leave(ended)
            if self._tracer.fileno() in ready and not self._answer():
                return

    def _answer(self) -> bool:
        text, fds, _, _ = socket.recv_fds(self._tracer, _MESSAGE, 1)
        if not text:
            return False
        request = json.loads(text)
        given = fds[0] if fds else -1
        reply: dict[str, Any] = {}
        opened = -1
        try:
            match request["do"]:
                case "open":
                    opened = self._open(int(request["pid"]), str(request["name"]))
                case "word":
                    reply["value"] = self._word(int(request["pid"]), int(request["address"]))
                case "clock":
                    reply["value"] = self._clock(int(request["pid"]))
                case "probe":
                    given, fd = -1, given
                    self._probe(int(request["pid"]), fd, request["places"])
                case "leave":
                    pid = request["pid"]
                    self._leave([p for p in self._probed if pid is None or p.pid == pid])
                case "tracer":
                    given, fd = -1, given
                    self._for_tracer(request, fd)
        except OSError as error:
            reply["error"] = error.strerror or str(error)
        socket.send_fds(self._tracer, [json.dumps(reply).encode()], [opened] * (opened >= 0))
        for fd in (given, opened):
            if fd >= 0:
                os.close(fd)
        return True

    def _target(self, pid: int) -> int:
        """A descriptor of a target process; OSError for any other process."""
        pidfd = os.pidfd_open(pid)
        if pid != self._root and not bpf_call.task_has(self._storage, self._storage_bytes, pidfd):
            os.close(pidfd)
            raise PermissionError(1, "not a target of this capture")
        return pidfd

    def _open(self, pid: int, name: str) -> int:
        if not _NAMES.fullmatch(name):
            raise PermissionError(1, "not a file that a capture reads")
        pidfd = self._target(pid)
        try:
            fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise PermissionError(1, "not a regular file")
        finally:
            os.close(pidfd)
        return fd

    def _word(self, pid: int, address: int) -> int:
        pidfd = self._target(pid)
        os.close(pidfd)
        if not 0 <= address < 1 << 63:
            raise PermissionError(1, "not an address of a process")
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int.from_bytes(os.pread(fd, 8, address), "little", signed=True)
        finally:
            os.close(fd)

    def _clock(self, pid: int) -> int:
        pidfd = self._target(pid)
        try:
            found = ahead_ns(pid)
            # Its id may be another's by then.
            if found is None or select.select([pidfd], [], [], 0)[0]:
                raise ProcessLookupError(3, "the clock of the process cannot be told")
        finally:
            os.close(pidfd)
        return found

    def _probe(self, pid: int, fd: int, places: list[tuple[str, int, str]]) -> None:
        """Probes at places of a file: name of the program, offset, and the bytes there."""
        try:
            status = os.fstat(fd)
            key = status.st_dev, status.st_ino
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError(1, "not a regular file")
            pidfd = self._target(pid)
        except OSError:
            os.close(fd)
            raise
        file = self._files.get(key)
        if any(probed.pid == pid and probed.file is file for probed in self._probed):
            # A command is asked for before its exec and after it: each hit would be told twice.
            os.close(fd)
            os.close(pidfd)
            return
        if file is not None:
            os.close(fd)
        else:
            try:
                self._files[key] = _File(fd)
            except OSError as error:
                os.close(fd)
                os.close(pidfd)
                raise OSError(
                    error.errno, f"the file cannot be held still ({error.strerror})"
                ) from None
        probed = _Probed(pid, pidfd, self._files[key])
        self._probed.append(probed)
        try:
            self._put(probed, places)
        except OSError:
            self._leave([probed])
            raise

    def _put(self, probed: _Probed, places: list[tuple[str, int, str]]) -> None:
        at: dict[str, list[int]] = {}
        for program, offset, expected in places:
            found = bytes.fromhex(expected)
            if os.pread(probed.file.fd, len(found), offset) != found:
                raise OSError(116, "the file is not the one that was looked at")
            at.setdefault(program, []).append(offset)
        path = f"/proc/self/fd/{probed.file.fd}"
        for program, offsets in at.items():
            fd = self._programs[program]
            if self._links:
                link = bpf_call.open_uprobe_link(path, offsets, fd, probed.pid)
                probed.links.append(link)
            else:
                for offset in offsets:
                    probed.links.append(bpf_call.open_uprobe(path, offset, fd, probed.pid))
        if select.select([probed.pidfd], [], [], 0)[0]:
            raise ProcessLookupError(3, "the process has ended")

    def _give_way(self) -> None:
        """Let those write who wait for it."""
        wanted = [file for file in self._files.values() if file.wanted]
        for file in wanted:
            self._leave([probed for probed in self._probed if probed.file is file])

    def _leave(self, leaving: list[_Probed]) -> None:
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

    def _for_tracer(self, request: dict[str, Any], fd: int) -> None:
        match request["what"]:
            case "count":
                if self._statistics >= 0:
                    os.close(self._statistics)
                self._statistics = bpf_call.enable_statistics() if request["on"] else -1
            case "signal":
                if request["signo"] in (signal.SIGTERM, signal.SIGKILL) and self._command >= 0:
                    signal.pidfd_send_signal(self._command, request["signo"])
            case "settle" if fd >= 0 and os.fstat(fd).st_uid == self._writer:
                if request["discard"]:
                    _discard(fd)
                elif self._owner is not None:
                    _give(fd, *self._owner)
        if fd >= 0:
            os.close(fd)


def _discard(folder: int) -> None:
    """Remove a trace's folder, which is empty."""
    path = Path(f"/proc/self/fd/{folder}").readlink()
    parent = os.open("..", os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    with contextlib.suppress(OSError):
        os.rmdir(path.name, dir_fd=parent)
    os.close(parent)


def _give(folder: int, uid: int, gid: int) -> None:
    """Give a trace's files to who asked for it; nothing but what nobody's capture made."""
    for name in os.listdir(folder):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_uid != _NOBODY:
            continue
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            _give(inner, uid, gid)
            os.close(inner)
        elif not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            continue
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
    os.chown(folder, uid, gid)


def main() -> None:
    """Take what the tracer gives, give up the rest, and serve."""
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_IGN)
    tracer = socket.socket(fileno=int(sys.argv[1]))
    text, fds, _, _ = socket.recv_fds(tracer, _MESSAGE, 64)
    given = json.loads(text)
    become(_NOBODY, _NOBODY, keep=KEPT)
    tracer.send(b"{}")
    _Keeper(tracer, given, list(fds)).run()
