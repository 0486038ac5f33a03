"""Which processes are Go programs, for ``pretake watch --go``.

A machine may have thousands of processes, and a node of Kubernetes hundreds of one program. So a
file is read once for all processes that run it, and no more of it than says whether it is Go: its
headers and ``.go.buildinfo``, by the parser in its jail (:mod:`tracer.targets.jail`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from tracer.capture.layouts import FileIdentity
from tracer.capture.target_files import TargetFiles
from tracer.errors import PretakeError
from tracer.targets import jail

__all__ = ["GoPrograms"]

_MOST: Final = 4096
"""Files whose answer is kept; the one that nobody has asked for the longest goes first."""


class GoPrograms:
    """Tells whether a process runs a Go program.

    Attributes:
        files: opens programs.
        read: how many files were read.
        unread: processes of which it is not known, and why.
    """

    def __init__(self) -> None:
        self.files = TargetFiles()
        self.read = 0
        self.unread: dict[int, str] = {}
        self._answers: OrderedDict[FileIdentity, bool | str] = OrderedDict()
        self._used: set[FileIdentity] = set()

    def ask(self, pid: int) -> bool | str:
        """Whether a process runs a Go program; why not, where that cannot be known.

        It is a Go program if :func:`tracer.targets.find.look_at` finds Go's runtime in its file.
        """
        try:
            fd = self.files.open(pid, "exe")
        except OSError as error:
            return error.strerror or str(error)
        try:
            identity = FileIdentity.of(os.fstat(fd))
            answer = self._answers.get(identity)
            if answer is None:
                answer = self._answers[identity] = self._look(fd, pid)
            self._used.add(identity)
            self._answers.move_to_end(identity)
            if len(self._answers) > _MOST:
                self._answers.popitem(last=False)
            return answer
        finally:
            os.close(fd)

    def forget_unused(self) -> None:
        """Forget files that nobody asked for since the last time, and those that failed."""
        for identity, answer in list(self._answers.items()):
            if identity not in self._used or isinstance(answer, str):
                del self._answers[identity]
        self._used.clear()

    def _look(self, fd: int, pid: int) -> bool | str:
        self.read += 1
        try:
            return jail.is_go(fd, Path(f"/proc/{pid}/exe"))
        except PretakeError as error:
            return error.problem
