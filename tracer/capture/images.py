"""Which binaries were mapped where in each target process, from one exec to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tracer.capture.binaries import Known
from tracer.capture.cgroups import place_of
from tracer.capture.launch import comm_of
from tracer.trace.containers import NOWHERE, Container
from tracer.trace.unknown import Missing, counted

__all__ = ["Image", "Images", "Part"]

_MOST: Final = 1 << 17
"""Images that are kept for their symbols; the oldest go first, and are counted."""


@dataclass(frozen=True)
class Part:
    """A binary in a process's memory.

    Args:
        begin: first address of its code.
        end: the address behind its code.
        bias: run-time address minus link-time address.
        known: the binary.
    """

    begin: int
    end: int
    bias: int
    known: Known


@dataclass
class Image:
    """A process that is one program.

    Args:
        pid: the process.
        generation: how many execs of it were seen before, this program's included.
        exec_ns: since when it is this program; None for before the capture.
        comm: name of its first thread.
        reach_ns: since when its runtime is in reach; None for not.
        path: of the program, where that is known.
        parts: the binaries with a runtime, in no order.
        runtime: the part whose runtime is read.
        place: the container and the pod that it was in when it became this program.
    """

    pid: int
    generation: int
    exec_ns: int | None = None
    comm: str | None = None
    reach_ns: int | None = None
    path: str | None = None
    parts: list[Part] = field(default_factory=list)
    runtime: Known | None = None
    place: Container = NOWHERE

    @classmethod
    def of_running(cls, pid: int) -> Image:
        """That of a process which is there already."""
        comm = comm_of(pid, pid)
        name = None if comm is None else comm.decode("utf-8", "replace")
        return cls(pid, 0, comm=name, place=place_of(pid))

    def part_of(self, address: int) -> Part | None:
        """The binary that a code address lies in; None where that is unknown."""
        for part in self.parts:
            if part.begin <= address < part.end:
                return part
        return None


class Images:
    """All images of a capture, by process and generation."""

    def __init__(self) -> None:
        self._gone = 0
        self._images: OrderedDict[tuple[int, int], Image] = OrderedDict()
        self._current: dict[int, Image] = {}

    def __iter__(self) -> Iterator[Image]:
        return iter(self._images.values())

    def add(self, image: Image) -> None:
        """A process became another program, or began."""
        self._images[image.pid, image.generation] = image
        self._current[image.pid] = image
        if len(self._images) > _MOST:
            self._images.popitem(last=False)
            self._gone += 1

    @property
    def missing(self) -> list[Missing]:
        """How many had to go before the end."""
        return counted(self._gone, "symbols of {} programs", "more were run than are kept")

    def ended(self, pid: int) -> None:
        """A process is no more; its symbols may still be asked for."""
        self._current.pop(pid, None)

    def forget(self, image: Image) -> None:
        """Nobody asks for its symbols any more."""
        key = image.pid, image.generation
        if self._images.get(key) is image:
            del self._images[key]

    def of(self, pid: int, generation: int) -> Image | None:
        """One image."""
        return self._images.get((pid, generation))

    def current(self, pid: int) -> Image | None:
        """What a process is, as far as was told."""
        return self._current.get(pid)

    def living(self) -> list[Image]:
        """The images of processes that were not told to have ended."""
        return list(self._current.values())
