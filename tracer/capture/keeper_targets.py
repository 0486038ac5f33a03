"""What the keeper looks at: files and memory of target processes.

Of no others, but for the program's file where the watch looks for Go programs.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Final

from tracer.capture.memory import Chain, caught, follow, thread_numbers
from tracer.kernel.bpf_call import task_has

__all__ = ["Targets"]

_MOST_CHAINS: Final = 1024
_LONGEST_CHAIN: Final = 4
_NAMES: Final = re.compile(r"exe|maps|map_files/[0-9a-f]+-[0-9a-f]+")


class Targets:
    """The processes that may be asked about.

    Args:
        root: the one that the capture was started for.
        storage: the map that hangs on each target thread.
        value_bytes: of a value in it.
        any_program: whether ``exe`` may be opened of a process that is no target.
    """

    def __init__(
        self, root: int, storage: int, value_bytes: int, any_program: bool = False
    ) -> None:
        self._root, self._storage, self._value_bytes = root, storage, value_bytes
        self._any_program = any_program

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
        fd = self._open_of(pid, name, self._any_program and name == "exe")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise PermissionError(1, "not a regular file")
        return fd

    def words(self, pid: int, chains: list[Chain]) -> list[list[int]]:
        """Words, and those they lead to (:func:`tracer.capture.memory.follow`)."""
        _check(chains)
        fd = self._open_of(pid, "mem")
        try:
            return follow(fd, chains)
        finally:
            os.close(fd)

    def caught(self, pid: int, groups: list[list[Chain]]) -> tuple[int, list[list[int]]] | None:
        """The same, once one of them is not 0 (:func:`tracer.capture.memory.caught`)."""
        if not all(isinstance(group, list) and group for group in groups):
            raise PermissionError(1, "not addresses of a process")
        _check([chain for group in groups for chain in group])
        fd = self._open_of(pid, "mem")
        try:
            return caught(fd, groups)
        finally:
            os.close(fd)

    def threads(self, pid: int) -> list[int]:
        """Its threads, by the numbers that it knows them by."""
        pidfd = self.hold(pid)
        try:
            return thread_numbers(pid)
        finally:
            os.close(pidfd)

    def _open_of(self, pid: int, name: str, of_any: bool = False) -> int:
        # Held meanwhile: until then its number is nobody else's.
        pidfd = os.pidfd_open(pid) if of_any else self.hold(pid)
        try:
            return os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(pidfd)


def _check(chains: list[Chain]) -> None:
    if len(chains) > _MOST_CHAINS or not all(map(_is_chain, chains)):
        raise PermissionError(1, "not addresses of a process")


def _is_chain(told: object) -> bool:
    match told:
        case [int(), list(offsets)]:
            return len(offsets) < _LONGEST_CHAIN and all(type(o) is int for o in offsets)
    return False
