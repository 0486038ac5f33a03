"""Where the BPF programs run: at tracepoints, and at functions of files (uprobes)."""

from __future__ import annotations

import os
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.compiler import TRACEPOINTS
from tracer.kernel.loaded import Loaded
from tracer.targets.layout import Probe

__all__ = ["Probes"]


class Probes:
    """The places that programs are attached to; each hangs on a file descriptor.

    Args:
        loaded: the programs.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._fds: list[int] = []

    def attach(self, leave_out: Container[str] = ()) -> list[str]:
        """Put the programs at their tracepoints; returns the names of those.

        Args:
            leave_out: tracepoints to go without, for who measures what each one costs.

        Raises:
            PretakeError: the kernel refused.
        """
        attached = [name for name in TRACEPOINTS if name not in leave_out]
        for tracepoint in attached:
            try:
                function = TRACEPOINTS[tracepoint]
                program = self._loaded.load(function, bpf.TRACING, bpf.TRACE_TRACEPOINT)
                self._fds.append(bpf.open_tracepoint(program))
            except OSError as error:
                raise PretakeError(
                    f"cannot attach to tracepoint {tracepoint}: {error.strerror}",
                    "see 'pretake doctor'",
                ) from error
        return attached

    def attach_uprobe(self, probe: Probe) -> None:
        """Put a program at a function of a file, in every process that runs it.

        Raises:
            PretakeError: the kernel refused.
        """
        try:
            if self._loaded.uprobe_links:
                program = self._loaded.load(probe.handler, bpf.KPROBE, bpf.UPROBE_MULTI)
                fd = bpf.open_uprobe_link(probe.path, probe.file_offset, program)
            else:
                program = self._loaded.load(probe.handler, bpf.KPROBE)
                fd = bpf.open_uprobe(probe.path, probe.file_offset, program)
            self._fds.append(fd)
        except OSError as error:
            raise PretakeError(
                f"cannot probe {probe.symbol} in {probe.path}: {error.strerror}"
            ) from error

    def detach(self) -> None:
        """Take every probe away."""
        # Each uprobe waits for the kernel's grace period; together they wait for one.
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(os.close, self._fds))
        self._fds.clear()
