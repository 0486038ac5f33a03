"""Libraries that start threads of their own when they are imported."""

from __future__ import annotations

import os

__all__ = ["import_without_threads"]

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
