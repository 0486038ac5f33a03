"""Rules that a watch asks of what the pass settles, such as ``hold_ns > 50 ms``.

Examples:
    >>> parse_rule("lost_p > 20 % for 3 s")
    Rule(text='lost_p > 20 % for 3 s', metric='lost_p', limit=0.2, seconds=3)

``lost_p``: the share of a process's P time that was lost, at least, in each of so many whole
seconds in a row (1 if none are named). It fires once, and again only after a second in which it
did not hold. ``hold_ns``: how long a thread that was blocked in a call or a page fault kept its
P; each such hold fires. ``stw_ns``: how long a stop-the-world took, from the request until
goroutines ran again; each fires.

All three are known when they are over, and up to two seconds late: the pass looks a second ahead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from analysis.ptime.engine.state import STATES
from analysis.units import duration_text, percent_text
from tracer.errors import PretakeError

__all__ = ["METRICS", "Alarms", "Fired", "Rule", "parse_rule"]

METRICS: Final = {
    "lost_p": "share of P time that was lost, in each second",
    "hold_ns": "how long a blocked thread kept its P",
    "stw_ns": "how long a stop-the-world took",
}
_UNIT_NS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9}
_RULE: Final = re.compile(
    r"\s*(?P<metric>\w+)\s*>\s*(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>%|[a-zµμ]+)"
    r"(?:\s+for\s+(?P<seconds>\d+)\s*s)?\s*"
)
_MEND: Final = "say for example 'lost_p > 20 % for 1 s', 'hold_ns > 50 ms' or 'stw_ns > 10 ms'"
_LOST: Final = tuple(f"least_{state}_ns" for state in STATES[1:7])

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """What is asked.

    Args:
        text: as it was given.
        metric: one of :data:`METRICS`.
        limit: it holds above: a share (0.2 is 20 %) of ``lost_p``, else ns.
        seconds: of ``lost_p``: in how many seconds in a row.
    """

    text: str
    metric: str
    limit: float
    seconds: int = 1


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


def parse_rule(text: str) -> Rule:
    """Read a rule.

    Raises:
        PretakeError: it is none; the message is one line.
    """
    shown = "".join(c if c.isprintable() else "?" for c in text)
    match = _RULE.fullmatch(text)
    if match is None:
        raise PretakeError(f"'{shown}' is no rule", _MEND)
    metric, number, unit = match["metric"], float(match["number"]), match["unit"]
    if metric not in METRICS:
        raise PretakeError(
            f"'{shown}': there is no metric {metric}", f"one of {', '.join(METRICS)}"
        )
    if metric == "lost_p":
        if unit != "%":
            raise PretakeError(f"'{shown}': lost_p is a share of P time in %", _MEND)
        if number >= 100:
            raise PretakeError(f"'{shown}': no more than 100 % can be lost", _MEND)
        seconds = int(match["seconds"] or 1)
        if not 1 <= seconds <= 3600:
            raise PretakeError(f"'{shown}': for takes 1 to 3600 whole seconds", _MEND)
        return Rule(text.strip(), metric, number / 100, seconds)
    if unit not in _UNIT_NS:
        raise PretakeError(f"'{shown}': {metric} is a time in ns, us, ms or s", _MEND)
    if match["seconds"] is not None:
        raise PretakeError(f"'{shown}': only lost_p is asked 'for' some seconds", _MEND)
    limit = number * _UNIT_NS[unit]
    if not math.isfinite(limit) or limit >= 1 << 62:
        raise PretakeError(f"'{shown}': no time is that long", _MEND)
    return Rule(text.strip(), metric, limit)


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

    def forget(self, pid: int) -> None:
        """A process is no more."""
        self._sums.pop(pid, None)
        self._lasted = {key: n for key, n in self._lasted.items() if key[1] != pid}

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
