"""The kernel features that the BPF programs need, each tried by a program of a few instructions.

The version would not tell: a distribution may have brought a feature to an older kernel.
"""

from __future__ import annotations

import os
import platform
import struct
from typing import Final

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.btf import kernel_btf
from tracer.kernel.refused import refusal

__all__ = ["MEND", "lacking", "require"]

MEND: Final = (
    "run Linux 5.15 or later, as Debian 12's 6.1; the reference runtime alone is captured by"
    " 'pretake record --backend perf'"
)
"""What to do about a kernel that lacks something."""

# enum bpf_func_id
_TASK_STORAGE_GET, _CURRENT_TASK, _TASK_PT_REGS = 156, 158, 175
_CALL, _EXIT = 0x85, 0x95
_PLACE: Final = "btf_trace_sys_enter"


def _code(*instructions: tuple[int, int, int, int]) -> bytes:
    """Instructions as (opcode, registers, offset, immediate); returns 0 behind them."""
    end = ((0xB7, 0, 0, 0), (_EXIT, 0, 0, 0))
    return b"".join(struct.pack("<BBhi", *one) for one in (*instructions, *end))


# r0 = bpf_task_pt_regs(bpf_get_current_task_btf())
_REGISTERS: Final = _code(
    (_CALL, 0, 0, _CURRENT_TASK), (0xBF, 0x01, 0, 0), (_CALL, 0, 0, _TASK_PT_REGS)
)
# *(u64 *)(r10 - 8) = 0; r0 = 0; r1 = 0; lock cmpxchg of them
_EXCHANGE: Final = _code(
    (0x7A, 0x0A, -8, 0), (0xB7, 0, 0, 0), (0xB7, 1, 0, 0), (0xDB, 0x1A, -8, 0xF1)
)


def _storage_code(fd: int) -> bytes:
    """r0 = bpf_task_storage_get(map, bpf_get_current_task_btf(), 0, 0)."""
    return _code(
        (_CALL, 0, 0, _CURRENT_TASK),
        (0xBF, 0x02, 0, 0),
        (0x18, 0x11, 0, fd),
        (0, 0, 0, 0),
        (0xB7, 3, 0, 0),
        (0xB7, 4, 0, 0),
        (_CALL, 0, 0, _TASK_STORAGE_GET),
    )


def _loads(code: bytes, place: int) -> bool:
    try:
        fd = bpf.load_program("pretake_feature", bpf.TRACING, code, bpf.TRACE_TRACEPOINT, place)
    except bpf.LoadError:
        return False
    os.close(fd)
    return True


def _has_storage(place: int) -> bool:
    try:
        fd = bpf.create_task_storage("feature", 8)
    except PermissionError:
        raise
    except OSError:
        return False
    try:
        return _loads(_storage_code(fd), place)
    finally:
        os.close(fd)


def lacking() -> list[str]:
    """What the programs need and this kernel has not, in its words; empty where it has all.

    Raises:
        PretakeError: the kernel has no BTF, or the caller may not load programs.
    """
    place = kernel_btf().attach_id(_PLACE)
    try:
        found = {
            # Since a10787e6d58c ("bpf: Enable task local storage for tracing programs").
            "task storage for tracing programs": _has_storage(place),
            # Since dd6e10fbd9fb ("bpf: Add bpf_task_pt_regs() helper").
            "bpf_task_pt_regs": _loads(_REGISTERS, place),
            # Since 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg").
            "atomic exchange in programs": _loads(_EXCHANGE, place),
        }
    except PermissionError as error:
        raise refusal() from error
    return [name for name, has in found.items() if not has]


def require() -> None:
    """Raise PretakeError, in one line, where this kernel lacks what the programs need."""
    lacks = lacking()
    if lacks:
        raise PretakeError(f"Linux {platform.release()} has no {', no '.join(lacks)}", MEND)
