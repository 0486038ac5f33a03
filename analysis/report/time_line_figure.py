"""The picture of one episode: which thread ran where, and who held P."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.ptime.timeline import STATES
from analysis.report.drawing import Picture, linear_axis, marker, picture
from analysis.units import duration_text
from analysis.windowed.asof import Ints

__all__ = ["time_line"]

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
                "marker": marker(colour, pattern),
            }
        )
    marks = _marks(episode, zero)
    first, last = int(lanes["begin_ns"].min()) - zero, int(lanes["end_ns"].max()) - zero
    layout = {
        "barmode": "overlay",
        "bargap": 0.1,
        "xaxis": {**linear_axis(first, last), "title": {"text": "time since the block"}},
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
    return picture(bars, "", layout, 190 + 44 * len(order))


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
