"""x86-64.

Where a uprobe is cheap: Linux emulates, under a uprobe, ``nop``, ``push`` of a register, ``call``
and jumps with a constant distance (arch/x86/kernel/uprobes.c: ``branch_setup_xol_ops``,
``push_setup_xol_ops``): 0.4 to 0.6 us a hit. Every other instruction is single-stepped out of
line, for 3.9 us.

Go's functions begin with the check of their stack::

    cmp 0x10(%r14),%rsp          49 3b 66 10          (0x18: functions of the system stack)
    jbe morestack                76 xx | 0f 86 xx xx xx xx

or, with a large frame, with ``lea -0x18(%rsp),%r12`` and a comparison of that. The ``jbe`` is
emulated, and all that a probe reads is there as at the first instruction: arguments, and the
caller's return address on top of the stack. (A call that has to grow its stack comes by twice, at
either place.)
"""

from __future__ import annotations

import struct

from tracer.arch.architecture import Architecture

__all__ = ["X86_64"]

_CALL = 0xE8
_CALL_SIZE = 5
_LEA_AX = b"\x48\x8d\x05"
"""LEAQ distance(IP), AX: Go's first argument is in AX."""
_LEA_SIZE = 7
_LOAD_SIZE = 7
_TICK_LOAD_SIZE, _TICK_STORE_SIZE = 3, 6
_COMPARE_STACK = b"\x49\x3b\x66"
_COMPARE_R12 = b"\x4d\x3b\x66"
_LEA_R12_NEAR = b"\x4c\x8d\x64\x24"
_LEA_R12_FAR = b"\x4c\x8d\xa4\x24"

# asm/unistd_64.h
_SYSTEM_CALLS = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigreturn": 15,
    "pread64": 17,
    "mremap": 25,
    "madvise": 28,
    "nanosleep": 35,
    "clone": 56,
    "execve": 59,
    "exit": 60,
    "futex": 202,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "tgkill": 234,
    "perf_event_open": 298,
    "bpf": 321,
    "execveat": 322,
}
_KERNEL_FIELDS = {
    # Of the current system call (arch/x86/include/asm/thread_info.h): TS_COMPAT.
    "TASK_STATUS": (("task_struct", "thread_info.status"),),
    "TASK_FSBASE": (("task_struct", "thread.fsbase"),),
    "REGS_NR": (("pt_regs", "orig_ax"),),
    "REGS_SP": (("pt_regs", "sp"),),
    "REGS_FRAME": (("pt_regs", "bp"),),
    "REGS_PC": (("pt_regs", "ip"),),
    "REGS_ARG0": (("pt_regs", "di"),),
    "REGS_ARG1": (("pt_regs", "si"),),
    "REGS_ARG2": (("pt_regs", "dx"),),
    "REGS_RETURN": (("pt_regs", "ax"),),
    # Of clone in Go's newosproc (sys_linux_amd64.s): the new thread's M and g0.
    "REGS_NEW_M": (("pt_regs", "r13"),),
    "REGS_NEW_G": (("pt_regs", "r9"),),
}


class _X86(Architecture):
    name = "x86_64"
    title = "x86-64"
    goarch = "amd64"
    elf_machine = 62
    calls_table = "x86_64"
    system_calls = _SYSTEM_CALLS
    audit = 0xC000003E
    quantum = 1
    call_instruction_bytes = 2  # syscall, int 0x80, sysenter
    tls_relocation = 18  # R_X86_64_TPOFF64
    g_without_tls = -8
    loaders = ("ld-linux-x86-64.so", "ld-musl-x86_64.so")
    kernel_fields = _KERNEL_FIELDS
    tells_user_code = True

    def tls_offset(self, variable: int, segment: tuple[int, int]) -> int:
        # The segment ends at the thread pointer, which has the segment's alignment.
        size, alignment = segment[0], max(segment[1], 1)
        return variable - (size + alignment - 1) // alignment * alignment

    def calls(self, code: bytes, begin: int, callee: int) -> list[int]:
        # CALL rel32. A stray 0xE8 inside another instruction would have to be followed by exactly
        # the right distance to be taken for one.
        found = []
        at = code.find(_CALL)
        while 0 <= at <= len(code) - _CALL_SIZE:
            (distance,) = struct.unpack_from("<i", code, at + 1)
            if begin + at + _CALL_SIZE + distance == callee:
                found.append(begin + at)
            at = code.find(_CALL, at + 1)
        return found

    def argument(self, code: bytes, begin: int, call: int) -> int | None:
        at = call - begin - _LEA_SIZE
        if at < 0 or not code.startswith(_LEA_AX, at):
            return None
        (distance,) = struct.unpack_from("<i", code, at + len(_LEA_AX))
        return int(call + distance)

    def loads(self, code: bytes, begin: int) -> set[int]:
        # MOVQ distance(IP), REGISTER.
        found = set()
        for at in range(len(code) - _LOAD_SIZE + 1):
            # REX.W with or without R; MOV r64, r/m64; mod 00 and r/m 101 are relative to IP.
            if code[at] in (0x48, 0x4C) and code[at + 1] == 0x8B and code[at + 2] & 0xC7 == 0x05:
                (distance,) = struct.unpack_from("<i", code, at + 3)
                found.add(begin + at + _LOAD_SIZE + distance)
        return found

    def copied_to(self, code: bytes, source: int) -> set[int]:
        # MOVL disp8(P), REGISTER; MOVL REGISTER, disp32(M): mod 01 and 10, without SIB or REX.
        found: set[int] = set()
        if not 0 <= source < 1 << 7:
            return found
        for at in range(len(code) - _TICK_LOAD_SIZE - _TICK_STORE_SIZE + 1):
            load, stored = code[at : at + _TICK_LOAD_SIZE], code[at + _TICK_LOAD_SIZE :]
            if load[0] != 0x8B or load[1] >> 6 != 1 or load[1] & 7 == 4 or load[2] != source:
                continue
            same_register = (stored[1] ^ load[1]) & 0x38 == 0
            if stored[0] == 0x89 and stored[1] >> 6 == 2 and stored[1] & 7 != 4 and same_register:
                found.add(int(struct.unpack_from("<i", stored, 2)[0]))
        return found

    def emulated_offset(self, code: bytes) -> int | None:
        at = 0
        while True:
            rest = code[at:]
            if _is_emulated(rest):
                return at
            size = _harmless(rest)
            if not size:
                return None
            at += size


def _harmless(code: bytes) -> int:
    """Bytes of an instruction that checks the stack; 0 where it is another one."""
    if code.startswith((_COMPARE_STACK, _COMPARE_R12)):
        return 4
    if code.startswith(_LEA_R12_NEAR):
        return 5
    if code.startswith(_LEA_R12_FAR):
        return 8
    return 0


def _is_emulated(code: bytes) -> bool:
    if not code:
        return False
    first = code[0]
    # nop; push of a register; jumps near and far; call.
    if (
        first == 0x90
        or 0x50 <= first <= 0x57
        or 0x70 <= first <= 0x7F
        or first in (0xE8, 0xE9, 0xEB)
    ):
        return True
    return first == 0x0F and len(code) > 1 and 0x80 <= code[1] <= 0x8F


X86_64 = _X86()
