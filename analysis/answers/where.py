"""Call sites and functions by number, without pandas: what a budget names things by.

The rule for a call site is :mod:`analysis.answers.places`'.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from analysis.windowed.columns import read
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["PLUMBING", "Site", "functions_of", "sites_of"]

PLUMBING = (
    r"^(?:_|runtime|syscall|os|internal/[^.]*|runtime/internal/[^.]*|golang\.org/x/sys/unix)\."
)
"""Functions that are on the way to every system call."""

_PLUMBING = re.compile(PLUMBING)


@dataclass(frozen=True)
class Site:
    """A function, and where in its source; None where the program's tables do not tell."""

    function: str | None
    file: str | None
    line: int | None


def sites_of(trace: Trace, stack_ids: Collection[int]) -> dict[int, Site]:
    """The call site of each stack: the innermost function that is no plumbing, else that is named.

    Raises:
        PretakeError: the trace cannot be read.
    """
    if not stack_ids:
        return {}
    stacks = read(trace, "stack", ["stack_id", "depth", "pid", "pc"])
    addresses = _addresses(trace)
    frames: defaultdict[int, list[tuple[int, Site]]] = defaultdict(list)
    wanted = set(stack_ids)
    for stack_id, depth, pid, pc in zip(
        *(stacks[name].tolist() for name in ("stack_id", "depth", "pid", "pc")), strict=True
    ):
        if stack_id in wanted:
            frames[stack_id].append((depth, addresses.get((pid, pc), Site(None, None, None))))
    found = {}
    for stack_id, its in frames.items():
        named = [site for _, site in sorted(its, key=lambda f: f[0]) if site.function]
        own = [s for s in named if s.function and not _PLUMBING.match(s.function)]
        found[stack_id] = (own or named or [Site(None, None, None)])[0]
    return found


def functions_of(trace: Trace, pcs: Collection[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """The function at each (pid, address) that the trace names."""
    if not pcs:
        return {}
    addresses = _addresses(trace)
    found = {}
    for key in pcs:
        site = addresses.get(key)
        if site is not None and site.function:
            found[key] = site.function
    return found


def _addresses(trace: Trace) -> dict[tuple[int, int], Site]:
    rows = read(trace, "address", ["pid", "pc", "function", "file", "line"])
    return {
        (pid, pc): Site(function, file, None if line == UNKNOWN else line)
        for pid, pc, function, file, line in zip(
            *(rows[name].tolist() for name in ("pid", "pc", "function", "file", "line")),
            strict=True,
        )
    }
