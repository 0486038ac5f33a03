"""The folder that a watch writes its dumps to: their names, their number and their bytes.

Example: ``20261127T031502Z-1.pretake`` is the first dump of a watch, of 03:15:02 UTC. At most so
many are written in an hour. When they take more bytes than they may, the oldest goes.

A dump is made under a name that begins with a dot, and gets its own when it is whole. A watch that
is killed leaves one with a dot, which the next watch removes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections import deque
from pathlib import Path
from typing import Final

from tracer.capture.attendant import give
from tracer.capture.privilege import capture_user
from tracer.errors import PretakeError

__all__ = ["Dumps"]

_NAME: Final = re.compile(r"\d{8}T\d{6}Z-\d+\.pretake")
_PARTIAL: Final = re.compile(r"\.\d{8}T\d{6}Z-\d+\.(pretake|pprof)")
_HOUR_S: Final = 3600.0


class Dumps:
    """A folder of dumps, opened while it may be made and given away.

    Args:
        folder: it is made if it is not there. It may hold nothing but dumps.
        per_hour: how many are written in an hour.
        disk_bytes: how many bytes they may take, all together.
        drop: the tracer becomes another user: the folder and what is in it are given to that one.

    Attributes:
        fd: a descriptor of the folder.
        removed: how many dumps had to go for want of room.

    Raises:
        PretakeError: the folder cannot be made, or holds other things.
    """

    def __init__(self, folder: Path, per_hour: int, disk_bytes: int, drop: bool) -> None:
        self.folder = folder
        self.removed = 0
        self._per_hour = per_hour
        self._disk_bytes = disk_bytes
        self._written_s: deque[float] = deque()
        self._number = 0
        if not folder.parent.is_dir():
            raise PretakeError(f"there is no folder {folder.parent}", "make it, or choose another")
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(0o755)
            self.fd = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise PretakeError(
                f"{folder} cannot hold dumps: {error.strerror}", "choose another folder"
            ) from None
        try:
            self._adopt(drop)
        except (PretakeError, OSError) as error:
            os.close(self.fd)
            if isinstance(error, PretakeError):
                raise
            raise PretakeError(
                f"{folder} cannot be given to who writes to it: {error.strerror}",
                "choose another folder",
            ) from None

    def refusal(self, now_s: float) -> str | None:
        """Why no dump may be begun now; None where one may.

        Args:
            now_s: time.monotonic().
        """
        while self._written_s and now_s - self._written_s[0] >= _HOUR_S:
            self._written_s.popleft()
        if len(self._written_s) < self._per_hour:
            return None
        wait_s = self._written_s[0] + _HOUR_S - now_s
        return (
            f"{self._per_hour} were written in the last hour; the next may come in {wait_s:.0f} s"
        )

    def begin(self, now_s: float) -> str:
        """The name of a dump that is begun now, and counts from here on."""
        self._written_s.append(now_s)
        self._number += 1
        return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{self._number}.pretake"

    def making(self, name: str) -> Path:
        """Where a dump is made: a path that needs no right on the way to the folder."""
        return Path(f"/proc/self/fd/{self.fd}/.{name}")

    def scratch(self) -> str:
        """The name of a trace that is made to be read once, and removed."""
        self._number += 1
        return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{self._number}.pprof"

    def make_room(self, nbytes: int) -> None:
        """Remove the oldest dumps until so many more bytes fit, or none is left."""
        sizes = {name: self._bytes_of(name) for name in self.names()}
        total = sum(sizes.values())
        for name, size in sizes.items():
            if total + nbytes <= self._disk_bytes:
                return
            self.remove(name)
            self.removed += 1
            total -= size

    def finish(self, name: str) -> int:
        """Give a dump that is whole its name.

        Returns:
            Its bytes.

        Raises:
            PretakeError: alone it takes more bytes than all may; it is removed.
        """
        nbytes = self._bytes_of(f".{name}")
        if nbytes > self._disk_bytes:
            self.remove(f".{name}")
            raise PretakeError(
                f"a dump of {nbytes} bytes is more than --disk", "give a larger one"
            )
        self.make_room(nbytes)
        try:
            os.rename(f".{name}", name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            self.remove(f".{name}")
            raise PretakeError(f"a dump cannot be named: {error.strerror}") from None
        return nbytes

    def names(self) -> list[str]:
        """All dumps, the oldest first."""
        names = (name for name in _entries(self.fd) if _NAME.fullmatch(name))
        return sorted(names, key=_when)

    def bytes(self) -> int:
        """What all dumps take."""
        return sum(self._bytes_of(name) for name in self.names())

    def remove(self, name: str) -> None:
        """Remove one, as far as it can be."""
        shutil.rmtree(name, ignore_errors=True, dir_fd=self.fd)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self.fd)

    def _adopt(self, drop: bool) -> None:
        for name in _entries(self.fd):
            if _PARTIAL.fullmatch(name):
                self.remove(name)
            elif not _NAME.fullmatch(name):
                raise PretakeError(
                    f"{self.folder} holds {name!r}, which is no dump",
                    "name a folder for dumps alone",
                )
        user = capture_user()
        if drop and os.geteuid() == 0:
            give(self.fd, *user, of=0)
            os.fchown(self.fd, *user)
        elif not os.access(self.folder, os.W_OK):
            raise PretakeError(f"{self.folder} cannot be written to", "choose another folder")

    def _bytes_of(self, name: str) -> int:
        total = 0
        with contextlib.suppress(OSError):
            for _, _, files, fd in os.fwalk(name, dir_fd=self.fd):
                for file in files:
                    with contextlib.suppress(OSError):
                        status = os.stat(file, dir_fd=fd, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            total += status.st_size
        return total


def _when(name: str) -> tuple[str, int]:
    """When a dump was begun, and of those of one second, its number."""
    begun, number = name.removesuffix(".pretake").split("-")
    return begun, int(number)


def _entries(folder: int) -> list[str]:
    return os.listdir(folder)
