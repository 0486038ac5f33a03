"""The pictures of episodes: how long they were, their parts, their classes, and when.

Each is a specification for plotly.js (:mod:`analysis.report.drawing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.report.drawing import (
    SERIES,
    Picture,
    broken_lines,
    linear_axis,
    log_axis,
    marker,
    percent_axis,
    picture,
    series_colour,
    series_fill,
    short_name,
)
from analysis.report.material import Material
from analysis.schema import CLASSES, PARTS
from analysis.stats.quantiles import values_at
from analysis.units import count_text, duration_text, percent_text
from analysis.windowed.columns import capture_span

__all__ = [
    "class_shares",
    "distribution",
    "heat_map",
    "parts",
    "preemption",
]

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_FLOOR_NS = 100
"""Left end of a log axis: what is shorter, and 0, is drawn there."""

_FEW = 3
"""Traces that are drawn finely; of more there is less of each, since every report has to stay
small enough for a mail."""


def _shares(lines: int) -> npt.NDArray[np.float64]:
    """Where a distribution is drawn: every hundredth or fiftieth, and more at the ends."""
    steps, fine = (101, 13) if lines <= _FEW else (51, 7)
    tail = np.logspace(-2, -5, fine)
    return np.unique(np.r_[np.linspace(0, 1, steps), 1 - tail, tail[: fine // 2]])


def distribution(materials: Sequence[Material], column: str, title: str) -> Picture:
    """How many episodes last at most how long: one step line for each trace."""
    lines = []
    styles = _styles(materials)
    shares = _shares(len(materials))
    highest = _FLOOR_NS * 10
    for number, material in enumerate(materials):
        values = material.episodes[column].dropna().to_numpy(np.int64)
        if len(values) == 0:
            continue
        x = values_at(values, shares)
        highest = max(highest, int(x[-1]))
        y = 100 * shares
        name = short_name(material)
        colour, dash = styles[number]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{name} ({count_text(len(values))})",
                "x": np.maximum(x, _FLOOR_NS).tolist(),
                "y": np.round(y, 4).tolist(),
                "text": [duration_text(value) for value in x],
                "hovertemplate": f"{name}: %{{y:.2f}} % within %{{text}}<extra></extra>",
                "line": {
                    "color": series_colour(colour),
                    "dash": _DASHES[dash % SERIES],
                    "width": 2,
                },
                "marker": {
                    "color": series_colour(colour),
                    "symbol": _MARKERS[number % SERIES],
                    "size": 9,
                    # A marker at each tenth tells the lines apart in print.
                    "opacity": [1 if share in _MARKED else 0 for share in np.round(y, 4)],
                },
            }
        )
    return picture(lines, title, {"xaxis": log_axis(highest), "yaxis": percent_axis()})


_MARKED = frozenset(float(share) for share in range(10, 100, 10))


def _styles(materials: Sequence[Material]) -> list[tuple[int, int]]:
    """Of each trace the numbers of its colour and of its dash.

    A policy has one colour in every workload, and a workload one dash under every policy; where
    there is one workload, each policy has a dash of its own too.
    """
    policies = {m.summary["policy"] or m.label: None for m in materials}
    workloads = {m.workload: None for m in materials}
    colours = {policy: number for number, policy in enumerate(policies)}
    dashes = {workload: number for number, workload in enumerate(workloads)}
    found = []
    for material in materials:
        colour = colours[material.summary["policy"] or material.label]
        found.append((colour, colour if len(dashes) == 1 else dashes[material.workload]))
    return found


def parts(materials: Sequence[Material]) -> Picture:
    """Where the latency goes: the mean length of each part, stacked, one bar a trace."""
    rows = [material.episodes for material in materials]
    labels = [short_name(material) for material in materials]
    bars = []
    for number, (_, part, meaning) in enumerate(PARTS):
        means = [_part_mean(episodes, part) for episodes in rows]
        if not any(means):
            continue
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": broken_lines(meaning.removeprefix("until ")),
                "y": labels,
                "x": means,
                "customdata": [duration_text(mean) for mean in means],
                "hovertemplate": f"%{{y}}, {meaning}: %{{customdata}} (mean)<extra></extra>",
                "marker": series_fill(number),
            }
        )
    totals = [float(told["retake_ns"].dropna().astype(float).mean()) for told in rows]
    highest = max((total for total in totals if not np.isnan(total)), default=0)
    layout = {
        "barmode": "stack",
        "xaxis": linear_axis(0, highest),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return picture(bars, "mean P-retake latency, by its parts", layout, 190 + 46 * len(rows))


def _part_mean(episodes: pd.DataFrame, part: str) -> float:
    """Mean over all episodes whose P went on: a part that was not seen took none of the time."""
    told = episodes[episodes["retake_ns"].notna()]
    return float(told[part].fillna(0).mean()) if len(told) else 0.0


def preemption(materials: Sequence[Material]) -> Picture:
    """The way of a request to stop: the mean length of each part, one bar a trace."""
    told = [(short_name(m), m.preemptions) for m in materials]
    stopped = [(label, rows[rows["outcome"].eq("stopped")]) for label, rows in told]
    stopped = [(label, rows) for label, rows in stopped if len(rows)]
    bars = []
    for number, (part, name) in enumerate(_PREEMPTION_PARTS):
        means = [float(rows[part].fillna(0).mean()) for _, rows in stopped]
        if any(means):
            bars.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name,
                    "y": [label for label, _ in stopped],
                    "x": means,
                    "customdata": [duration_text(mean) for mean in means],
                    "hovertemplate": f"%{{y}}, {name}: %{{customdata}} (mean)<extra></extra>",
                    "marker": series_fill(number),
                }
            )
    highest = max(
        (float(rows["latency_ns"].astype(float).mean()) for _, rows in stopped), default=0
    )
    layout = {
        "barmode": "stack",
        "xaxis": linear_axis(0, highest),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return picture(bars, "mean time from asked to stopped", layout, 190 + 46 * len(stopped))


_PREEMPTION_PARTS = (
    ("part_sent_ns", "asked to sent"),
    ("part_delivered_ns", "sent to delivered"),
    ("part_stopped_ns", "delivered to stopped"),
)


def class_shares(materials: Sequence[Material]) -> Picture:
    """What the episodes mean: the share of each class, by count and by time held."""
    rows = []
    for material in materials:
        name = short_name(material)
        classes = material.summary["classes"]
        for what, key in (("calls", "episodes"), ("time held", "hold_ns")):
            numbers = {word: dict(classes[word])[key] for word in CLASSES}
            rows.append((f"{name}<br>{what}", numbers))
    bars = []
    for word in CLASSES:
        totals = [max(sum(_ints(numbers)), 1) for _, numbers in rows]
        shares = [
            100 * int(str(numbers[word] or 0)) / total
            for (_, numbers), total in zip(rows, totals, strict=True)
        ]
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": word,
                "y": [label for label, _ in rows],
                "x": shares,
                "text": [percent_text(share) if share >= 8 else "" for share in shares],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textfont": {"color": "var(--paper)", "size": 13},
                "hovertemplate": f"%{{y}}: {word} %{{x:.2f}} %<extra></extra>",
                "marker": marker(*_CLASS_FILL[word]),
            }
        )
    layout = {
        "barmode": "stack",
        "xaxis": percent_axis(),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return picture(bars, "share of each class", layout, 190 + 34 * len(rows))


_CLASS_FILL = {
    "harmless": ("var(--s2)", ""),
    "deliberate": ("var(--s0)", "."),
    "harmful": ("var(--s1)", "x"),
    "kept": ("var(--s5)", ""),
    "needless": ("var(--s4)", "/"),
    "unknown": ("var(--quiet)", "-"),
}


def _ints(numbers: Mapping[str, object]) -> list[int]:
    return [int(str(number or 0)) for number in numbers.values()]


_TIME_BINS = 90
_BINS_A_DECADE = 5


def heat_map(material: Material, traces: int = 1) -> Picture:
    """When holds happened, and how long they were: episodes by time and length.

    Args:
        material: the trace.
        traces: how many the report is about.
    """
    rows = material.episodes[material.episodes["hold_ns"] > 0]
    if len(rows) == 0:
        return picture([], "holds over time", {})
    begin, end = capture_span(material.trace)
    lengths = np.maximum(rows["hold_ns"].to_numpy(np.int64), _FLOOR_NS)
    highest = int(lengths.max()) if len(lengths) else _FLOOR_NS * 10
    decades = np.log10(max(highest, _FLOOR_NS * 10) / _FLOOR_NS)
    steps = int(np.ceil(decades * _BINS_A_DECADE)) + 1
    y = _FLOOR_NS * 10 ** (np.arange(steps + 1) / _BINS_A_DECADE)
    bins = _TIME_BINS if traces <= _FEW else _TIME_BINS // 3
    x = np.linspace(begin, max(end, begin + 1), bins + 1)
    counts, _, _ = np.histogram2d(rows["block_ns"].to_numpy(np.int64), lengths, (x, y))
    seconds = (x - begin) / 1e9
    # A bar for each field that has episodes; plotly.js's basic bundle has no heat map.
    when, length = np.nonzero(counts)
    found = counts[when, length].astype(np.int64)
    heat = {
        "type": "bar",
        "x": np.round((seconds[when] + seconds[when + 1]) / 2, 6).tolist(),
        "width": float(seconds[1] - seconds[0]),
        "base": np.round(y[length], 1).tolist(),
        "y": np.round(y[length + 1] - y[length], 1).tolist(),
        "customdata": found.tolist(),
        "marker": {
            "color": found.tolist(),
            "colorscale": [[0, "var(--heat-low)"], [1, "var(--heat-high)"]],
            "cmin": 1,
            "cmax": max(int(found.max(initial=1)), 2),
            "showscale": True,
            "colorbar": {"title": {"text": "calls"}, "thickness": 12, "outlinewidth": 0},
        },
        "showlegend": False,
        "hovertemplate": "%{customdata} calls at %{x:.3f} s<extra></extra>",
    }
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "seconds since the capture began"}, "zeroline": False},
        "yaxis": {**log_axis(highest), "title": {"text": "hold"}},
    }
    return picture([heat], "holds over time", layout)
