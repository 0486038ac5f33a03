"""The switch itself: the one place where a goroutine leaves its M."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final


class Switch:
    """Await it to go back to the M's loop, which looks at ``m.wants``."""

    def __await__(self) -> Generator[None, None, None]:
        yield


SWITCH: Final = Switch()
"""There is nothing in a switch to be different, so one object serves all."""
