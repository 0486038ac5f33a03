"""What a trace cannot tell: the number that stands for it, and the line that says why.

This file imports nothing heavy, so that the parser of strangers' files starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNKNOWN", "Missing"]

UNKNOWN = -1
"""The value that stands for "not known" in a fixed-size record."""


@dataclass
class Missing:
    """One thing that was asked for and could not be had, and why."""

    what: str
    why: str
