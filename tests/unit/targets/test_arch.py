"""Where a uprobe is put: hand-made machine code, and what each instruction is to the kernel."""

from __future__ import annotations

import pytest

from tracer.arch import X86_64

STACK_CHECK = bytes.fromhex("493b6610")  # cmp 0x10(%r14),%rsp
FAR_CHECK = bytes.fromhex("4c8d6424e8 4d3b6618")  # lea -0x18(%rsp),%r12; cmp 0x18(%r14),%r12
HUGE_CHECK = bytes.fromhex("4c8da42400ffffff 4d3b6610")  # lea -0x100(%rsp),%r12; cmp
NEAR, FAR = bytes.fromhex("7612"), bytes.fromhex("0f86ce020000")  # jbe
PUSH, MOVE, TAKE = b"\x55", bytes.fromhex("4889e5"), bytes.fromhex("4883ec20")


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        (STACK_CHECK + NEAR + PUSH, 4),
        (STACK_CHECK + FAR, 4),
        (FAR_CHECK + FAR, 9),
        (HUGE_CHECK + NEAR, 12),
        (PUSH + MOVE, 0),
        (b"\x90" + MOVE, 0),
        (bytes.fromhex("e800000000"), 0),
        # Single-stepped, and behind it the stack is another.
        (TAKE + PUSH, None),
        (STACK_CHECK + MOVE + NEAR, None),
        (STACK_CHECK, None),
        (b"", None),
    ],
)
def test_the_first_instruction_that_is_emulated(code: bytes, offset: int | None) -> None:
    assert X86_64.emulated_offset(code) == offset
