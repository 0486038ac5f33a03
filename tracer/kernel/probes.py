"""Where the BPF programs run: at tracepoints of the kernel."""

from __future__ import annotations

import os
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.compiler import OPTIONAL_TRACEPOINTS, TAIL_CALLS, TRACEPOINTS
from tracer.kernel.loaded import Loaded

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
        absent = [n for n in OPTIONAL_TRACEPOINTS if not self._loaded.has_place(TRACEPOINTS[n])]
        # Those of system calls, where calls are told without them.
        absent += [n for n in TRACEPOINTS if TRACEPOINTS[n] not in self._loaded.functions]
        attached = [n for n in TRACEPOINTS if n not in leave_out and n not in absent]
        for array, (_, functions) in TAIL_CALLS.items():
            for number, function in enumerate(functions):
                program = self._loaded.load(function, bpf.TRACING, bpf.TRACE_TRACEPOINT)
                key, value = np.array([number, program], np.uint32)[:, None]
                self._loaded.update(array, key, value)
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

    def detach(self) -> None:
        """Take every probe away."""
        # Each waits for the kernel's grace period; together they wait for one.
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(os.close, self._fds))
        self._fds.clear()
