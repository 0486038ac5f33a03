"""Asks rules (:mod:`analysis.answers.rules`) of what the pass settles.

``lost_p``: the share of a process's P time that was lost, at least, in each of so many whole
seconds in a row (1 if none are named). It fires once, and again only after a second in which it
did not hold. ``hold_ns``: how long a thread that was blocked in a call or a page fault kept its
P; each such hold fires. ``stw_ns``: how long a stop-the-world took, from the request until
goroutines ran again; each fires.

All three are known when they are over, and up to two seconds late: the pass looks a second ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from analysis.answers.rules import Rule
from analysis.ptime.engine.state import STATES
from analysis.units import duration_text, percent_text

__all__ = ["Alarms", "Fired"]

_LOST: Final = tuple(f"least_{state}_ns" for state in STATES[1:7])

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fired:
    """A rule held.

    Args:
        rule: which one.
        event_ns: when that began which it found, CLOCK_MONOTONIC.
        pid: the process.
        what: the figure that was found, in words.
    """

    rule: Rule
    event_ns: int
    pid: int
    what: str


class Alarms:
    """Asks rules of results of the pass, as they are settled.

    Args:
        rules: what is asked.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._sums: dict[int, tuple[int, int]] = {}
        """Of each process at its last second: P time, and lost P time, in ns."""
        self._lasted: dict[tuple[Rule, int], int] = {}
        """For how many seconds a rule has held of a process; -1 where it has fired since."""

    def ask(self, name: str, rows: Mapping[str, Ints]) -> list[Fired]:
        """Which rules hold of new rows, in the order of time.

        Args:
            name: of a result (:data:`analysis.ptime.engine.account.RESULTS`): ``holds``,
                ``stops`` or ``bins`` (each of one second). Others are not asked of.
            rows: its columns.
        """
        if name == "bins":
            found = list(self._lost(rows))
        elif name in ("holds", "stops"):
            begins, metric = ("block_ns", "hold_ns") if name == "holds" else ("begin_ns", "stw_ns")
            found = list(self._longer(metric, rows, begins))
        else:
            return []
        return sorted(found, key=lambda fired: fired.event_ns)

    def _longer(self, metric: str, rows: Mapping[str, Ints], begins: str) -> Iterator[Fired]:
        took = rows["end_ns"] - rows[begins]
        for rule in self._rules:
            if rule.metric != metric:
                continue
            for at in np.flatnonzero(took > rule.limit).tolist():
                yield Fired(
                    rule, int(rows[begins][at]), int(rows["pid"][at]), duration_text(int(took[at]))
                )

    def _lost(self, rows: Mapping[str, Ints]) -> Iterator[Fired]:
        lost = sum((rows[name] for name in _LOST), np.zeros(len(rows["pid"]), np.int64))
        columns = (rows["pid"], rows["ts_ns"], rows["p_ns"], lost)
        for pid, ts_ns, p_ns, lost_ns in zip(*(c.tolist() for c in columns), strict=True):
            before_p_ns, before_lost_ns = self._sums.get(pid, (0, 0))
            self._sums[pid] = p_ns, lost_ns
            if p_ns <= before_p_ns:
                continue
            share = (lost_ns - before_lost_ns) / (p_ns - before_p_ns)
            for rule in self._rules:
                if rule.metric == "lost_p":
                    yield from self._lasts(rule, pid, ts_ns, share)

    def _lasts(self, rule: Rule, pid: int, ts_ns: int, share: float) -> Iterator[Fired]:
        key = rule, pid
        if share <= rule.limit:
            self._lasted.pop(key, None)
            return
        lasted = self._lasted.get(key, 0)
        if lasted < 0:
            return
        self._lasted[key] = lasted + 1
        if lasted + 1 >= rule.seconds:
            self._lasted[key] = -1
            begin_ns = ts_ns - rule.seconds * 10**9
            yield Fired(rule, begin_ns, pid, percent_text(100 * share))
