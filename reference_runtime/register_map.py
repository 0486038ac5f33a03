"""Why −2 stands in Go's register map: what a collector loses without it, on a toy heap.

    python -m reference_runtime.register_map

A collector that stops a goroutine finds its pointers in the maps that the compiler made: for each
instruction, which variables hold one. Between ``u := uintptr(p)`` and ``p = unsafe.Pointer(u)``
the only way to the object is a number, which no map names. There the compiler writes −2, and Go
(1.14, runtime.isAsyncSafePoint) leaves a goroutine running that a signal meets there.

This program stops a goroutine in front of each of its instructions in turn, once with that check
and once without, has the collector free what it does not find, and lets another goroutine have the
memory. Then the goroutine goes on, and reads. It does not run on the scheduler, and no chance and
no clock is in it. In this runtime the sections of ``_native.c`` stand for the maps: what is in
none of them is as an instruction with −2, and the signal is refused (``unsafe_point``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["PROGRAM", "UNSAFE", "Heap", "Stop", "stop_before"]

UNSAFE: Final = -2
"""In place of a map: at this instruction nobody knows where the pointers are."""
OURS: Final = 42
"""What the goroutine keeps in its object."""
THEIRS: Final = 13
"""What another goroutine writes into the next object that it gets."""


@dataclass
class Heap:
    """Cells of one number each. A freed cell is the next that is given out."""

    cells: dict[int, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    next_address: int = 0x1000

    def new(self, value: int) -> int:
        """The address of a new object."""
        if self.free:
            address = self.free.pop()
        else:
            address = self.next_address
            self.next_address += 0x10
        self.cells[address] = value
        return address

    def collect(self, roots: set[int]) -> list[int]:
        """Free every object that no root points to; returns their addresses."""
        lost = sorted(set(self.cells) - roots)
        for address in lost:
            del self.cells[address]
        self.free += lost
        return lost


Frame = dict[str, int]
"""The goroutine's variables: names as the source has them, whatever register holds each."""


@dataclass(frozen=True)
class Instruction:
    """A line of the goroutine.

    Args:
        text: as in Go.
        does: to the variables.
        pointers: in front of this line, the variables that hold pointers and are used later; or
            ``UNSAFE``.
    """

    text: str
    does: Callable[[Heap, Frame], None]
    pointers: frozenset[str] | int


def _new(heap: Heap, frame: Frame) -> None:
    frame["j"] = heap.new(OURS)


def _move(target: str, source: str) -> Callable[[Heap, Frame], None]:
    def move(_: Heap, frame: Frame) -> None:
        frame[target] = frame.pop(source)

    return move


def _count(_: Heap, frame: Frame) -> None:
    frame["n"] = frame.get("n", 0) + 1


def _read(heap: Heap, frame: Frame) -> None:
    frame["read"] = heap.cells[frame["p"]]


def _at(*names: str) -> frozenset[str]:
    return frozenset(names)


PROGRAM: Final = (
    Instruction("j := &someStruct{42}", _new, _at()),
    Instruction("p := unsafe.Pointer(j)", _move("p", "j"), _at("j")),
    Instruction("u := uintptr(p)", _move("u", "p"), _at("p")),
    Instruction("n++", _count, UNSAFE),
    Instruction("p = unsafe.Pointer(u)", _move("p", "u"), UNSAFE),
    Instruction("return *p", _read, _at("p")),
)
"""The article's unsafe point: lines 4 and 5."""


@dataclass(frozen=True)
class Stop:
    """One run in which a signal came."""

    asked: int
    """In front of which line the signal came, from 0."""
    stopped: int
    """In front of which line the goroutine stopped: with the check, the next that has a map."""
    freed: int
    """Objects that the collector freed."""
    read: int
    """What the goroutine read in the end: its own value, or another's."""

    @property
    def lost(self) -> bool:
        """Whether its object was gone."""
        return self.read != OURS


def stop_before(line: int, check: bool) -> Stop:
    """Run the goroutine; a signal comes in front of a line, the collector works at the stop.

    Args:
        line: of :data:`PROGRAM`, from 0.
        check: whether −2 keeps the goroutine running up to the next line with a map.
    """
    heap, frame = Heap(), Frame()
    stopped = freed = -1
    for number, instruction in enumerate(PROGRAM):
        unsafe = instruction.pointers == UNSAFE
        if number >= line and stopped < 0 and not (unsafe and check):
            stopped = number
            # Without the check the collector takes -2 for a map that names no pointer.
            names = instruction.pointers
            roots = set() if isinstance(names, int) else {frame[name] for name in names}
            freed = len(heap.collect(roots))
            heap.new(THEIRS)
        instruction.does(heap, frame)
    return Stop(line, stopped, freed, frame["read"])


def main() -> int:
    """Print what each stop does; the exit status is 1 if the check did not help."""
    bad = False
    for check in (True, False):
        print("with the check" if check else "\nthe check taken out")
        for line, instruction in enumerate(PROGRAM):
            stop = stop_before(line, check)
            bad |= check and stop.lost
            found = "−2" if instruction.pointers == UNSAFE else "  "
            end = f"read {stop.read}" + (": another goroutine's" if stop.lost else "")
            where = "there" if stop.stopped == line else f"before line {stop.stopped + 1}"
            print(
                f"  {line + 1}  {found}  {instruction.text:24}  stopped {where:14}"
                f"  freed {stop.freed}  {end}"
            )
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
