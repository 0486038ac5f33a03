"""arm64, which Linux calls aarch64.

All instructions are words of 4 bytes. An address takes two of them, side by side, in Go's code::

    adrp x0, PAGE            the page, by its distance from this instruction's page
    add  x0, x0, #OFFSET     and the place in it; ldr x0, [x0, #OFFSET] loads what is there

A function's first argument is in x0, the return address in x30, and g in x28 while Go's code runs.
A program without cgo has g nowhere else.

Where a uprobe is cheap: Linux simulates, under a uprobe, branches, ``adr``, ``adrp`` and loads
from a distance (arch/arm64/kernel/probes/decode-insn.c: ``INSN_GOOD_NO_SLOT``). It steps every
other instruction out of line. Go's functions begin with the check of their stack::

    ldr  x16, [x28, #16]     (24: functions of the system stack)
    cmp  sp, x16             or sub x17, sp, #FRAME and cmp x17, x16
    b.ls morestack           simulated, and the arguments and x30 are as at the first instruction
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from tracer.arch.architecture import Architecture

__all__ = ["ARM64"]

_WORD = 4
_PAGE_BITS = 12
"""Of the pages that ``adrp`` counts, whatever the kernel's are."""

_LOAD, _LOAD_PAIR = 0b1111100101, 0b1010100101
"""The first ten bits of ``ldr x, [x, #OFFSET]`` and of ``ldp x, x, [x, #OFFSET]``."""
_LOAD_HALF, _STORE_HALF = 0b1011100101, 0b1011100100
"""And of ``ldr w, [x, #OFFSET]`` and ``str w, [x, #OFFSET]``."""

_NEAR = 3
"""Instructions behind an address that may use it: a pair is loaded, one put aside, one loaded."""

_STACK_CHECKS = (
    # mask, bits: instructions of the check of a stack.
    (0xFFFFFBFF, 0xF9400B90),  # ldr x16, [x28, #16], or 24
    (0xFFFFFFFF, 0xEB3063FF),  # cmp sp, x16
    (0xFF8003FF, 0xD10003F1),  # sub x17, sp, #FRAME
    (0xFFFFFFFF, 0xEB10023F),  # cmp x17, x16
)
_SIMULATED = (
    (0x7C000000, 0x14000000),  # b, bl
    (0xFF000010, 0x54000000),  # b.CONDITION
    (0x7C000000, 0x34000000),  # cbz, cbnz, tbz, tbnz
    (0xFF9FFC1F, 0xD61F0000),  # br, blr, ret
    (0x1F000000, 0x10000000),  # adr, adrp
    (0xBF000000, 0x18000000),  # ldr REGISTER, DISTANCE
)

# asm-generic/unistd.h
_SYSTEM_CALLS = {
    "close": 57,
    "lseek": 62,
    "read": 63,
    "write": 64,
    "pread64": 67,
    "fstat": 80,
    "exit": 93,
    "exit_group": 94,
    "futex": 98,
    "nanosleep": 101,
    "clock_gettime": 113,
    "clock_nanosleep": 115,
    "restart_syscall": 128,
    "tgkill": 131,
    "rt_sigreturn": 139,
    "brk": 214,
    "munmap": 215,
    "mremap": 216,
    "clone": 220,
    "execve": 221,
    "mmap": 222,
    "mprotect": 226,
    "madvise": 233,
    "perf_event_open": 241,
    "bpf": 280,
    "execveat": 281,
}
_KERNEL_FIELDS = {
    # TIF_32BIT is one of them (arch/arm64/include/asm/thread_info.h).
    "TASK_STATUS": (("task_struct", "thread_info.flags"),),
    # The thread pointer, as it was at the last switch; x86-64 has it in FS.
    "TASK_FSBASE": (("task_struct", "thread.uw.tp_value"),),
    "REGS_NR": (("pt_regs", "syscallno"),),
    "REGS_SP": (("pt_regs", "sp"),),
    "REGS_FRAME": (("pt_regs", "regs.29"),),
    "REGS_PC": (("pt_regs", "pc"),),
    # What the call returns takes the place of the first argument.
    "REGS_ARG0": (("pt_regs", "orig_x0"),),
    "REGS_ARG1": (("pt_regs", "regs.1"),),
    "REGS_ARG2": (("pt_regs", "regs.2"),),
    "REGS_RETURN": (("pt_regs", "regs.0"),),
    "REGS_G": (("pt_regs", "regs.28"),),
    # Of clone in Go's newosproc (sys_linux_arm64.s): the new thread's g0; its M is on a stack.
    "REGS_NEW_G": (("pt_regs", "regs.11"),),
}


