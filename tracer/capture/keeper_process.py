"""The keeper: the process that keeps what a capture needs of its capabilities.

The tracer gives up all of its own once it is attached. What a target execs later still has to be
looked at and probed, so a process of its own stays behind, which answers the tracer three
questions, all of them about target processes only:

``open``    a descriptor to read ``exe``, ``maps`` or one mapped file
``word``    8 bytes of memory, for where a Go library keeps what is a thread's own
``probe``   uprobes into one process, or with no places, out of it (:mod:`tracer.capture.
            keeper_probes`, which is not even loaded for a capture that has none)

A process is a target if the BPF programs say so, or if it is the one the capture was started
for. The keeper runs as nobody, with the capabilities that its tracer names (:mod:`tracer.capture.
keeper`), and only Python's own library is loaded. It ends with the tracer, however that ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

from tracer.capture.capabilities import become
from tracer.kernel.bpf_call import task_has

if TYPE_CHECKING:
    from tracer.capture.keeper_probes import Probes

__all__ = ["Targets", "main"]

_NAMES: Final = re.compile(r"exe|maps|map_files/[0-9a-f]+-[0-9a-f]+")
_MESSAGE: Final = 1 << 16
_NOBODY: Final = 65534


class Targets:
    """The processes that may be asked about.

    Args:
        root: the one that the capture was started for.
        storage: the map that hangs on each target thread.
        value_bytes: of a value in it.
    """

    def __init__(self, root: int, storage: int, value_bytes: int) -> None:
        self._root, self._storage, self._value_bytes = root, storage, value_bytes

    def hold(self, pid: int) -> int:
        """A descriptor of a target process; OSError for any other."""
        pidfd = os.pidfd_open(pid)
        if pid != self._root and not task_has(self._storage, self._value_bytes, pidfd):
            os.close(pidfd)
            raise PermissionError(1, "not a target of this capture")
        return pidfd

    def open(self, pid: int, name: str) -> int:
        """A descriptor to read a file below /proc/PID."""
        if not _NAMES.fullmatch(name):
            raise PermissionError(1, "not a file that a capture reads")
        fd = self._open_of(pid, name)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise PermissionError(1, "not a regular file")
        return fd

    def word(self, pid: int, address: int) -> int:
        """The signed word at an address."""
        if not 0 <= address < 1 << 63:
            raise PermissionError(1, "not an address of a process")
        fd = self._open_of(pid, "mem")
        try:
            return int.from_bytes(os.pread(fd, 8, address), "little", signed=True)
        finally:
            os.close(fd)

    def _open_of(self, pid: int, name: str) -> int:
        # Held meanwhile: until then its number is nobody else's.
        pidfd = self.hold(pid)
        try:
            return os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(pidfd)


def _serve(tracer: socket.socket, targets: Targets, probes: Probes | None) -> None:
    """Answer until the tracer is gone."""
    while True:
        if probes is not None:
            probes.wait_for(tracer.fileno())
        text, fds, _, _ = socket.recv_fds(tracer, _MESSAGE, 1)
        if not text:
            return
        reply: dict[str, Any] = {}
        opened: list[int] = []
        try:
            match json.loads(text):
                case {"open": str(name), "pid": int(pid)}:
                    opened.append(targets.open(pid, name))
                case {"word": int(address), "pid": int(pid)}:
                    reply["value"] = targets.word(pid, address)
                case {"probe": list(places), "pid": pid} if probes is not None:
                    probes.change(pid, fds, places)
                case _:
                    raise PermissionError(1, "this capture has no such thing")
        except OSError as error:
            reply["error"] = error.strerror or str(error)
        socket.send_fds(tracer, [json.dumps(reply).encode()], opened)
        for fd in (*fds, *opened):
            os.close(fd)


def main() -> None:
    """Take what the tracer gives, give up the rest, and serve."""
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_IGN)
    tracer = socket.socket(fileno=int(sys.argv[1]))
    text, (storage, *programs), _, _ = socket.recv_fds(tracer, _MESSAGE, 64)
    given = json.loads(text)
    targets = Targets(given["pid"], storage, given["value_bytes"])
    probes: Probes | None = None
    if programs:
        from tracer.capture.keeper_probes import Probes

        by_name = dict(zip(given["programs"], programs, strict=True))
        probes = Probes(targets, by_name, links=given["links"])
    become(_NOBODY, _NOBODY, keep=given["keep"])
    tracer.send(b"{}")
    _serve(tracer, targets, probes)
