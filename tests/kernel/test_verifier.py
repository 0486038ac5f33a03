"""How near each program is to what the kernel allows: a million instructions to verify, and 512
bytes of stack (where LLVM gives up)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.kernel.verified import (
    MOST_INSTRUCTIONS,
    MOST_STACK_BYTES,
    gone_through,
    stack_bytes,
)
from tracer.capture.doctor import MODES
from tracer.kernel.fitting import source
from tracer.kernel.object import INSTRUCTION

every_mode = pytest.mark.parametrize(
    "defines",
    [*(defines for defines, _ in MODES.values()), {"STORAGE_REFUSES": 1, "INFER": 1}],
    ids=[*MODES, "to Linux 6.1"],
)


@every_mode
def test_no_program_is_near_the_verifier_s_limit(defines: Mapping[str, int]) -> None:
    counts = gone_through(defines)
    for name, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"{count:8} {name}")
    assert len(counts) > 15
    assert all(counts.values())
    assert {n: c for n, c in counts.items() if c > MOST_INSTRUCTIONS} == {}


@every_mode
def test_no_program_is_near_the_end_of_its_stack(defines: Mapping[str, int]) -> None:
    """At 504 bytes on x86-64, it was above 512 for arm64, and had no byte code there."""
    functions = source(defines).programs.programs(defines).functions
    taken = {name: stack_bytes(code) for name, code in functions.items()}
    for name, count in sorted(taken.items(), key=lambda pair: -pair[1]):
        print(f"{count:8} {name}")
    assert len(taken) > 15
    assert max(taken.values()) > 100
    assert {n: count for n, count in taken.items() if count > MOST_STACK_BYTES} == {}


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        ([], 0),
        # *(u64 *)(r10 - 16) = r1; r2 = *(u64 *)(r10 - 24)
        ([(0x7B, 0x1A, -16, 0), (0x79, 0xA2, -24, 0)], 24),
        # *(u32 *)(r10 - 8) = 0; r2 = *(u64 *)(r1 - 64)
        ([(0x62, 0x0A, -8, 0), (0x79, 0x12, -64, 0)], 8),
        # r2 = r10; r2 += -40; r3 = r2; *(u8 *)(r3 - 2) = r1
        ([(0xBF, 0xA2, 0, 0), (0x07, 0x02, 0, -40), (0xBF, 0x23, 0, 0), (0x73, 0x13, -2, 0)], 42),
        # r2 = r10; r2 = 0; r2 += -80; r1 += -90
        ([(0xBF, 0xA2, 0, 0), (0xB7, 0x02, 0, 0), (0x07, 0x02, 0, -80), (0x07, 1, 0, -90)], 0),
    ],
    ids=["nothing", "by the frame", "another base", "a copy", "no longer a copy"],
)
def test_the_stack_that_byte_code_takes(code: list[tuple[int, ...]], taken: int) -> None:
    assert stack_bytes(np.array(code, INSTRUCTION).tobytes()) == taken
