"""The pictures of a report, as specifications for plotly.js.

A picture is a plain dictionary, which is what plotly.js reads. Colours are names of CSS
variables (``var(--s0)``); the page puts the values of the reader's light or dark theme in their
place. Every series differs by dash, marker or pattern as well, so that none needs its colour.
All text of strangers is escaped: plotly.js reads some HTML in it.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.ptime.timeline import STATES
from analysis.report.material import Material
from analysis.schema import CLASSES, PARTS
from analysis.units import count_text, duration_text, percent_text
from analysis.windowed.asof import Ints

__all__ = [
    "budget",
    "class_shares",
    "distribution",
    "heat_map",
    "parts",
    "preemption",
    "time_line",
]

Picture = dict[str, Any]

_SERIES = 6
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_PATTERNS = ("", "/", "x", ".", "\\", "+", "-", "|")

_LONGEST = 22
"""Characters of a trace's name in a picture; the tables have all of it."""

_LINE = 34
"""Characters of a line in a legend."""

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


def budget(materials: Sequence[Material]) -> Picture:
    """Where P time went: of one trace over time, of several one bar each.

    Of a trace it is the process that lost most P time. 100 % is all Ps, for all of the time.
    """
    told = [m for m in materials if m.budget["processes"]]
    if not told:
        return _picture([], "budget", {})
    if len(materials) == 1:
        return _budget_over_time(told[0])
    names = [_name(m) for m in told]
    processes = [m.budget["processes"][0] for m in told]
    bars = []
    for state, (name, colour, pattern) in _BUDGET.items():
        shares = [100 * p["states"][state] / max(p["p_ns"], 1) for p in processes]
        if any(share > 0 for share in shares):
            bars.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name,
                    "y": names,
                    "x": np.round(shares, 3).tolist(),
                    "hovertemplate": f"%{{y}}, {name}: %{{x:.2f}} %<extra></extra>",
                    "marker": _marker(colour, pattern),
                }
            )
    layout = {
        "barmode": "stack",
        "xaxis": _percent_axis(),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return _picture(bars, "budget", layout, 190 + 34 * len(names))


def _budget_over_time(material: Material) -> Picture:
    bins, process = material.bins, material.budget["processes"][0]
    own = bins["pid"] == process["pid"]
    ends = np.r_[process["begin_ns"], bins["ts_ns"][own]]
    whole = np.diff(np.r_[0, bins["p_ns"][own]])
    begin, width = process["begin_ns"], np.diff(ends)
    kept = (whole > 0) & (width > 0)
    bars = []
    for state, (name, colour, pattern) in _BUDGET.items():
        lengths = np.diff(np.r_[0, bins[f"{state}_ns"][own]])[kept]
        if not lengths.any():
            continue
        bars.append(
            {
                "type": "bar",
                "name": name,
                "x": np.round((ends[:-1] - begin + width / 2)[kept] / 1e9, 6).tolist(),
                "width": np.round(width[kept] / 1e9, 6).tolist(),
                "y": np.round(100 * lengths / whole[kept], 2).tolist(),
                "hovertemplate": f"{name}: %{{y:.2f}} % at %{{x:.3f}} s<extra></extra>",
                # No line between the pieces: it would be half of what is seen.
                "marker": {**_marker(colour, pattern), "line": {"width": 0}},
            }
        )
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"title": {"text": "seconds since the process was seen"}, "zeroline": False},
        "yaxis": {**_percent_axis(), "range": [0, 100]},
        "legend": {"traceorder": "normal"},
    }
    return _picture(bars, "budget", layout, 300)


_BUDGET = {
    "running": ("running", "var(--s2)", ""),
    "syscall": ("held by a blocked system call", "var(--s1)", "x"),
    "fault": ("held by a page fault", "var(--s3)", "."),
    "no_cpu": ("its thread has no CPU", "var(--s4)", "/"),
    "stopped": ("stopped by a signal", "var(--ink)", ""),
    "transit": ("on its way to a goroutine", "var(--s0)", "\\"),
    "stw": ("world stopped", "var(--s5)", "+"),
    "idle": ("idle", "var(--line)", ""),
    "unknown": ("not known", "var(--quiet)", "-"),
}
"""States of a P in the order in which they are drawn, in words, with colour and pattern."""


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
        x = np.quantile(values, shares, method="inverted_cdf")
        highest = max(highest, int(x[-1]))
        y = 100 * shares
        name = _name(material)
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
                "line": {"color": _colour(colour), "dash": _DASHES[dash % _SERIES], "width": 2},
                "marker": {
                    "color": _colour(colour),
                    "symbol": _MARKERS[number % _SERIES],
                    "size": 9,
                    # A marker at each tenth tells the lines apart in print.
                    "opacity": [1 if share in _MARKED else 0 for share in np.round(y, 4)],
                },
            }
        )
    return _picture(lines, title, {"xaxis": _log_axis(highest), "yaxis": _percent_axis()})


