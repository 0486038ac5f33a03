"""Numbers as text, with units."""

from __future__ import annotations

import math

__all__ = [
    "UNKNOWN_TEXT",
    "count_text",
    "duration_text",
    "percent_text",
    "ratio_text",
    "runtime_text",
]

UNKNOWN_TEXT = "–"
_DURATIONS = ((1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s"))


def duration_text(ns: object) -> str:
    """Nanoseconds with three significant figures and a unit; a dash for unknown."""
    value = _number(ns)
    if value is None:
        return UNKNOWN_TEXT
    # Half a digit early, so that 999.6 ns is 1 µs and not 1,000 ns.
    fitting = [step for step in _DURATIONS if abs(value) >= step[0] * 0.9995]
    scale, unit = fitting[-1] if fitting else _DURATIONS[0]
    return f"{_three_figures(value / scale)} {unit}"


def count_text(count: object) -> str:
    """A number of things, thousands set apart; a dash for unknown."""
    value = _number(count)
    return UNKNOWN_TEXT if value is None else f"{round(value):,}"


def percent_text(percent: object) -> str:
    """A percentage; a share too small to be seen is not called 0."""
    value = _number(percent)
    if value is None:
        return UNKNOWN_TEXT
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{_three_figures(value)} %"


def ratio_text(ratio: float) -> str:
    """A factor: ``2.5``, ``380``."""
    return _three_figures(ratio)


def _number(value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except TypeError:
        # pandas' <NA>, which is told here without pandas.
        return None
    return None if math.isnan(number) else number


def _three_figures(value: float) -> str:
    if value == 0:
        return "0"
    for limit, digits in ((9.995, 2), (99.95, 1)):
        if abs(value) < limit:
            text = f"{value:.{digits}f}"
            return text.rstrip("0").rstrip(".")
    return f"{value:,.0f}"


def runtime_text(runtime: str, version: str | None) -> str:
    """What runs a program; Go's version tells Go by itself."""
    if version is None:
        return "no runtime that is known" if runtime == "none" else runtime
    return version if version.startswith(runtime) else f"{runtime} {version}"
