"""What a wait or a run may end with. Not compiled: mypyc makes no exceptions."""

from __future__ import annotations

import errno

from tracer.errors import PretakeError

__all__ = ["DoubleWait", "FileClosed", "RunIsOver", "ThreadLimit"]


class RunIsOver(BaseException):
    """Raised in code of a goroutine that still computes when the run is over."""


class ThreadLimit(PretakeError):  # noqa: N818  Go's word
    """No more threads by the program's limit (Go: checkmcount) or the machine's (newosproc)."""


class DoubleWait(RuntimeError):  # noqa: N818  Go's word
    """A goroutine waits already for this event of this descriptor (Go: runtime: double wait)."""


class FileClosed(OSError):  # noqa: N818  Go's word
    """The descriptor was closed while a goroutine waited for it (Go: os.ErrClosed)."""

    def __init__(self, fd: int) -> None:
        super().__init__(errno.EBADF, f"use of closed file: descriptor {fd}")
