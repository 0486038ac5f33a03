"""Libraries for a process that runs long: without threads of their own, and giving memory back."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

__all__ = ["give_back_what_is_freed", "import_without_threads"]

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_LARGE_BYTES: Final = 1 << 20

_QUIET = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # The others keep what is freed, and grow for an hour by parts that come and go.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def import_without_threads() -> None:
    """Import them without: a thread that is there would keep the capabilities that we give up.

    Arrow gives back what it frees, too.
    """
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        import numpy  # noqa: F401
        import pyarrow  # noqa: F401
    finally:
        # A command that is captured gets the environment as it was.
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def give_back_what_is_freed() -> None:
    """Give arrays of 1 MiB and more back to the kernel as soon as they are freed.

    glibc does so until one of up to 32 MiB is freed; from then on it keeps room for others of
    that size, in pieces between what stays, which in a watch of a busy server were 20 MB.
    """
    with contextlib.suppress(AttributeError):  # musl has no such thing
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
