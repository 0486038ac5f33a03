"""Which bit is the one that is clear at a write's first block and set at all others."""

from __future__ import annotations

import pytest

from tracer.kernel.return_flag import flag_of


@pytest.mark.parametrize(
    ("writes", "flag"),
    [
        # Bit 2 comes and goes; bit 4 is the one.
        ([[0b00100, 0b10000, 0b10100], [0, 0b10000, 0b10100]], 0b10000),
        # Clear at a block that was not the first.
        ([[0, 0b10000, 0]], None),
        # Set at a first block: the thread was preempted on its way there.
        ([[0, 0b10000, 0b10000], [0b10000, 0b10000, 0b10000]], None),
        # Two bits that do the same.
        ([[0, 0b10001, 0b10001]], None),
        # One that is always set is none.
        ([[1 << 63, 1 << 63, 1 << 63]], None),
        ([[0, 1 << 63, 1 << 63]], 1 << 63),
    ],
)
def test_the_flag_is_the_one_bit_that_fits(writes: list[list[int]], flag: int | None) -> None:
    assert flag_of(writes) == flag
