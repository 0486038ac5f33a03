"""A kernel that calls back: a program at ``sched_switch`` that wakes a thread at each block.

The discussion of Go issue 29734 names kernels that call the scheduler when a thread blocks (UMS,
switchto). Linux has none of that, but a BPF program may send a signal to one thread. So the
thread that waits is woken by the kernel, on the way out of the one that blocked:
``tracer/bpf/upcall.bpf.c``.

It needs root, Linux 6.13 (``bpf_send_signal_task``), and bcc, which compiles it when it is first
asked for.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.btf import kernel_btf
from tracer.kernel.fitting import upcall_programs

__all__ = ["THREADS_MOST", "Upcalls"]

THREADS_MOST: Final = 1024
"""So many threads of the process are watched, as in ``upcall.bpf.c``."""

_PROGRAM: Final = "on_switch_upcall"
_KERNEL_FUNCTION: Final = "bpf_send_signal_task"
_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO
_INSTEAD: Final = "use sched_out, which needs no privilege"


class Upcalls:
    """The program, attached for this process until it is closed.

    Args:
        signal: that wakes the thread on call; each such thread has it blocked.

    Attributes:
        state: the memory that is shared with the program (``struct upcalls``).

    Raises:
        PretakeError: this kernel has no such function, or does not let this user load it, or there
            is no compiler, or the process has numbers of its own for its threads.
    """

    def __init__(self, signal: int) -> None:
        self._fds: list[int] = []
        if os.geteuid() != 0:
            raise PretakeError("an upcall is made by a BPF program, which takes root", _INSTEAD)
        btf = kernel_btf()
        if not btf.has_name(_KERNEL_FUNCTION):
            raise PretakeError(
                f"this kernel has no {_KERNEL_FUNCTION} (Linux 6.13), so it cannot make an upcall",
                _INSTEAD,
            )
        if Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE:
            raise PretakeError(
                "an upcall needs the machine's own numbers of threads, and a container has others",
                _INSTEAD,
            )
        made = upcall_programs(btf)
        try:
            by_name = {
                shape.name: self._kept(
                    bpf.create_map(
                        shape.name, shape.kind, shape.key, shape.value, shape.entries, shape.flags
                    )
                )
                for shape in made.maps
            }
            program = self._kept(
                bpf.load_program(
                    _PROGRAM,
                    bpf.TRACING,
                    made.linked(_PROGRAM, by_name),
                    bpf.TRACE_TRACEPOINT,
                    btf.attach_id("btf_trace_sched_switch"),
                )
            )
            self.state = mmap.mmap(by_name["upcall_state"], mmap.PAGESIZE)
            self.state[:8] = np.array([os.getpid(), signal], np.uint32).tobytes()
            self._threads = by_name["upcall_threads"]
            self._kept(bpf.open_tracepoint(program))
        except (OSError, bpf.LoadError) as error:
            self.close()
            raise PretakeError(
                f"the kernel refuses the upcall: {str(error).splitlines()[-1]}", _INSTEAD
            ) from error

    def _kept(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def add(self, tid: int, number: int) -> None:
        """Watch a thread; ``number``, below :data:`THREADS_MOST`, is the caller's own for it."""
        bpf.update(self._threads, np.array(tid, np.uint32), np.array(number, np.uint32))

    def counts(self) -> tuple[int, int]:
        """Blocks of watched threads in system calls, and signals that were not sent."""
        blocks, failed = np.frombuffer(self.state, np.uint64, 2, 16)
        return int(blocks), int(failed)

    def close(self) -> None:
        """Take the program away; the shared memory stays as long as anybody has it."""
        for fd in reversed(self._fds):
            os.close(fd)
        self._fds.clear()
