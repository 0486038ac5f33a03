"""Which M the calling thread is (Go: getg().m), and whether this package runs compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


CURRENT: Final[Callable[[], object]] = get_current
"""The same for compiled code: it looks up a name of a module that is not compiled at each use, and
this one once."""

COMPILED: Final = not __file__.endswith(".py")
"""Whether the scheduler is machine code made by mypyc."""

__all__ = ["COMPILED", "CURRENT", "get_current", "set_current"]
