"""Where a test's own thread runs, and what it starts meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["on_cpu", "on_one_cpu"]


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """On that CPU alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def on_one_cpu() -> contextlib.AbstractContextManager[None]:
    """On one CPU, whichever."""
    return on_cpu(min(os.sched_getaffinity(0)))
