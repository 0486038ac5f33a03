"""The picture of the budget: where P time went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.report.drawing import Picture, marker, percent_axis, picture, short_name
from analysis.report.material import Material

__all__ = ["budget"]


def budget(materials: Sequence[Material]) -> Picture:
    """Where P time went: of one trace over time, of several one bar each.

    Of a trace it is the process that lost most P time. 100 % is all Ps, for all of the time.
    """
    told = [m for m in materials if m.budget["processes"]]
    if not told:
        return picture([], "budget", {})
    if len(materials) == 1:
        return _budget_over_time(told[0])
    names = [short_name(m) for m in told]
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
                    "marker": marker(colour, pattern),
                }
            )
    layout = {
        "barmode": "stack",
        "xaxis": percent_axis(),
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return picture(bars, "budget", layout, 190 + 34 * len(names))


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
                "marker": {**marker(colour, pattern), "line": {"width": 0}},
            }
        )
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"title": {"text": "seconds since the process was seen"}, "zeroline": False},
        "yaxis": {**percent_axis(), "range": [0, 100]},
        "legend": {"traceorder": "normal"},
    }
    return picture(bars, "budget", layout, 300)


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
