"""How far a replay can be trusted: an error for each column, and which are not told.

The second half of a run is replayed under the policy that was really used, and each column of the
replay is held against what the capture says of that half. Example: calls/s is 112 % too high
there. Then no prediction of calls/s is told, under whichever policy: the model lacks something
that calls/s needs. The latency of the same replay may be 5 % off, and is told.

A column is withheld (null, with the reason beside it) where its error is above
:data:`LIMIT_PERCENT` or not known. It is not known where the policy is not, where the capture
does not tell the column, or where it has none of it: 0 is no measure for a replay, unless that
has 0 too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.schema import Field
from analysis.units import UNKNOWN_TEXT, percent_text

__all__ = [
    "COLUMNS",
    "LIMIT_PERCENT",
    "Error",
    "Figures",
    "error_fields",
    "error_name",
    "errors_of",
    "percent_apart",
    "signed_text",
    "why_name",
    "withheld",
]

LIMIT_PERCENT = 25.0
"""A column whose own replay is further off than this is not told."""

COLUMNS = {
    "retake_p50_ns": "median P-retake latency",
    "retake_p90_ns": "its 90th percentile",
    "retake_p99_ns": "its 99th percentile",
    "without_p50_ns": "median time for which a P that its goroutine left in a call ran none: from "
    "the block, or the handoff before it, until one ran",
    "harm_ns": "lost P time: in which goroutines waited for Ps that blocked threads held",
    "calls_per_s": "calls per second of wall (or virtual) time",
    "handoffs": "Ps given away before a call",
}
"""What a replay predicts, with its meaning."""

Figures = Mapping[str, float | None]
"""A value for each of :data:`COLUMNS`; None where there is none."""


@dataclass(frozen=True)
class Error:
    """The error of one column.

    Args:
        percent: by how much the replay of the used policy is above what was measured; None where
            that is not known.
        why: why the column is withheld; None where it is told.
    """

    percent: float | None
    why: str | None


def error_name(column: str) -> str:
    """The column that has the error of ``column``: ``retake_p50_error_percent``."""
    return f"{column.removesuffix('_ns')}_error_percent"


def why_name(column: str) -> str:
    """The column that says why ``column`` is null: ``retake_p50_why``."""
    return f"{column.removesuffix('_ns')}_why"


def error_fields() -> tuple[Field, ...]:
    """Both of each column, for a :class:`analysis.schema.Frame`."""
    made = []
    for column in COLUMNS:
        about = (
            f"by how much {column} of the used policy's replay is above the capture, in the part "
            "without throttling; the same for all replays. Null where it is not known"
        )
        why = f"why {column} is not told, where its error is above {LIMIT_PERCENT:g} % or unknown"
        made += [Field(error_name(column), about, "float"), Field(why_name(column), why, "str")]
    return tuple(made)


def errors_of(
    told: Figures | None, measured: Figures | None, policy: str | None, unknown: str = ""
) -> dict[str, Error]:
    """The error of each column.

    Args:
        told: the replay of the used policy; None where it has no end.
        measured: the capture of the same time; None where too little of it can be compared.
        policy: which policy was used; None where that is not known.
        unknown: why ``measured`` is None.
    """
    if policy is None:
        return _all("the policy that was used is not known, so no replay can be compared")
    if measured is None:
        return _all(unknown)
    if told is None:
        return _all(f"the replay of {policy}, which was used, has no end")
    return {column: _error(told.get(column), measured.get(column), policy) for column in COLUMNS}


def _all(why: str) -> dict[str, Error]:
    return dict.fromkeys(COLUMNS, Error(None, why))


def _error(told: float | None, measured: float | None, policy: str) -> Error:
    percent = percent_apart(told, measured)
    if percent is not None:
        over = abs(percent) > LIMIT_PERCENT
        off = f"the replay of {policy}, which was used, is {signed_text(percent)} off"
        return Error(percent, off if over else None)
    if measured is None:
        return Error(None, "the capture does not tell it, so no replay can be compared")
    if told is None:
        return Error(None, f"the replay of {policy}, which was used, has none")
    return Error(None, f"the capture has none of it, and the replay of {policy} does")


def signed_text(percent: float | None) -> str:
    """An error in words: ``+112 %``; a dash where it is not known."""
    if percent is None:
        return UNKNOWN_TEXT
    sign = "+" if percent > 0 else "−" if percent < 0 else ""
    return f"{sign}{percent_text(abs(percent))}"


def withheld(rows: Sequence[Mapping[Any, Any]], names: Mapping[str, str]) -> list[str]:
    """Why columns are not told, a line for each reason, for whoever reads the table.

    Args:
        rows: of a what-if table, with None for null.
        names: what the table calls each of :data:`COLUMNS` that it has.

    Returns:
        For example ``calls/s is not told: the replay of sysmon, which was used, is +112 % off``.
    """
    said: dict[str, list[str]] = {}
    for row in rows:
        for column, name in names.items():
            why = row[why_name(column)]
            if why is not None and name not in said.setdefault(why, []):
                said[why].append(name)
    return [
        f"{', '.join(columns)} {'is' if len(columns) == 1 else 'are'} not told: {why}"
        for why, columns in said.items()
    ]


def percent_apart(predicted: float | None, measured: float | None) -> float | None:
    """Difference in percent of what was measured; None where that has no meaning."""
    if predicted is None or measured is None:
        return None
    if measured == 0:
        return 0.0 if predicted == 0 else None
    return 100 * (predicted - measured) / measured
