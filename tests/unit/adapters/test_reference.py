"""The compiled reference runtime, as a tracer's probe finds it."""

from __future__ import annotations

import pytest

from tracer.adapters import reference
from tracer.adapters.elf import Elf


def test_a_probe_on_a_transition_need_not_be_single_stepped() -> None:
    """Linux carries out a push by itself, which costs a fifth of a step through user memory.

    uprobes on x86 emulate ``push`` (0x50 to 0x57, and 0x41 before it for r8 to r15), so that is
    what the function is to begin with.
    """
    path = reference.find()
    if path is None:
        pytest.skip("the reference runtime is not compiled")
    with Elf(path) as elf:
        address = elf.symbol("CPyDef_transitions___transition")
        assert address is not None
        code = elf.read(address, 2)
    push = code[1] if code[0] == 0x41 else code[0]
    assert 0x50 <= push <= 0x57
