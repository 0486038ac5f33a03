"""Where in a function a uprobe is cheap: on an instruction that the kernel emulates.

Linux on x86-64 emulates, under a uprobe, ``nop``, ``push`` of a register, ``call`` and jumps with
a constant distance (arch/x86/kernel/uprobes.c: ``branch_setup_xol_ops``,
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

__all__ = ["HEAD_BYTES", "emulated_offset"]

HEAD_BYTES = 32
"""How much of a function's begin is looked at."""

_COMPARE_STACK = b"\x49\x3b\x66"
_COMPARE_R12 = b"\x4d\x3b\x66"
_LEA_R12_NEAR = b"\x4c\x8d\x64\x24"
_LEA_R12_FAR = b"\x4c\x8d\xa4\x24"


def emulated_offset(code: bytes) -> int | None:
    """How far behind the begin of ``code`` the first instruction is that the kernel emulates.

    Only instructions that leave the arguments and the stack alone may stand before it.

    Args:
        code: machine code, from a function's first instruction on, or from the place of a probe.

    Returns:
        None where there is no such instruction before one that is not known.
    """
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
