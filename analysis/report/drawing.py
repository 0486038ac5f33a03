"""What the pictures of a report have in common: names, colours, patterns and axes.

A picture is a plain dictionary, which is what plotly.js reads. Colours are names of CSS
variables (``var(--s0)``); the page puts the values of the reader's light or dark theme in their
place. Every series differs by dash, marker or pattern as well, so that none needs its colour.
All text of strangers is escaped: plotly.js reads some HTML in it.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.report.material import Material
from analysis.units import duration_text

__all__ = [
    "SERIES",
    "Picture",
    "broken_lines",
    "linear_axis",
    "log_axis",
    "marker",
    "percent_axis",
    "picture",
    "series_colour",
    "series_fill",
    "short_name",
]

Picture = dict[str, Any]

SERIES = 6
"""Colours that there are."""
_PATTERNS = ("", "/", "x", ".", "\\", "+", "-", "|")

_LONGEST = 22
"""Characters of a trace's name in a picture; the tables have all of it."""

_LINE = 34
"""Characters of a line in a legend."""


def short_name(material: Material) -> str:
    """A trace's label, as long as a picture on a phone has room for."""
    label = material.label
    return html.escape(label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…")


def broken_lines(text: str) -> str:
    """A text in a legend, in lines that a phone has room for."""
    return "<br>".join(textwrap.wrap(html.escape(text, quote=False), _LINE))


def series_colour(number: int) -> str:
    """The colour of the trace, or the part, of this number; they come again after some."""
    return f"var(--s{number % SERIES})"


def series_fill(number: int) -> dict[str, Any]:
    """How its bars are filled."""
    return marker(series_colour(number), _PATTERNS[number % len(_PATTERNS)])


def marker(colour: str, pattern: str) -> dict[str, Any]:
    """How bars are filled: a colour, and a pattern over it that prints without colour."""
    return {
        "color": colour,
        "line": {"color": "var(--paper)", "width": 1},
        "pattern": {
            "shape": pattern,
            "fillmode": "overlay",
            "fgcolor": "var(--paper)",
            "fgopacity": 0.45,
            "size": 7,
            "solidity": 0.25,
        },
    }


def log_axis(highest_ns: int) -> dict[str, Any]:
    """A log axis of durations, with ticks that are durations."""
    ticks = [10**power for power in range(2, 13) if 10**power <= highest_ns * 10]
    texts = [duration_text(tick) for tick in ticks]
    texts[0] = f"≤ {texts[0]}"
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": texts,
        "range": [2 - 0.08, float(np.log10(max(highest_ns, 1_000))) + 0.15],
    }


def percent_axis() -> dict[str, Any]:
    """A linear axis from 0 to 100 percent."""
    return {"ticksuffix": " %", "range": [0, 101], "zeroline": False}


def linear_axis(first_ns: float, last_ns: float) -> dict[str, Any]:
    """A linear axis of durations, with about five ticks that are round durations."""
    reach = max(last_ns - first_ns, 1)
    step = 10 ** np.floor(np.log10(reach / 5))
    step *= min((factor for factor in (1, 2, 5, 10) if reach / (step * factor) <= 7), default=10)
    ticks = np.arange(np.ceil(first_ns / step), np.floor(last_ns / step) + 1) * step
    return {
        "tickvals": ticks.tolist(),
        "ticktext": [duration_text(tick) for tick in ticks],
        "range": [first_ns, last_ns + 0.02 * reach],
        "zeroline": False,
    }


def picture(
    data: list[dict[str, Any]], title: str, layout: Mapping[str, Any], height: int = 380
) -> Picture:
    """One picture.

    Args:
        data: the traces, as plotly.js has them.
        title: what is shown.
        layout: its own; the page adds what all pictures have.
        height: in CSS pixels.
    """
    return {"data": data, "layout": {"height": height, **layout}, "title": title}
