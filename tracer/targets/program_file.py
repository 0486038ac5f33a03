"""Opens a file that somebody else made, if it is a regular one; otherwise says what it is.

An open of a FIFO or a device could wait for ever, and an open of a terminal could make it ours. So
the file is opened without blocking, and its kind is checked before a byte is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from tracer.errors import PretakeError

__all__ = ["Bytes", "FileBytes", "HeldBytes", "check_regular", "open_program"]

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def open_program(path: Path) -> int:
    """A descriptor, to read from, of a regular file; it never waits.

    Raises:
        PretakeError: it cannot be read, or is no regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise PretakeError(
            f"cannot read {path}: {error.strerror}", "name a program that you may read"
        ) from error
    try:
        check_regular(fd, path)
    except PretakeError:
        os.close(fd)
        raise
    return fd


def check_regular(fd: int, path: Path) -> None:
    """Refuse an open descriptor of anything but a regular file, named ``path`` in the message.

    Raises:
        PretakeError: it is something else.
    """
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "no regular file")
        raise PretakeError(f"{path} is {what}, no program", "name the program's own file")


class Bytes(Protocol):
    """What a reader needs of a file: its size in bytes, and bytes at an offset."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes; ValueError where the file has fewer."""


class FileBytes:
    """The bytes of an open file, by pread: a file that is cut meanwhile is an error, no signal.

    Args:
        fd: a descriptor of a regular file, which stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes; ValueError where the file has fewer."""
        _check(offset, size, self.size)
        found = os.pread(self._fd, size, offset)
        while len(found) < size:
            more = os.pread(self._fd, size - len(found), offset + len(found))
            if not more:
                raise ValueError(f"the file was cut at {offset + len(found):#x} meanwhile")
            found += more
        return found


class HeldBytes:
    """A file's bytes that are in memory already, as a fuzzer has them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes; ValueError where there are fewer."""
        _check(offset, size, self.size)
        return self._data[offset : offset + size]


def _check(offset: int, size: int, end: int) -> None:
    if offset < 0 or size < 0 or offset + size > end:
        raise ValueError(f"{size} bytes at {offset:#x} of a file of {end}")
