"""What is known of each architecture: its machine code, made by hand, and its numbers."""

from __future__ import annotations

import re

import pytest
import system_calls

from tracer.arch import (
    ARCHITECTURES,
    ARM64,
    KERNEL_FIELDS,
    X86_64,
    Architecture,
    of_elf,
    of_trace,
)
from tracer.kernel.records import arch_c_header

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


def words(text: str) -> bytes:
    """Bytes in the order in which a disassembler shows them."""
    return bytes.fromhex(text)


# As llvm-objdump shows them in a program of Go 1.27.3, with what they are.
ARM_CHECK = words("900b40f9 ff6330eb")  # ldr x16, [x28, #16]; cmp sp, x16
ARM_FAR_CHECK = words("900f40f9 f18300d1 3f0210eb")  # ldr x16, [x28, #24]; sub x17, sp, #32; cmp
BRANCH = words("29070054")  # b.ls
PUSH_LINK = words("fe0f1df8")  # str x30, [sp, #-48]!


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        (ARM_CHECK + BRANCH + PUSH_LINK, 8),
        (ARM_FAR_CHECK + BRANCH, 12),
        (words("6238ff97"), 0),  # bl
        (words("bb090090"), 0),  # adrp
        (words("431c00b5"), 0),  # cbnz
        (words("c0035fd6"), 0),  # ret
        # Stepped, and behind it the stack is another.
        (PUSH_LINK + BRANCH, None),
        (ARM_CHECK + PUSH_LINK + BRANCH, None),
        (ARM_CHECK, None),
        (BRANCH[:3], None),
        (b"", None),
    ],
)
def test_the_first_instruction_that_is_simulated(code: bytes, offset: int | None) -> None:
    assert ARM64.emulated_offset(code) == offset


# runtime.stopm at 0x583b0: adrp x0, 0x18b000; add x0, x0, #4000; bl runtime.lock2 (0x26540)
LOCKS = words("800900f0 00803e91 6238ff97")


def test_a_call_and_the_address_that_it_is_given() -> None:
    assert ARM64.calls(LOCKS, 0x583B0, 0x26540) == [0x583B8]
    assert ARM64.calls(LOCKS, 0x583B0, 0x26544) == []
    assert ARM64.argument(LOCKS, 0x583B0, 0x583B8) == 0x18B000 + 4000
    # In another register, without the address, and cut short.
    other = words("810900f0 21803e91 6238ff97")
    assert ARM64.argument(other, 0x583B0, 0x583B8) is None
    assert ARM64.argument(BRANCH * 2 + LOCKS[8:], 0x583B0, 0x583B8) is None
    assert ARM64.argument(LOCKS[4:], 0x583B4, 0x583B8) is None


def test_addresses_that_code_loads_from() -> None:
    # runtime.preemptall at 0x60828: adrp x27, 0x18a000; add x27, x27, #112; ldp x1, x2, [x27]
    pair = words("5b0900d0 7bc30191 610b40a9")
    assert ARM64.loads(pair, 0x60828) == {0x18A070, 0x18A078}
    # runtime.handoffp at 0x5878c: adrp x27, 0x18c000; ldr x3, [x27]
    assert ARM64.loads(words("bb090090 630340f9"), 0x5878C) == {0x18C000}
    # Of Go 1.19, position-independent, at 0x4f148: adrp x1, 0x158000; add x1, x1, #1264;
    # ldr x2, [x1]; str x2, [sp, #48]; ldr x1, [x1, #8]; what comes then is of another address.
    apart = words("410800b0 21c01391 220040f9 e21b00f9 210440f9 220040f9")
    assert ARM64.loads(apart, 0x4F148) == {0x1584F0, 0x1584F8}
    assert ARM64.loads(LOCKS, 0x583B0) == set()
    assert ARM64.loads(pair[:8], 0x60828) == set()


def test_where_a_number_is_copied_to() -> None:
    # runtime.reentersyscall: ldr x4, [x3, #208]; ldr w4, [x4, #20]; str w4, [x3, #788]
    copied = words("646840f9 841440b9 641403b9")
    assert ARM64.copied_to(copied, 20) == {788}
    assert ARM64.copied_to(copied, 24) == set()
    # Another register is stored.
    assert ARM64.copied_to(words("841440b9 651403b9"), 20) == set()


def test_where_a_thread_has_its_variables() -> None:
    # x86-64: the segment, of 40 bytes aligned to 16, ends at the thread pointer.
    assert X86_64.tls_offset(8, (40, 16)) == 8 - 48
    # arm64: it begins behind two words.
    assert ARM64.tls_offset(8, (40, 8)) == 16 + 8
    assert ARM64.tls_offset(8, (40, 64)) == 64 + 8


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: arch.name)
def test_numbers_are_those_of_the_kernels_own_tables(arch: Architecture) -> None:
    table = system_calls.syscalls().load_arch_table(arch.calls_table)
    assert dict(arch.system_calls) == {name: table[name] for name in arch.system_calls}


def test_the_architecture_of_a_file_and_of_a_trace() -> None:
    assert of_elf(62) is X86_64
    assert of_elf(183) is ARM64
    assert of_elf(243) is None
    assert of_trace("x86_64") is X86_64
    assert of_trace("aarch64") is ARM64
    assert of_trace("riscv64") is None
    assert of_trace(None) is X86_64


def test_a_kernels_field_is_looked_for_in_both() -> None:
    number, frame = KERNEL_FIELDS["REGS_NR"], KERNEL_FIELDS["REGS_FRAME"]
    assert number == (("pt_regs", "orig_ax"), ("pt_regs", "syscallno"))
    assert frame == (("pt_regs", "bp"), ("pt_regs", "regs.29"))
    assert KERNEL_FIELDS["REGS_G"] == (("pt_regs", "regs.28"),)


def test_numbers_of_calls_in_c() -> None:
    ahead, of_arm, of_x86 = re.split("#ifdef bpf_target_arm64|#else", arch_c_header())
    assert "#define" not in ahead
    assert "#define NR_FUTEX 98\n" in of_arm
    assert "#define CALL_INSTRUCTION_BYTES 4\n" in of_arm
    assert "#define NR_FUTEX 202\n" in of_x86
    assert "#define CALL_INSTRUCTION_BYTES 2\n" in of_x86
