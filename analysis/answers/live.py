"""What ``pretake live`` counts, by call site, with a bounded number of names.

Counts are arrays of any shape whose numbers never go down. :class:`tracer.capture.live.Live`
defines what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.names import syscall_names
from tracer.trace.schema import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOTHING", "OTHER", "Call", "CallSites", "TopCalls", "by_syscall"]

OTHER = "other"
"""The call site of all that have no name of their own. No function of Go's is called so: a
package stands in front."""


NOTHING = np.zeros((2, 1), np.int64)
"""Counts of a call that has none, as :class:`TopCalls` takes them."""


class Call(NamedTuple):
    """A system call and its call site; ``site`` is None if there is no stack."""

    syscall: str
    site: str | None


Counts = Mapping[Call, np.ndarray]


class CallSites:
    """Learns which call site a stack has, and sums counts by it.

    Args:
        machine: the architecture whose numbers of system calls are counted
            (:func:`analysis.names.syscall_names`).
    """

    def __init__(self, machine: str | None = None) -> None:
        self._machine = machine
        self._sites: dict[int, str | None] = {UNKNOWN: None}
        self._lines: dict[str, tuple[str, int]] = {}

    def learn(self, places: pd.DataFrame) -> None:
        """Take more stacks (:data:`analysis.answers.places.PLACES`); one is named once."""
        wanted = places[["stack_id", "site", "file", "line"]].astype(object)
        for stack_id, site, file, line in wanted.where(wanted.notna(), None).to_numpy().tolist():
            self._sites[stack_id] = site
            if site is not None and file is not None and line is not None:
                self._lines.setdefault(site, (file, line))

    def line_of(self, site: str | None) -> tuple[str | None, int | None]:
        """File and line of a call site's call, of the first of its stacks that was seen."""
        return self._lines.get(site or "", (None, None))

    def sum(self, counts: Mapping[tuple[int, int], np.ndarray]) -> dict[Call, np.ndarray]:
        """Counts by call.

        Args:
            counts: by number of the system call and stack_id; one that nobody named is
                :data:`OTHER`.
        """
        found: dict[Call, np.ndarray] = {}
        for (number, stack_id), own in counts.items():
            (name,) = syscall_names([number], self._machine)
            call = Call(str(name), self._sites.get(stack_id, OTHER))
            found[call] = found[call] + own if call in found else own
        return found


def by_syscall(counts: Counts) -> dict[Call, np.ndarray]:
    """The same with all call sites of a system call together."""
    found: dict[Call, np.ndarray] = {}
    for (syscall, _), own in counts.items():
        call = Call(syscall, None)
        found[call] = found[call] + own if call in found else own
    return found


class TopCalls:
    """Names only the calls with the most counts; the others of each system call are added up.

    A count that was told once never goes down, because Prometheus relies on that. So a call that
    gets a name starts with what was counted since the last look, and what it had before stays
    with the others. When a call loses its name, its counts do not move to the others.

    Args:
        most: how many calls have a name at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._before: dict[Call, np.ndarray] = {}
        # Of each call that has a name: what the others had told for it.
        self._base: dict[Call, np.ndarray] = {}
        # By system call: what calls told that have lost their names.
        self._told: dict[str, np.ndarray] = {}

    def look(self, counts: Counts) -> dict[Call, np.ndarray]:
        """The counts to show; :data:`OTHER` is there only if it has counted something."""
        ranked = sorted(
            (call for call in counts if call.site != OTHER),
            # Of two alike the one that has a name keeps it.
            key=lambda call: (-int(counts[call][0].sum()), call not in self._base),
        )[: self._most]
        for call in self._base.keys() - set(ranked):
            told = self._before[call] - self._base.pop(call)
            self._told[call.syscall] = self._told.get(call.syscall, 0) + told
        for call in ranked:
            nothing = np.zeros_like(counts[call])
            self._base.setdefault(call, self._before.get(call, nothing))
        named = {call: counts[call] - self._base[call] for call in ranked}
        for (syscall, _), own in by_syscall(counts).items():
            rest = own - self._told.get(syscall, 0)
            rest = rest - sum(own for call, own in named.items() if call.syscall == syscall)
            if rest.any():
                named[Call(syscall, OTHER)] = rest
        self._before = dict(counts)
        return named
