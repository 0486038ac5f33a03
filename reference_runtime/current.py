"""Which M the calling thread is (Go: getg().m), and whether this package runs compiled."""

from __future__ import annotations

import threading
from typing import Final

try:
    from reference_runtime._native import get_current, set_current
except ImportError:  # not built: an ordinary thread-local does, slower
    _local = threading.local()

    def get_current() -> object:
        """The calling thread's M, or None."""
        return getattr(_local, "m", None)

    def set_current(value: object) -> None:
        """Say which M the calling thread is."""
        _local.m = value


COMPILED: Final = not __file__.endswith(".py")
"""Whether the scheduler is machine code made by mypyc."""

__all__ = ["COMPILED", "get_current", "set_current"]
