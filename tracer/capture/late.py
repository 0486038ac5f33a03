"""Runtimes in a library that a process loads while it runs.

Examples are a plugin, a Go library that a C program opens, and the reference runtime in a Python
process. The kernel has no event for a file that is mapped. But a runtime makes threads at once, so
a process is looked at again when it makes a thread. Every process is also looked at now and then,
which finds plugins. A look reads /proc/PID/maps, which takes some 50 us, and there are at most
:data:`LOOKS` looks in a step of the drain.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tracer.capture.images import Image, Images
from tracer.capture.mappings import Mapping, may_have_runtime
from tracer.capture.runtimes import Runtimes
from tracer.capture.target_files import TargetFiles
from tracer.targets.reference import LIBRARY
from tracer.trace.schema import TABLES

__all__ = ["LATE_WAIT_S", "LateRuntimes"]

LOOKS: Final = 4
"""Processes that are looked at in one step."""

_FORK: Final = TABLES["task"].column("kind").code("fork")
_FIRST_WAIT_S: Final = 0.01
LATE_WAIT_S: Final = 0.5
"""How long it waits at most between two looks at a process, where nobody says."""


@dataclass
class _Watched:
    """When a process is to be looked at, and what was seen in it."""

    image: Image
    due_s: float
    wait_s: float = _FIRST_WAIT_S
    seen: set[tuple[int, int, str]] = field(default_factory=set)


class LateRuntimes:
    """Looks again at processes that live.

    Args:
        runtimes: looks at what is found.
        images: the processes.
        files: opens theirs.
        longest_wait_s: how long it waits at most between two looks at a process. One that makes
            a thread is looked at soon in any case.
    """

    def __init__(
        self,
        runtimes: Runtimes,
        images: Images,
        files: TargetFiles,
        longest_wait_s: float = LATE_WAIT_S,
    ) -> None:
        self._runtimes = runtimes
        self._images = images
        self._files = files
        self._longest_wait_s = longest_wait_s
        self._watched: dict[int, _Watched] = {}
        self._found: deque[tuple[Image, Mapping]] = deque()

    def on_tasks(self, records: np.ndarray) -> None:
        """A process that made a thread is looked at soon, as told by records of table task."""
        made = records[(records["kind"] == _FORK) & (records["tid"] != records["pid"])]
        now_s = time.monotonic()
        for pid in set(made["pid"].tolist()):
            image = self._images.current(pid)
            if image is None:
                continue
            watched = self._watched.get(pid)
            if watched is None or watched.image is not image:
                self._watched[pid] = _Watched(image, now_s)
            else:
                watched.due_s = min(watched.due_s, now_s + _FIRST_WAIT_S)

    def step(self) -> bool:
        """Look at what is due; whether there is more to be done at once."""
        now_s = time.monotonic()
        due = sorted(
            (watched for watched in self._watched.values() if watched.due_s <= now_s),
            key=lambda watched: watched.due_s,
        )
        for watched in due[:LOOKS]:
            self._look(watched, now_s)
        if self._found:
            image, mapping = self._found.popleft()
            with contextlib.suppress(OSError):
                fd = self._files.open(image.pid, mapping.name)
                self._runtimes.found_in(image, mapping, fd)
        return bool(self._found)

    def finish(self) -> None:
        """Look once more, for the symbols of what was loaded last."""
        for watched in list(self._watched.values()):
            self._look(watched, time.monotonic())
        while self.step():
            pass

    def _look(self, watched: _Watched, now_s: float) -> None:
        image = watched.image
        if self._images.current(image.pid) is not image:
            self._watched.pop(image.pid, None)
            return
        watched.wait_s = min(2 * watched.wait_s, self._longest_wait_s)
        watched.due_s = now_s + watched.wait_s
        try:
            maps = self._files.maps_of(image.pid)
        except OSError:
            self._watched.pop(image.pid, None)
            return
        for mapping in maps:
            file = mapping.device, mapping.inode, mapping.path
            if not mapping.executable or file in watched.seen:
                continue
            watched.seen.add(file)
            if any(part.begin <= mapping.begin < part.end for part in image.parts):
                continue
            if LIBRARY in mapping.path:
                # A Python maps dozens before it, and may end while they are looked at.
                self._found.appendleft((image, mapping))
            elif may_have_runtime(mapping, image.path):
                self._found.append((image, mapping))
