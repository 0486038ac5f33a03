"""Pictures of docs/the-discussion.md: SVG, the same for the same figures.

matplotlib is asked for when a picture is drawn: who only measures does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.errors import PretakeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["IMAGES", "Draw", "Panel", "draw_bars", "draw_lines"]

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
Draw = Callable[[], None]
"""Draws a row's picture, when the page is written."""


@dataclass(frozen=True)
class Panel:
    """One of several diagrams: a value for each x and each name."""

    title: str
    values: Mapping[int, Mapping[str, float]]


def draw_lines(name: str, panels: Sequence[Panel], x: str, y: str) -> None:
    """Draw panels in two columns: a line for each name, from 0 to 1 over a logarithmic x."""
    rows = (len(panels) + 1) // 2
    with _figure(name, (8, 3 * rows)) as figure:
        axes = figure.subplots(rows, 2, sharex=True, sharey=True)
        for panel, axis in zip(panels, axes.flat, strict=False):
            for line in dict.fromkeys(line for row in panel.values.values() for line in row):
                axis.plot(
                    list(panel.values), [row[line] for row in panel.values.values()], label=line
                )
            axis.set(title=panel.title, ylim=(0, 1.05))
            axis.set_xscale("symlog", linthresh=10)
            axis.set_xticks(list(panel.values), [str(value) for value in panel.values])
            axis.grid(alpha=0.3)
        figure.supxlabel(x)
        figure.supylabel(y)
        axes.flat[0].legend()


def draw_bars(name: str, runs: Mapping[str, Mapping[str, float]], x: str) -> None:
    """Draw a group of bars for each word whose numbers differ, a bar for each run."""
    words = [
        word
        for word in sorted({word for run in runs.values() for word in run}, reverse=True)
        if len({run.get(word, 0) for run in runs.values()}) > 1
    ]
    with _figure(name, (8, 1 + 0.4 * len(words))) as figure:
        axis = figure.subplots()
        height = 0.8 / len(runs)
        for at, (title, run) in enumerate(runs.items()):
            places = [place - at * height for place in range(len(words))]
            bars = axis.barh(places, [run.get(word, 0) for word in words], height, label=title)
            axis.bar_label(bars, padding=2)
        axis.set_yticks([place - 0.4 + height / 2 for place in range(len(words))], words)
        axis.set(xlabel=x, xscale="symlog")
        axis.legend()


@contextmanager
def _figure(name: str, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure to draw into, which is written in the end."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PretakeError(
            "the pictures need matplotlib", "run make bench-discussion, which installs it"
        ) from error
    # Ids that hang together with what is drawn, and text that can be searched.
    same = {"svg.hashsalt": "pretake", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(same):
        figure = Figure(figsize=size, layout="tight")
        yield figure
        IMAGES.mkdir(exist_ok=True)
        figure.savefig(IMAGES / name, metadata={"Date": None, "Creator": None})
