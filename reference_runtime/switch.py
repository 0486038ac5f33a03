"""The switch itself: the one place where a goroutine leaves its M."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Final


class PythonSwitch:
    """The switch where the C module is not built: a generator for each, and twice the time."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def new_switch() -> Awaitable[None]:
    """The C module's, where it is built."""
    try:
        from reference_runtime import _native
    except ImportError:
        return PythonSwitch()
    return _native.Switch()


SWITCH: Final[Awaitable[None]] = new_switch()
"""Await it to go back to the M's loop, which looks at ``m.wants``. There is nothing in a switch to
be different, so one object serves all."""
