"""The rules that a watch is given, such as ``hold_ns > 50 ms``: how they are read.

Examples:
    >>> parse_rule("lost_p > 20 % for 3 s")
    Rule(text='lost_p > 20 % for 3 s', metric='lost_p', limit=0.2, seconds=3)

:mod:`analysis.answers.alarms` asks them. This file imports no library, so that a mistake is told
at once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from tracer.errors import PretakeError

__all__ = ["METRICS", "Rule", "parse_rule"]

METRICS: Final = {
    "lost_p": "share of P time that was lost, in each second",
    "hold_ns": "how long a blocked thread kept its P",
    "stw_ns": "how long a stop-the-world took",
}
_UNIT_NS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9}
_RULE: Final = re.compile(
    r"\s*(?P<metric>\w+)\s*>\s*(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>%|[a-zµμ]+)"
    r"(?:\s+for\s+(?P<seconds>\d{1,9})\s*s)?\s*"
)
_MEND: Final = "say for example 'lost_p > 20 % for 1 s', 'hold_ns > 50 ms' or 'stw_ns > 10 ms'"


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
