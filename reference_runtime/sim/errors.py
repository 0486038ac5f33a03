"""How a simulated run ends that cannot go on. Not compiled: mypyc makes no exceptions."""

from __future__ import annotations

__all__ = ["DeadlockError", "LivelockError"]


class DeadlockError(RuntimeError):
    """Every thread of the machine waits for another, and no timer is set."""


class LivelockError(RuntimeError):
    """The machine did more than the events it was allowed."""
