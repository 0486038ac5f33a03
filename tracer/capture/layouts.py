"""Where the processes keep their runtime, as the BPF programs know it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracer.kernel.loaded import Loaded
from tracer.targets.layout import LAYOUT_DTYPE, RuntimeLayout

__all__ = ["Layouts"]


class Layouts:
    """The layouts that the BPF programs read by: of processes, and of binaries to come.

    Args:
        loaded: the programs.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def set_layout(self, tgid: int, layout: RuntimeLayout) -> None:
        """Tell where process ``tgid``, which runs already, keeps its runtime."""
        self._loaded.update("runtime_layouts", np.array(tgid, np.uint32), layout.pack())

    def set_binary(self, path: Path, layout: RuntimeLayout) -> None:
        """Tell the layout of a binary, for every target process that will exec it."""
        status = path.stat()
        key = np.array([status.st_ino, status.st_size], np.uint64)
        self._loaded.update("runtime_binaries", key, layout.pack())

    def layout_of(self, tgid: int) -> np.ndarray | None:
        """Where a process keeps, or kept, its runtime: a record of ``LAYOUT_DTYPE``, or None."""
        found = self._loaded.look_up("runtime_layouts", np.array(tgid, np.uint32))
        return None if found is None else found.view(LAYOUT_DTYPE)

    def set_reference(self, layout: RuntimeLayout) -> None:
        """Tell the reference runtime's layout, for every target process that starts an M."""
        self._loaded.update("reference_layout", np.array(0, np.uint32), layout.pack())

    def reference_mstarts(self) -> int:
        """How many Ms of reference runtimes began in targets."""
        return int(self._loaded.read("reference_mstarts", 0))
