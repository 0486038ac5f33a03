"""Names for numbers: system calls."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import system_calls

from tracer import arch
from tracer.trace.schema import UNKNOWN

__all__ = ["syscall_names", "syscall_numbers"]


def syscall_numbers(machine: str | None, *names: str) -> tuple[int, ...]:
    """The numbers of some system calls on an architecture; none where it is not known.

    Args:
        machine: as the manifest's ``arch`` tells it.
        names: of :attr:`tracer.arch.Architecture.system_calls`.
    """
    found = arch.of_trace(machine)
    return () if found is None else tuple(found.nr(name) for name in names)


@cache
def _names(machine: str | None) -> dict[int, str]:
    found = arch.of_trace(machine)
    if found is None:
        return {}
    return dict(system_calls.syscalls().load_reverse_arch_table(found.calls_table))


def syscall_names(numbers: npt.ArrayLike, machine: str | None = None) -> npt.NDArray[np.object_]:
    """The name of each system call; ``nr N`` for a number without one, None for unknown.

    Args:
        numbers: of system calls.
        machine: the architecture whose they are, as the manifest's ``arch`` tells it; None is
            x86-64. Of one that pretake does not know, no number has a name.

    Example:
        ``syscall_names([63], "aarch64")`` is ``["read"]``; on x86-64 that is ``uname``.
    """
    values, inverse = np.unique(np.asarray(numbers, np.int64), return_inverse=True)
    names = _names(machine)
    words = np.array([names.get(int(value), f"nr {value}") for value in values], object)
    words[values == UNKNOWN] = None
    return words[inverse]
