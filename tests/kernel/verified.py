"""What each BPF program takes of what the kernel allows: instructions to verify, and stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tracer.capture.programs import Programs
from tracer.kernel.object import INSTRUCTION

__all__ = ["MOST_INSTRUCTIONS", "MOST_STACK_BYTES", "gone_through", "stack_bytes"]

MOST_INSTRUCTIONS: Final = 100_000
"""An older verifier goes through more: to 6.1 some programs took ten times as much as on 6.18."""

MOST_STACK_BYTES: Final = 400
"""Of 512. For another architecture, or by another LLVM, the same program takes some 10 more."""

# linux/bpf_common.h and linux/bpf.h
_CLASS: Final = 0x07
_LOAD, _STORE, _STORE_REGISTER = 0x01, 0x02, 0x03
_WRITES_ITS_FIRST: Final = (0x00, _LOAD, 0x04, 0x07)
_MOVE_REGISTER, _ADD_IMMEDIATE = 0xBF, 0x07
_FRAME: Final = 10


def stack_bytes(code: bytes) -> int:
    """How far below its frame a program reads, writes or points, in the order of its bytes."""
    lowest = 0
    frame = {_FRAME: 0}  # what each register is above the frame's end
    for op, registers, offset, immediate in np.frombuffer(code, INSTRUCTION).tolist():
        to, of, kind = registers & 15, registers >> 4, op & _CLASS
        based = {_LOAD: of, _STORE: to, _STORE_REGISTER: to}.get(kind)
        if based in frame:
            lowest = min(lowest, frame[based] + offset)
        if op == _ADD_IMMEDIATE and to in frame:
            frame[to] += immediate
            lowest = min(lowest, frame[to])
        elif op == _MOVE_REGISTER and of in frame:
            frame[to] = frame[of]
        elif kind in _WRITES_ITS_FIRST:
            frame.pop(to, None)
    return -lowest


def gone_through(defines: Mapping[str, int]) -> dict[str, int]:
    """Load every program, whether a capture with these defines uses it or not.

    Returns:
        The instructions that were verified, by the program's name; 0 before Linux 5.16, which does
        not tell.

    Raises:
        PretakeError: the kernel refuses one.
    """
    programs = Programs(1 << 20, defines=defines)
    try:
        programs.probes.attach()
        programs.followed.prepare()
        programs.loaded.uprobe_programs()
        told = programs.loaded.run_statistics()
        return {name: told[name]["verified_insns"] for name in programs.loaded.functions}
    finally:
        programs.close()
