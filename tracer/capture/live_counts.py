"""Reads the counts that BPF programs compiled with LIVE keep in the kernel, by site and stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from tracer.capture.kernel_stacks import KernelStack
from tracer.kernel.loaded import Loaded

__all__ = ["LiveCounts"]

# struct live_site of live.bpf.c
_LIVE_SITE: Final = np.dtype([("stack", "<u8"), ("nr", "<i8")])


class LiveCounts:
    """The counts of programs that were compiled with LIVE.

    Args:
        loaded: the programs.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def sites(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Number of the stack (0 for none), system call and counts of each site."""
        for key in self._loaded.keys("live_sites", _LIVE_SITE):
            counts = self._loaded.look_up("live_sites", key)
            if counts is not None:
                yield int(key["stack"]), int(key["nr"]), counts

    def others(self) -> Iterator[tuple[int, np.ndarray]]:
        """System call and counts of the sites that there was no room to tell apart."""
        if not self._loaded.read("live_others_used", 0):
            return
        for number in range(self._loaded.shapes["live_others"].entries):
            counts = self._loaded.read("live_others", number)
            if counts["retake"].any():
                yield number, counts

    def unknown(self) -> Iterator[tuple[int, int]]:
        """System call, and how many Ps were taken nobody knows how long after it blocked."""
        if not self._loaded.read("live_unknown_used", 0):
            return
        for number in range(self._loaded.shapes["live_unknown"].entries):
            count = int(self._loaded.read("live_unknown", number))
            if count:
                yield number, count

    def stack(self, number: int) -> KernelStack:
        """One of the stacks.

        Raises:
            KeyError: no site has it.
        """
        stack = self._loaded.look_up("live_stacks", np.array(number, np.uint64))
        if stack is None:
            raise KeyError(number)
        return KernelStack.of(stack)