_MARKED = frozenset(float(share) for share in range(10, 100, 10))


def _name(material: Material) -> str:
    """A trace's label, as long as a picture on a phone has room for."""
    label = material.label
    return html.escape(label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…")


def _lines(text: str) -> str:
    """A text in a legend, in lines that a phone has room for."""
    return "<br>".join(textwrap.wrap(html.escape(text, quote=False), _LINE))


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
    labels = [_name(material) for material in materials]
    bars = []
    for number, (_, part, meaning) in enumerate(PARTS):
        means = [_part_mean(episodes, part) for episodes in rows]
        if not any(means):
            continue
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": _lines(meaning.removeprefix("until ")),
                "y": labels,
                "x": means,
                "customdata": [duration_text(mean) for mean in means],
                "hovertemplate": f"%{{y}}, {meaning}: %{{customdata}} (mean)<extra></extra>",
                "marker": _fill(number),
            }
        )
    totals = [float(told["retake_ns"].dropna().astype(float).mean()) for told in rows]
    highest = max((total for total in totals if not np.isnan(total)), default=0)
    layout = {
        "barmode": "stack",
        "xaxis": _linear_axis(0, highest),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return _picture(bars, "mean P-retake latency, by its parts", layout, 190 + 46 * len(rows))


def _part_mean(episodes: pd.DataFrame, part: str) -> float:
    """Mean over all episodes whose P went on: a part that was not seen took none of the time."""
    told = episodes[episodes["retake_ns"].notna()]
    return float(told[part].fillna(0).mean()) if len(told) else 0.0


def preemption(materials: Sequence[Material]) -> Picture:
    """The way of a request to stop: the mean length of each part, one bar a trace."""
    told = [(_name(m), m.preemptions) for m in materials]
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
                    "marker": _fill(number),
                }
            )
    highest = max(
        (float(rows["latency_ns"].astype(float).mean()) for _, rows in stopped), default=0
    )
    layout = {
        "barmode": "stack",
        "xaxis": _linear_axis(0, highest),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return _picture(bars, "mean time from asked to stopped", layout, 190 + 46 * len(stopped))


_PREEMPTION_PARTS = (
    ("part_sent_ns", "asked to sent"),
    ("part_delivered_ns", "sent to delivered"),
    ("part_stopped_ns", "delivered to stopped"),
)


def class_shares(materials: Sequence[Material]) -> Picture:
    """What the episodes mean: the share of each class, by count and by time held."""
    rows = []
    for material in materials:
        name = _name(material)
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
                "marker": _marker(*_CLASS_FILL[word]),
            }
        )
    layout = {
        "barmode": "stack",
        "xaxis": _percent_axis(),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return _picture(bars, "share of each class", layout, 190 + 34 * len(rows))


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
        return _picture([], "holds over time", {})
    begin, end = _capture_span(material)
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
        "yaxis": {**_log_axis(highest), "title": {"text": "hold"}},
    }
    return _picture([heat], "holds over time", layout)


def _capture_span(material: Material) -> tuple[int, int]:
    manifest, blocks = material.trace.manifest, material.episodes["block_ns"]
    begin = manifest.begin_ns if manifest.begin_ns is not None else blocks.min()
    end = manifest.end_ns if manifest.end_ns is not None else blocks.max()
    return (0, 1) if pd.isna(begin) or pd.isna(end) else (int(begin), int(end))


_LANE_FILL = {
    "running": ("var(--s0)", ""),
    "waiting": ("var(--s4)", "/"),
    "blocked": ("var(--quiet)", ""),
    "used": ("var(--s2)", ""),
    "held": ("var(--s1)", "x"),
    "moving": ("var(--s3)", "."),
}
_LANE_NAMES = {
    "running": "thread runs",
    "waiting": "thread waits for a CPU",
    "blocked": "thread is blocked",
    "used": "P in use",
    "held": "P held by the blocked thread",
    "moving": "P on its way",
}


