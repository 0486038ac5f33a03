"""The compiled reference runtime, as a tracer's probe finds it."""

from __future__ import annotations

import pytest

from tracer.targets import reference
from tracer.targets.elf import Elf

NOP = 0x90


@pytest.mark.parametrize("function", ["transition", "mstart"])
def test_a_probe_need_not_be_single_stepped(function: str) -> None:
    """Linux emulates a nop, which costs a fifth of a step through any other instruction."""
    path = reference.find()
    if path is None:
        pytest.skip("the reference runtime is not compiled")
    with Elf(path) as elf:
        address = elf.symbol(f"CPyDef_transitions___{function}")
        assert address is not None
        assert elf.read(address, 1)[0] == NOP
