"""Numbers that the BPF programs get when they are loaded: offsets in this kernel, and options.

For example, ``field_u32(task, OFFSET_TASK_PID)`` in C. The compiler sees a placeholder in place
of the offset (``constants.h``, which :func:`constants_header` makes, and
``tracer/bpf/constants.bpf.c``).
:func:`kernel_constants` finds the offset in a kernel's BTF, and :func:`filled` puts it into the
instruction. So the compiler's output is the same for every kernel, and no compiler is needed where
it is loaded.

A placeholder stands in two kinds of instruction only:

- a load of a field (``r1 = *(u32 *)(r2 + placeholder)``), as its offset;
- the move of a number into a register (``r1 = placeholder``), as its immediate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import numpy as np

from tracer.arch import KERNEL_FIELDS
from tracer.errors import PretakeError
from tracer.kernel.btf import Btf

__all__ = ["CONSTANTS", "RETURN_FLAG", "constants_header", "filled", "kernel_constants"]

_OFFSETS: Final = {
    # The first struct and path that this kernel has.
    "TASK_PID": (("task_struct", "pid"),),
    "TASK_TGID": (("task_struct", "tgid"),),
    "TASK_COMM": (("task_struct", "comm"),),
    # __state since 2f064a59a11f ("sched: Change task_struct::state").
    "TASK_STATE": (("task_struct", "__state"), ("task_struct", "state")),
    # In thread_info since bcf9033e5449 ("sched: move CPU field back into thread_info").
    "TASK_CPU": (("task_struct", "thread_info.cpu"), ("task_struct", "cpu")),
    "TASK_FLAGS": (("task_struct", "flags"),),
    "TASK_JOBCTL": (("task_struct", "jobctl"),),
    # TIF_NEED_FPU_LOAD is one of them (tracer/kernel/return_flag.py).
    "TASK_THREAD_FLAGS": (("task_struct", "thread_info.flags"),),
    "TASK_THREAD_PID": (("task_struct", "thread_pid"),),
    "PID_LEVEL": (("pid", "level"),),
    "PID_NUMBERS": (("pid", "numbers"),),
    "TASK_MM": (("task_struct", "mm"),),
    "MM_EXE_FILE": (("mm_struct", "exe_file"),),
    "MM_START_CODE": (("mm_struct", "start_code"),),
    "MM_END_CODE": (("mm_struct", "end_code"),),
    "BINPRM_INTERP": (("linux_binprm", "interp"),),
    "FILE_INODE": (("file", "f_inode"),),
    "INODE_INO": (("inode", "i_ino"),),
    "INODE_SIZE": (("inode", "i_size"),),
    "INODE_SB": (("inode", "i_sb"),),
    "SB_DEV": (("super_block", "s_dev"),),
    # By 13bc24457850 ("fs: rename i_ctime field to __i_ctime") and, since 3aa63a569c64 ("fs:
    # switch timespec64 fields in inode to discrete integers"), as two numbers.
    "INODE_CTIME_S": (
        ("inode", "i_ctime_sec"),
        ("inode", "__i_ctime.tv_sec"),
        ("inode", "i_ctime.tv_sec"),
    ),
    "INODE_CTIME_NS": (
        ("inode", "i_ctime_nsec"),
        ("inode", "__i_ctime.tv_nsec"),
        ("inode", "i_ctime.tv_nsec"),
    ),
    # Since 769071ac9f20 ("ns: Introduce Time Namespace"); before it, there is one clock.
    "TASK_NSPROXY": (("task_struct", "nsproxy"),),
    "NSPROXY_TIME": (("nsproxy", "time_ns"),),
    "TIME_MONOTONIC_S": (("time_namespace", "offsets.monotonic.tv_sec"),),
    "TIME_MONOTONIC_NS": (("time_namespace", "offsets.monotonic.tv_nsec"),),
    "TASK_SIGNAL": (("task_struct", "signal"),),
    "SIGNAL_LIVE": (("signal_struct", "live"),),
    "SIGACTION_FLAGS": (("k_sigaction", "sa.sa_flags"),),
    "SIGACTION_HANDLER": (("k_sigaction", "sa.sa_handler"),),
    **KERNEL_FIELDS,
}
"""By the constant's name: structs and members. The first that this kernel has is meant."""

_OPTIONS: Final = ("DETAIL_FULL", "ALL_SIGNALS", "HOST", "NO_STACKS")
"""What may be asked of a capture without other programs; 0 where it is not."""

_PREV_STATE: Final = "SCHED_SWITCH_HAS_PREV_STATE"
RETURN_FLAG: Final = "THREAD_FLAG_RETURN"
"""The number that :mod:`tracer.kernel.return_flag` finds."""

CONSTANTS: Final = (*(f"OFFSET_{name}" for name in _OFFSETS), _PREV_STATE, RETURN_FLAG, *_OPTIONS)
"""All names, in the order of their placeholders."""

_FIELD_BASE: Final = 0x7D00
"""Of placeholders in loads, whose offset has 16 bits; no struct in the programs is so long."""
_CONSTANT_BASE: Final = 0x7E570000
"""Of those in moves."""
_LOADS: Final = (0x61, 0x79)  # BPF_LDX | BPF_MEM, of 4 and of 8 bytes
_MOVE: Final = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_UNKNOWN: Final = -1


def constants_header() -> str:
    """The placeholders, for C."""
    lines = ["/* Made from tracer/kernel/constants.py; do not edit. */", "#pragma once", ""]
    lines += [f"#define FIELD_BASE {_FIELD_BASE:#x}", f"#define CONSTANT_BASE {_CONSTANT_BASE:#x}"]
    lines += [f"#define {name} {number}" for number, name in enumerate(CONSTANTS)]
    return "\n".join([*lines, ""])


def kernel_constants(btf: Btf) -> dict[str, int]:
    """What a kernel's own description says: each field's offset, -1 where it has none."""
    values = {}
    for name, places in _OFFSETS.items():
        offset = _UNKNOWN
        for struct_name, path in reversed(places):
            with contextlib.suppress(KeyError):
                offset = btf.offset(struct_name, path)
        values[f"OFFSET_{name}"] = offset
    # preempt, prev, next, and since 5.18 prev_state.
    values[_PREV_STATE] = int(btf.tracepoint_arguments("sched_switch") >= 4)
    return values


def filled(code: np.ndarray, values: Mapping[str, int]) -> np.ndarray:
    """Instructions with the constants in the place of their placeholders.

    Args:
        code: of one program, of type :data:`~tracer.kernel.object.INSTRUCTION`.
        values: of :data:`CONSTANTS`; one that is not there is 0.

    Raises:
        PretakeError: a value does not fit into its instruction.
    """
    numbers = np.array([values.get(name, 0) for name in CONSTANTS], np.int64)
    code = code.copy()
    # Not the second half of a wide instruction: its opcode is 0.
    loads = np.isin(code["op"], _LOADS)
    for where, field, base in (
        (loads, "off", _FIELD_BASE),
        (code["op"] == _MOVE, "imm", _CONSTANT_BASE),
    ):
        number = code[field].astype(np.int64) - base
        at = np.flatnonzero(where & (number >= 0) & (number < len(CONSTANTS)))
        value = numbers[number[at]]
        most = np.iinfo(code.dtype[field])
        if not np.all((value >= most.min) & (value <= most.max)):
            wrong = CONSTANTS[number[at][(value < most.min) | (value > most.max)][0]]
            raise PretakeError(
                f"this kernel's {wrong} does not fit into an instruction", "see 'pretake doctor'"
            )
        code[field][at] = value
    return code
