"""Reads a target process under /proc: its program, its mappings, its threads, its memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tracer.capture.keeper import Keeper
from tracer.capture.mappings import Mapping, mappings_of
from tracer.capture.memory import Chain, caught, follow, thread_numbers
from tracer.errors import PretakeError
from tracer.targets.program_file import open_program

__all__ = ["TargetFiles"]

_MAPS_LIMIT: Final = 4 << 20


class TargetFiles:
    """Opens files of target processes: by the keeper, or where there is none, by itself.

    Attributes:
        keeper: who may; None until it is there.
    """

    def __init__(self) -> None:
        self.keeper: Keeper | None = None

    def open(self, pid: int, name: str) -> int:
        """A descriptor of a file below /proc/PID.

        Args:
            pid: the process.
            name: ``exe``, ``maps``, or a mapped file's (:attr:`Mapping.name`).

        Raises:
            OSError: the process has ended, or may not be read.
        """
        if self.keeper is not None:
            return self.keeper.open(pid, name)
        path = Path(f"/proc/{pid}/{name}")
        try:
            return open_program(path)
        except PretakeError as error:
            raise OSError(2, error.problem) from None

    def program_of(self, pid: int) -> str | None:
        """The path of a process's program; None where it has ended."""
        with contextlib.suppress(OSError):
            return str(Path(f"/proc/{pid}/exe").readlink())
        # Another user's, and the capabilities are the keeper's by now.
        with contextlib.suppress(OSError):
            fd = self.open(pid, "exe")
            try:
                return str(Path(f"/proc/self/fd/{fd}").readlink())
            finally:
                os.close(fd)
        return None

    def maps_of(self, pid: int) -> list[Mapping]:
        """The files that a process has mapped.

        Raises:
            OSError: it has ended, or may not be read.
        """
        with os.fdopen(self.open(pid, "maps"), "rb") as file:
            return mappings_of(file.read(_MAPS_LIMIT))

    def word(self, pid: int, address: int) -> int:
        """A signed word of a process's memory; 0 where it cannot be read."""
        try:
            (read,) = self.words(pid, [(address, ())])
        except OSError:
            return 0
        return read[0] if read else 0

    def words(self, pid: int, chains: Sequence[Chain]) -> list[list[int]]:
        """Words of a process's memory, as :func:`tracer.capture.memory.follow` has them.

        Raises:
            OSError: it has ended, or may not be read.
        """
        if self.keeper is not None:
            return self.keeper.words(pid, chains)
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            return follow(memory.fileno(), chains)

    def caught(
        self, pid: int, groups: Sequence[Sequence[Chain]]
    ) -> tuple[int, list[list[int]]] | None:
        """The same, as soon as one is not 0 (:func:`tracer.capture.memory.caught`).

        Raises:
            OSError: it has ended, or may not be read.
        """
        if self.keeper is not None:
            return self.keeper.caught(pid, groups)
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            return caught(memory.fileno(), groups)

    def threads(self, pid: int) -> list[int]:
        """The threads of a process, by the numbers that it knows them by itself.

        Raises:
            OSError: it has ended, or may not be looked at.
        """
        return thread_numbers(pid) if self.keeper is None else self.keeper.threads(pid)