class _Arm64(Architecture):
    name = "aarch64"
    title = "arm64"
    goarch = "arm64"
    elf_machine = 183
    calls_table = "arm64"
    system_calls = _SYSTEM_CALLS
    audit = 0xC00000B7
    quantum = _WORD
    call_instruction_bytes = _WORD  # svc
    tls_relocation = 1030  # R_AARCH64_TLS_TPREL64
    g_without_tls = 0
    loaders = ("ld-linux-aarch64.so", "ld-musl-aarch64.so")
    kernel_fields = _KERNEL_FIELDS
    # TIF_FOREIGN_FPSTATE, which comes nearest, is not set where nobody else used the registers of
    # floating point meanwhile.
    tells_user_code = False

    def tls_offset(self, variable: int, segment: tuple[int, int]) -> int:
        # The segment follows two words that the thread pointer points to.
        alignment = max(segment[1], 1)
        return variable + (16 + alignment - 1) // alignment * alignment

    def calls(self, code: bytes, begin: int, callee: int) -> list[int]:
        return [
            begin + at
            for at, word in _words(code)
            if word >> 26 == 0b100101 and begin + at + _signed(word, 0, 26) * _WORD == callee
        ]

    def argument(self, code: bytes, begin: int, call: int) -> int | None:
        at = call - begin - 2 * _WORD
        if at < 0:
            return None
        page, add = struct.unpack_from("<II", code, at)
        if not _is_page(page) or not _is_add(add) or _target(page) or _target(add) or _base(add):
            return None
        return _page(page, begin + at) + _immediate(add)

    def loads(self, code: bytes, begin: int) -> set[int]:
        found: set[int] = set()
        words = [word for _, word in _words(code)]
        for i, page in enumerate(words):
            if not _is_page(page):
                continue
            address, held, rest = _page(page, begin + i * _WORD), _target(page), words[i + 1 :]
            if rest and _is_add(rest[0]) and _base(rest[0]) == held:
                address, held, rest = address + _immediate(rest[0]), _target(rest[0]), rest[1:]
            for word in rest[:_NEAR]:
                if _base(word) == held and word >> 22 == _LOAD:
                    found.add(address + _immediate(word) * 8)
                    if _target(word) == held:
                        break
                elif _base(word) == held and word >> 22 == _LOAD_PAIR:
                    first = address + _signed(word, 15, 7) * 8
                    found |= {first, first + 8}
                    break
        return found

    def copied_to(self, code: bytes, source: int) -> set[int]:
        # ldr w, [P, #source]; str w, [M, #offset]
        words = [word for _, word in _words(code)]
        return {
            _immediate(stored) * 4
            for load, stored in pairwise(words)
            if load >> 22 == _LOAD_HALF
            and _immediate(load) * 4 == source
            and stored >> 22 == _STORE_HALF
            and _target(stored) == _target(load)
        }

    def emulated_offset(self, code: bytes) -> int | None:
        for at, word in _words(code):
            if _is_one_of(word, _SIMULATED):
                return at
            if not _is_one_of(word, _STACK_CHECKS):
                return None
        return None


def _words(code: bytes) -> Iterator[tuple[int, int]]:
    """Offset and number of each whole instruction."""
    whole = len(code) // _WORD * _WORD
    for i, (word,) in enumerate(struct.iter_unpack("<I", code[:whole])):
        yield i * _WORD, word


def _is_one_of(word: int, kinds: tuple[tuple[int, int], ...]) -> bool:
    return any(word & mask == bits for mask, bits in kinds)


def _is_page(word: int) -> bool:
    """``adrp``."""
    return word & 0x9F000000 == 0x90000000


def _is_add(word: int) -> bool:
    """``add`` of 64 bits and a number that is not shifted."""
    return word >> 22 == 0b1001000100


def _page(word: int, address: int) -> int:
    """The address of the page that an ``adrp`` at an address tells."""
    distance = _signed(word, 5, 19) << 2 | word >> 29 & 3
    return (address >> _PAGE_BITS) + distance << _PAGE_BITS


def _target(word: int) -> int:
    return word & 31


def _base(word: int) -> int:
    return word >> 5 & 31


def _immediate(word: int) -> int:
    return word >> 10 & 0xFFF


def _signed(word: int, low: int, bits: int) -> int:
    """A field of an instruction, as a number with a sign."""
    value = word >> low & (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


ARM64 = _Arm64()
