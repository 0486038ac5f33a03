"""Names for numbers: system calls."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import system_calls

from tracer.trace.schema import UNKNOWN

__all__ = ["syscall_names"]


@cache
def _x86_64() -> dict[int, str]:
    calls = system_calls.syscalls()
    return dict(calls.load_reverse_arch_table("x86_64"))


def syscall_names(numbers: npt.ArrayLike) -> npt.NDArray[np.object_]:
    """The name of each x86-64 system call; ``nr N`` for a number without one, None for unknown."""
    values, inverse = np.unique(np.asarray(numbers, np.int64), return_inverse=True)
    names = _x86_64()
    words = np.array([names.get(int(value), f"nr {value}") for value in values], object)
    words[values == UNKNOWN] = None
    return words[inverse]
