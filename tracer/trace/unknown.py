"""What is not known: the number that stands for it, and the line that says why it is not known.

This file imports nothing heavy, so that the parser of strangers' files starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNKNOWN", "UNKNOWN_RESULT", "Missing", "counted"]

UNKNOWN = -1
"""The value that stands for "not known" in a fixed-size record."""

UNKNOWN_RESULT = -(1 << 63)
"""The same for what a system call returned: one that fails with EPERM returns -1."""


@dataclass
class Missing:
    """One thing that was asked for and could not be had.

    Args:
        what: the thing.
        why: it could not be had.
        mend: what helps, one line; empty where nothing does.
    """

    what: str
    why: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" + (f" ({self.mend})" if self.mend else "")


def counted(count: int, what: str, why: str) -> list[Missing]:
    """So many of a kind, in a line with the number in the place of ``{}``; no line of none."""
    return [Missing(what.format(count), why)] if count else []
