"""The stacks that threads blocked with, as the BPF programs stored them."""

from __future__ import annotations

import numpy as np

from tracer.kernel.loaded import Loaded

__all__ = ["addresses_of", "kernel_stacks"]


def kernel_stacks(loaded: Loaded) -> dict[int, tuple[int, list[int]]]:
    """The stacks that threads blocked with, by stack_id.

    Returns:
        The process that each was seen in first, and its addresses, innermost first.
    """
    found = {}
    for key in loaded.keys("stacks", np.dtype(np.uint32)):
        stack = loaded.look_up("stacks", key)
        if stack is not None:
            found[int(key)] = (int(stack["tgid"]), addresses_of(stack))
    return found


def addresses_of(stack: np.ndarray) -> list[int]:
    """The addresses of one stored stack, innermost first."""
    return [int(pc) for pc in stack["pc"] if pc]
