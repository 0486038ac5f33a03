"""How many instructions the kernel's verifier goes through for each program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracer.capture.programs import Programs

__all__ = ["MOST_INSTRUCTIONS", "gone_through"]

MOST_INSTRUCTIONS: Final = 100_000
"""An older verifier goes through more: to 6.1 some programs took ten times as much as on 6.18."""


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
