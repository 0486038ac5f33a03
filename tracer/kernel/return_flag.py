"""Which flag of a thread tells that it has been in user code since it last came on a CPU.

On x86 that is ``TIF_NEED_FPU_LOAD``: while it is set, the thread's floating-point registers are
in memory. A switch sets it, and the return to user code clears it (``switch_fpu_return``, Linux
5.2). It shows whether two blocks lie in one system call or in two, without a program at
``sys_enter`` (``tracer/bpf/calls_inferred.bpf.c``).

Its number differs between kernels and is in no BTF. So it is found by trial. A child writes more
to a pipe than the pipe holds, and we read it bit by bit. The write blocks several times. At the
first block the child comes from user code, at the others it does not; the flag is the one that is
clear at the first and set at all others, in each of several writes. Example, the flags at four
blocks of a write, of which bit 4 is the one:

    0 0100    1 0000    1 0100    1 0000

``TIF_NOTIFY_RESUME`` does the same in a thread that glibc has registered for rseq(2), and in no
other, so in none of Go's. So the child asks glibc not to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.arch import this_machine
from tracer.kernel import bpf
from tracer.kernel.btf import kernel_btf

if TYPE_CHECKING:
    from tracer.kernel.object import Object

__all__ = ["find_return_flag", "flag_of"]

_PROGRAM: Final = "on_switch_of_one"
_MAP: Final = "flags_seen"

_PIPE_BYTES: Final = 4096
_WRITE_BYTES: Final = 6 * _PIPE_BYTES
"""For five blocks: enough that a flag that comes and goes is not set in all but the first."""
_WRITES: Final = 4
"""That have to agree."""
_TRIES: Final = 50
_WRITER: Final = f"import os\nwhile os.read(0, 1): os.write(1, bytes({_WRITE_BYTES}))"


def flag_of(writes: Sequence[Sequence[int]]) -> int | None:
    """The flag that is clear at each write's first block and set at all others.

    Args:
        writes: the thread's flags at the blocks of each write.

    Returns:
        The flag as a number with one bit; None where no bit is like that, or more than one is.
    """
    found = ~0
    for first, *others in writes:
        found &= ~first
        for flags in others:
            found &= flags
    found &= (1 << 64) - 1
    return found if found.bit_count() == 1 else None


def find_return_flag(compiled: Object) -> int | None:
    """Try it on this kernel.

    Args:
        compiled: ``tracer/bpf/return_flag.bpf.c``.

    Returns:
        As :func:`flag_of`; None where it was not found in some tries. A try fails where the thread
        is preempted on its way to the first block.

    Raises:
        LoadError: the kernel refuses the program.
        OSError: or the map.
    """
    if not this_machine().tells_user_code:
        return None
    (shape,) = compiled.maps
    with contextlib.ExitStack() as stack:

        def kept(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        seen = kept(
            bpf.create_map(
                shape.name, shape.kind, shape.key, shape.value, shape.entries, shape.flags
            )
        )
        program = kept(
            bpf.load_program(
                _PROGRAM,
                bpf.TRACING,
                compiled.linked(_PROGRAM, {_MAP: seen}),
                bpf.TRACE_TRACEPOINT,
                kernel_btf().attach_id("btf_trace_sched_switch"),
            )
        )
        kept(bpf.open_tracepoint(program))
        child = _Child()
        stack.callback(child.close)
        first = np.array(0, np.uint32)
        value = np.zeros((), shape.dtype)

        def flags_of_a_write() -> Sequence[int]:
            value["tid"], value["count"] = child.pid, 0
            bpf.update(seen, first, value)
            child.write()
            bpf.lookup(seen, first, value)
            return [int(flags) for flags in value["flags"][: int(value["count"])]]

        for _ in range(_TRIES):
            writes = [flags_of_a_write() for _ in range(_WRITES)]
            flag = flag_of(writes) if all(len(blocks) > 2 for blocks in writes) else None
            if flag is not None:
                return flag
    return None


class _Child:
    """Writes to us when it is told to, with the thread's flags watched."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={"GLIBC_TUNABLES": "glibc.pthread.rseq=0"},
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._told, self._written = self._process.stdin, self._process.stdout
        fcntl.fcntl(self._written, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self) -> None:
        """Let it write once, and read that bit by bit."""
        self._told.write(b"x")
        left = _WRITE_BYTES
        while left:
            # It sleeps in its write as long as there is more to come than the pipe holds.
            if left > _PIPE_BYTES:
                self._until_it_sleeps()
            left -= len(self._written.read(_PIPE_BYTES))

    def _until_it_sleeps(self) -> None:
        # Its own name may be any bytes.
        stat = Path(f"/proc/{self.pid}/stat")
        waiting = np.zeros(1, np.int32)
        while (
            waiting[0] < _PIPE_BYTES or stat.read_bytes().rpartition(b")")[2].split()[0] != b"S"
        ) and self._process.poll() is None:
            os.sched_yield()
            fcntl.ioctl(self._written.fileno(), termios.FIONREAD, waiting.data)

    def close(self) -> None:
        self._told.close()
        self._process.wait()
        self._written.close()
