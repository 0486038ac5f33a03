"""Call sites and functions by number, without pandas, for the names in a budget.

The rule for a call site is that of :mod:`analysis.answers.places`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from analysis.windowed.columns import read
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = [
    "NOWHERE",
    "PLUMBING",
    "RUNTIME_WAITS",
    "Address",
    "Placed",
    "Site",
    "frames_of",
    "functions_of",
    "sites_of",
]

PLUMBING = (
    r"^(?:_|runtime|syscall|os|internal/[^.]*|runtime/internal/[^.]*|golang\.org/x/sys/unix)\."
)
"""Functions that are on the way to every system call."""

RUNTIME_WAITS = (
    *("runtime.futex", "runtime.usleep", "runtime.notesleep", "runtime.notetsleep"),
    "PyThread_acquire_lock",
)
"""How functions begin in which a runtime itself sleeps. A call is such a wait if the innermost
function that has a name is one of them, or the call site is."""

_PLUMBING = re.compile(PLUMBING)


@dataclass(frozen=True)
class Site:
    """A function, and where in its source; None where the program's tables do not tell.

    ``runtime_wait`` is whether the call is the runtime's own way to sleep (Go's futex, or
    CPython's lock, the GIL), whichever function of the program is below it: nobody can make it
    another way.
    """

    function: str | None
    file: str | None
    line: int | None
    runtime_wait: bool = False


NOWHERE: Final = Site(None, None, None)
"""The site of an address that the trace does not name."""


class Address(NamedTuple):
    """A code address. After an exec a process is another program, and it another place."""

    pid: int
    generation: int
    pc: int


class Placed(NamedTuple):
    """A frame of a stack: its address, and what is known of that."""

    address: Address
    site: Site


def sites_of(trace: Trace, stack_ids: Collection[int]) -> dict[int, Site]:
    """The call site of each stack: the innermost function that is no plumbing, else that is named.

    Raises:
        PretakeError: the trace cannot be read.
    """
    if not stack_ids:
        return {}
    found = {}
    for stack_id, frames in frames_of(trace, stack_ids).items():
        named = [frame.site for frame in frames if frame.site.function]
        own = [s for s in named if s.function and not _PLUMBING.match(s.function)]
        site = (own or named or [NOWHERE])[0]
        # A stack from C begins in the C library, which has no name for its waits.
        waits = any(
            s.function and s.function.startswith(RUNTIME_WAITS) for s in (*named[:1], site)
        )
        found[stack_id] = replace(site, runtime_wait=waits)
    return found


def frames_of(trace: Trace, stack_ids: Collection[int]) -> dict[int, list[Placed]]:
    """The frames of each stack, innermost first.

    Raises:
        PretakeError: the trace cannot be read.
    """
    names = ("stack_id", "depth", "pid", "generation", "pc")
    stacks = read(trace, "stack", names)
    addresses = _addresses(trace)
    found: defaultdict[int, list[tuple[int, Placed]]] = defaultdict(list)
    wanted = set(stack_ids)
    for stack_id, depth, *place in zip(*(stacks[name].tolist() for name in names), strict=True):
        if stack_id in wanted:
            address = Address(*place)
            found[stack_id].append((depth, Placed(address, addresses.get(address, NOWHERE))))
    return {
        stack_id: [placed for _, placed in sorted(frames, key=lambda frame: frame[0])]
        for stack_id, frames in found.items()
    }


def functions_of(
    trace: Trace, places: Collection[tuple[int, int, int]]
) -> dict[tuple[int, int, int], str]:
    """The function that a process was in: of each (pid, time in ns, address), where it is known.

    Raises:
        PretakeError: the trace cannot be read.
    """
    if not places:
        return {}
    addresses = _addresses(trace)
    execs = _execs(trace)
    found = {}
    for pid, ns, pc in places:
        times, generations = execs.get(pid, ([], [UNKNOWN]))
        # A row of the process' threads tells the program from its time on.
        at = max(bisect_right(times, ns) - 1, 0)
        site = addresses.get(Address(pid, generations[at], pc))
        if site is not None and site.function:
            found[pid, ns, pc] = site.function
    return found


def _execs(trace: Trace) -> dict[int, tuple[list[int], list[int]]]:
    """When each process became which of its programs: times, and generations from each on."""
    names = ("pid", "ts_ns", "generation")
    task = read(trace, "task", names)
    rows = sorted(zip(*(task[name].tolist() for name in names), strict=True))
    found: dict[int, tuple[list[int], list[int]]] = {}
    for pid, ns, generation in rows:
        times, generations = found.setdefault(pid, ([], []))
        if not generations or generations[-1] != generation:
            times.append(ns)
            generations.append(generation)
    return found


def _addresses(trace: Trace) -> dict[Address, Site]:
    names = ("pid", "generation", "pc", "function", "file", "line")
    rows = read(trace, "address", names)
    return {
        Address(pid, generation, pc): Site(function, file, None if line == UNKNOWN else line)
        for pid, generation, pc, function, file, line in zip(
            *(rows[name].tolist() for name in names), strict=True
        )
    }