def time_line(lanes: pd.DataFrame, episode: Mapping[Any, Any]) -> Picture:
    """Which thread ran where and who held P, around one episode."""
    zero = int(episode["block_ns"])
    order = list(dict.fromkeys(lanes["lane"]))
    roles = _roles(episode)
    bars = []
    for state in STATES:
        spans = lanes[lanes["state"] == state]
        if len(spans) == 0:
            continue
        colour, pattern = _LANE_FILL[state]
        length = (spans["end_ns"] - spans["begin_ns"]).to_numpy(np.int64)
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": _LANE_NAMES[state],
                "y": [_lane_name(lane, roles) for lane in spans["lane"]],
                "base": (spans["begin_ns"] - zero).tolist(),
                "x": length.tolist(),
                "width": 0.28 if state == "blocked" else 0.62,
                "customdata": _span_texts(spans, length),
                "hovertemplate": "%{customdata}<extra></extra>",
                "marker": _marker(colour, pattern),
            }
        )
    marks = _marks(episode, zero)
    first, last = int(lanes["begin_ns"].min()) - zero, int(lanes["end_ns"].max()) - zero
    layout = {
        "barmode": "overlay",
        "bargap": 0.1,
        "xaxis": {**_linear_axis(first, last), "title": {"text": "time since the block"}},
        "yaxis": {
            "autorange": "reversed",
            "type": "category",
            "automargin": True,
            "categoryorder": "array",
            "categoryarray": [_lane_name(lane, roles) for lane in order],
            "fixedrange": True,
        },
        "shapes": [
            {
                "type": "line",
                "x0": at,
                "x1": at,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": "var(--ink)", "width": 1, "dash": "dot"},
            }
            for at, _ in marks
        ],
        "annotations": [
            {
                "x": at,
                "yref": "paper",
                "y": 1,
                "yanchor": "bottom",
                # Names of near moments would lie on one another: every other one is lifted.
                "yshift": 1 + 13 * (number % 3),
                "text": name,
                "showarrow": False,
                "font": {"size": 11},
            }
            for number, (at, name) in enumerate(marks)
        ],
        "margin": {"t": 62},
        "dragmode": "pan",
    }
    return _picture(bars, "", layout, 190 + 44 * len(order))


def _roles(episode: Mapping[Any, Any]) -> dict[str, str]:
    roles = {}
    for column, role in (("runner_tid", "next M"), ("taker_tid", "taker"), ("tid", "blocked")):
        if not pd.isna(episode[column]):
            roles[f"thread {int(episode[column])}"] = role
    return roles


def _lane_name(lane: str, roles: Mapping[str, str]) -> str:
    return f"{roles[lane]}: {lane}" if lane in roles else lane


def _span_texts(spans: pd.DataFrame, length: Ints) -> list[str]:
    texts = []
    for state, cpu, tid, ns in zip(
        spans["state"], spans["cpu"], spans["tid"], length, strict=True
    ):
        where = "" if pd.isna(cpu) else f" on CPU {cpu}"
        who = f", thread {tid}" if state in ("used", "held") and not pd.isna(tid) else ""
        texts.append(f"{_LANE_NAMES[state]}{where}{who}: {duration_text(ns)}")
    return texts


def _marks(episode: Mapping[Any, Any], zero: int) -> list[tuple[int, str]]:
    names = {
        "enter_ns": "enter",
        "block_ns": "block",
        "release_ns": "release",
        "run_ns": "run",
        "exit_ns": "exit",
    }
    if pd.isna(episode["run_ns"]):
        names["acquirep_ns"] = "acquirep"
    found = [(int(episode[c]) - zero, n) for c, n in names.items() if not pd.isna(episode[c])]
    stop = max((at for at, name in found if name != "exit"), default=0)
    # A return long after is not shown: the picture is of P's way.
    return sorted(m for m in found if m[1] != "exit" or m[0] <= 2.5 * max(stop, 1))


def _colour(number: int) -> str:
    return f"var(--s{number % _SERIES})"


def _fill(number: int) -> dict[str, Any]:
    return _marker(_colour(number), _PATTERNS[number % len(_PATTERNS)])


def _marker(colour: str, pattern: str) -> dict[str, Any]:
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


def _log_axis(highest_ns: int) -> dict[str, Any]:
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


def _percent_axis() -> dict[str, Any]:
    return {"ticksuffix": " %", "range": [0, 101], "zeroline": False}


def _linear_axis(first_ns: float, last_ns: float) -> dict[str, Any]:
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


def _picture(
    data: list[dict[str, Any]], title: str, layout: Mapping[str, Any], height: int = 380
) -> Picture:
    return {"data": data, "layout": {"height": height, **layout}, "title": title}
