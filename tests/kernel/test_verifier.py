"""What the kernel's verifier has to go through for each program: its limit is a million."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.kernel.verified import MOST_INSTRUCTIONS, gone_through
from tracer.capture.doctor import MODES


@pytest.mark.parametrize(
    "defines",
    [*(defines for defines, _ in MODES.values()), {"STORAGE_REFUSES": 1, "INFER": 1}],
    ids=[*MODES, "to Linux 6.1"],
)
def test_no_program_is_near_the_verifier_s_limit(defines: Mapping[str, int]) -> None:
    counts = gone_through(defines)
    for name, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"{count:8} {name}")
    assert len(counts) > 15
    assert all(counts.values())
    assert {n: c for n, c in counts.items() if c > MOST_INSTRUCTIONS} == {}
