"""Pictures of the pages: SVG, the same for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("svg")
# Ids that hang together with what is drawn, and text that can be searched.
mpl.rcParams.update({"svg.hashsalt": "pretake", "svg.fonttype": "none", "font.size": 9})
from matplotlib import pyplot as plt  # noqa: E402  after its back end is chosen

__all__ = ["IMAGES", "Panel", "draw_bars", "draw_lines"]

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
_SAME: Final = {"metadata": {"Date": None, "Creator": None}}


@dataclass(frozen=True)
class Panel:
    """One of several diagrams: a value for each x and each name."""

    title: str
    values: Mapping[int, Mapping[str, float]]


def draw_lines(file: Path, panels: Sequence[Panel], x: str, y: str) -> None:
    """Draw panels in two columns: a line for each name, from 0 to 1 over a logarithmic x."""
    rows = (len(panels) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(8, 3 * rows), sharex=True, sharey=True)
    for panel, axis in zip(panels, axes.flat, strict=False):
        names = dict.fromkeys(name for row in panel.values.values() for name in row)
        for name in names:
            axis.plot(list(panel.values), [row[name] for row in panel.values.values()], label=name)
        axis.set(title=panel.title, ylim=(0, 1.05))
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xticks(list(panel.values), [str(value) for value in panel.values])
        axis.grid(alpha=0.3)
    figure.supxlabel(x)
    figure.supylabel(y)
    axes.flat[0].legend()
    _write(figure, file)


def draw_bars(file: Path, runs: Mapping[str, Mapping[str, float]], x: str) -> None:
    """Draw a group of bars for each name whose numbers differ, a bar for each run."""
    names = [
        name
        for name in sorted({name for run in runs.values() for name in run}, reverse=True)
        if len({run.get(name, 0) for run in runs.values()}) > 1
    ]
    figure, axis = plt.subplots(figsize=(8, 1 + 0.4 * len(names)))
    height = 0.8 / len(runs)
    for at, (title, run) in enumerate(runs.items()):
        places = [place - at * height for place in range(len(names))]
        bars = axis.barh(places, [run.get(name, 0) for name in names], height, label=title)
        axis.bar_label(bars, padding=2)
    axis.set_yticks([place - 0.4 + height / 2 for place in range(len(names))], names)
    axis.set(xlabel=x, xscale="symlog")
    axis.legend()
    _write(figure, file)


def _write(figure: plt.Figure, file: Path) -> None:
    figure.tight_layout()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, **_SAME)
    plt.close(figure)
