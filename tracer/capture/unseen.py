"""Processes whose program nobody could look at: they ended, or their file was written, before.

Another process may run the same file later. Then it is known what the earlier ones were, too.
"""

from __future__ import annotations

from collections import defaultdict

from tracer.capture.images import Image
from tracer.capture.layouts import ExecImage, FileIdentity
from tracer.trace.unknown import Missing, counted

__all__ = ["Unseen"]


class Unseen:
    """Holds them by their file; those that were seen later do not count."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: defaultdict[FileIdentity, list[tuple[Image, ExecImage]]] = defaultdict(list)

    @property
    def missing(self) -> list[Missing]:
        """How many there are, or were."""
        why = "they ended, or their file was written, before they were looked at"
        return counted(self._count, "the runtime of {} processes", why)

    def add(self, image: Image, told: ExecImage) -> None:
        """A process was this program."""
        self._count += 1
        self._waiting[told.binary].append((image, told))

    def add_nameless(self) -> None:
        """A process of which not even the file is known."""
        self._count += 1

    def take(self, binary: FileIdentity) -> list[tuple[Image, ExecImage]]:
        """Those that were this file, which is known by now."""
        found = self._waiting.pop(binary, [])
        self._count -= len(found)
        return found

    def forget(self, image: Image) -> None:
        """Nobody asks any more what this one was; it counts as before."""
        for binary, waiting in list(self._waiting.items()):
            left = [own for own in waiting if own[0] is not image]
            if left:
                self._waiting[binary] = left
            else:
                del self._waiting[binary]
