"""Reads the stacks of blocked threads out of the map in which the BPF programs stored them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.kernel.loaded import Loaded

__all__ = ["KernelStack", "kernel_stacks"]


@dataclass(frozen=True)
class KernelStack:
    """One stack.

    Args:
        pid: the process that it was seen in.
        generation: which program of that process.
        addresses: innermost first.
    """

    pid: int
    generation: int
    addresses: tuple[int, ...]

    @classmethod
    def of(cls, stored: np.ndarray) -> KernelStack:
        """As ``struct block_stack`` or ``struct live_stack`` has it."""
        addresses = tuple(int(pc) for pc in stored["pc"] if pc)
        return cls(int(stored["tgid"]), int(stored["generation"]), addresses)


def kernel_stacks(loaded: Loaded) -> dict[int, KernelStack]:
    """The stacks that threads blocked with, by stack_id."""
    found = {}
    for key in loaded.keys("stacks", np.dtype(np.uint32)):
        stack = loaded.look_up("stacks", key)
        if stack is not None:
            found[int(key)] = KernelStack.of(stack)
    return found
