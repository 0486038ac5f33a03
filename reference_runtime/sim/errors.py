"""The errors that end a simulated run. Not compiled: mypyc cannot make exception classes."""

from __future__ import annotations

__all__ = ["DeadlockError", "LivelockError"]


class DeadlockError(RuntimeError):
    """Every thread of the machine waits for another, and no timer is set."""


class LivelockError(RuntimeError):
    """The machine did more than the events it was allowed."""
