"""The parser's server: it has imported everything, runs as nobody, and forks a child per file.

It never reads a byte of a stranger's file itself. If a file takes over the child that reads it,
that ends with the child, which has no descriptor of another file.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Final

import numpy as np

from tracer.arch import ARCHITECTURES
from tracer.errors import PretakeError
from tracer.targets.elf import Elf
from tracer.targets.go_offsets import shipped_offsets
from tracer.targets.inspect import inspect, is_go
from tracer.targets.jail.answers import Site, layout_to_bytes, sites_to_bytes
from tracer.targets.jail.confine import become_nobody, shut_in
from tracer.targets.pclntab import Pclntab
from tracer.targets.program_file import FileBytes

__all__ = ["HEAD", "NO_MEMORY", "QUESTION_LIMIT", "REFUSED", "UNCONFINED", "main", "sites_of"]

HEAD: Final = struct.Struct("<IQ")
"""Before an answer: whether it is one (0) or a refusal's text (1), and its length."""
QUESTION_LIMIT: Final = 4 << 20
REFUSED: Final = 1
UNCONFINED: Final = 77
"""Exit status of a child that could not be shut in, and so read nothing."""
NO_MEMORY: Final = 78
"""Exit status of a child that was refused memory."""

_RUNNING_LIMIT: Final = 4
_FDS: Final = 4


def main(control_fd: int) -> None:
    """Serve until the tracer's end of the socket is closed.

    Each message brings four descriptors: the file; the question and room for the answer, both in
    memory; a pipe that is told how the child ended.
    """
    for arch in ARCHITECTURES:
        shipped_offsets(arch.goarch)
    become_nobody()
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=control_fd)
    running: dict[int, tuple[int, int]] = {}  # by pidfd: the child, and who is told
    poll = select.poll()
    while True:
        if len(running) < _RUNNING_LIMIT:
            poll.register(control_fd, select.POLLIN)
        for fd, _ in poll.poll():
            if fd != control_fd:
                _reap(*running.pop(fd))
                poll.unregister(fd)
                os.close(fd)
                continue
            message, fds, _, _ = socket.recv_fds(control, 16, _FDS)
            if not message:
                return
            if len(fds) == _FDS:
                *read, told = fds
                pid = os.fork()
                if pid == 0:
                    _child(*read)
                pidfd = os.pidfd_open(pid)
                running[pidfd] = (pid, told)
                poll.register(pidfd, select.POLLIN)
                fds = read
            for fd in fds:
                os.close(fd)
        if len(running) >= _RUNNING_LIMIT:
            poll.unregister(control_fd)


def _reap(pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # the tracer asks no more
        os.write(told, struct.pack("<i", os.waitstatus_to_exitcode(status)))
    os.close(told)


def _child(file: int, question: int, answer: int) -> None:
    """Read one file, leave the answer, and end; it never returns."""
    try:
        asked = os.pread(question, QUESTION_LIMIT, 0)
        room = mmap.mmap(answer, os.fstat(answer).st_size)
        # From here on no byte of the stranger's was read.
        source = FileBytes(file)
        try:
            shut_in((file,))
        except OSError:
            os._exit(UNCONFINED)
        try:
            kind, found = 0, answer_to(asked, source)
        except MemoryError:
            os._exit(NO_MEMORY)
        except PretakeError as error:
            kind, found = REFUSED, json.dumps([error.problem, error.mend]).encode()
        room[: HEAD.size] = HEAD.pack(kind, len(found))
        room[HEAD.size : HEAD.size + len(found)] = found
        os._exit(0)
    except BaseException:
        os._exit(1)


def answer_to(asked: bytes, source: FileBytes) -> bytes:
    """The answer to one question.

    Args:
        asked: JSON (``{"path": ..., "deep": ...}``, or ``{"path": ..., "go": true}``), and for
            sites behind it a NUL and the link-time addresses, 8 bytes each.
        source: the stranger's file.

    Raises:
        PretakeError: the file is damaged.
    """
    head, _, rest = asked.partition(b"\0")
    question = json.loads(head)
    path = Path(question["path"])
    if question.get("go"):
        return b"\1" if is_go(path, source) else b"\0"
    if not question.get("sites"):
        return layout_to_bytes(inspect(path, source, deep=question["deep"]))
    addresses = np.frombuffer(rest, "<i8")
    with Elf(path, source) as elf:
        return sites_to_bytes(sites_of(Pclntab(elf), addresses))


def sites_of(table: Pclntab, addresses: np.ndarray) -> list[Site]:
    """What the instructions at link-time addresses are."""
    sites = []
    for address, function in zip(addresses.tolist(), table.names_at(addresses), strict=True):
        file, line = table.source_at(address) or (None, None)
        sites.append(Site(function, file, line, table.safe_point(address)))
    return sites


if __name__ == "__main__":
    main(int(sys.argv[1]))
