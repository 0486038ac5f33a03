"""What a wait may end with. Not compiled: mypyc makes no exceptions."""

from __future__ import annotations

import errno

__all__ = ["DoubleWait", "FileClosed"]


class DoubleWait(RuntimeError):  # noqa: N818  Go's word
    """A goroutine waits already for this event of this descriptor (Go: runtime: double wait)."""


class FileClosed(OSError):  # noqa: N818  Go's word
    """The descriptor was closed while a goroutine waited for it (Go: os.ErrClosed)."""

    def __init__(self, fd: int) -> None:
        super().__init__(errno.EBADF, f"use of closed file: descriptor {fd}")
