"""Constants of the BPF programs: placeholders in instructions, and what takes their place."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tracer.errors import PretakeError
from tracer.kernel.constants import CONSTANTS, constants_header, filled
from tracer.kernel.object import INSTRUCTION

NUMBER = CONSTANTS.index("OFFSET_TASK_TGID")
FIELD, CONSTANT = 0x7D00 + NUMBER, 0x7E570000 + NUMBER


def filled_with(value: int, *instructions: tuple[int, int, int, int]) -> list[tuple[int, ...]]:
    code = np.array(list(instructions), INSTRUCTION)
    return [tuple(map(int, one)) for one in filled(code, {"OFFSET_TASK_TGID": value})]


def test_a_constant_takes_the_place_of_its_placeholder() -> None:
    assert filled_with(
        1234,
        (0x61, 0x21, FIELD, 0),  # r1 = *(u32 *)(r2 + placeholder)
        (0x79, 0x21, FIELD, 0),  # r1 = *(u64 *)(r2 + placeholder)
        (0xB7, 0x01, 0, CONSTANT),  # r1 = placeholder
    ) == [(0x61, 0x21, 1234, 0), (0x79, 0x21, 1234, 0), (0xB7, 0x01, 0, 1234)]


@pytest.mark.parametrize(
    "other",
    [
        (0x61, 0x21, 8, 0),
        (0xB7, 0x01, 0, 8),
        (0xB7, 0x01, 0, FIELD),
        (0x07, 0x01, 0, CONSTANT),
        (0x63, 0x21, FIELD, 0),
        # The second half of a wide instruction.
        (0x00, 0x00, 0, CONSTANT),
        (0xB7, 0x01, 0, 0x7E570000 + len(CONSTANTS)),
        (0x61, 0x21, 0x7D00 + len(CONSTANTS), 0),
    ],
)
def test_no_other_instruction_is_changed(other: tuple[int, int, int, int]) -> None:
    assert filled_with(1234, other) == [other]


def test_what_a_kernel_has_not_is_minus_1_and_what_was_not_asked_for_is_0() -> None:
    assert filled_with(-1, (0xB7, 0x01, 0, CONSTANT)) == [(0xB7, 0x01, 0, -1)]
    host = 0x7E570000 + CONSTANTS.index("HOST")
    assert filled_with(1234, (0xB7, 0x01, 0, host)) == [(0xB7, 0x01, 0, 0)]


def test_a_value_that_does_not_fit_is_refused() -> None:
    assert filled_with(32767, (0x61, 0x21, FIELD, 0)) == [(0x61, 0x21, 32767, 0)]
    with pytest.raises(PretakeError, match="OFFSET_TASK_TGID does not fit"):
        filled_with(32768, (0x61, 0x21, FIELD, 0))


def test_the_header_has_each_name_once_and_its_number() -> None:
    told = re.findall(r"^#define (\w+) (\d+)$", constants_header(), re.MULTILINE)
    assert told == [(name, str(number)) for number, name in enumerate(CONSTANTS)]
    assert "#define FIELD_BASE 0x7d00\n" in constants_header()
    assert "#define CONSTANT_BASE 0x7e570000\n" in constants_header()
