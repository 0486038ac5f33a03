"""A flame graph: where P time goes, as one SVG file that any browser shows.

Each box is a function (or a program, system call or outcome). Its width is the time in all that
it called, and its title tells that time. It is drawn from the top down, so that the root of a
deep stack is in view.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from analysis.units import duration_text

__all__ = ["flame_svg"]

_WIDTH = 1200
_ROW = 18
_TOP = 40
_CHARACTER = 6.6
_NARROWEST = 0.3
"""Pixels below which a box is left out."""


@dataclass
class _Box:
    name: str
    ns: int = 0
    inside: dict[str, _Box] = field(default_factory=dict)


def flame_svg(folded: Mapping[str, int], title: str) -> str:
    """Draw folded stacks.

    Args:
        folded: nanoseconds by stack, outermost first, ``;`` between its parts
            (:func:`analysis.formats.export.folded`).
        title: stands above the picture.

    Returns:
        The text of an SVG file. Every name in it is escaped.
    """
    root = _Box("all")
    for stack, ns in folded.items():
        root.ns += ns
        box = root
        for name in stack.split(";"):
            box = box.inside.setdefault(name, _Box(name))
            box.ns += ns
    boxes = list(_placed(root, 0.0, 0, _WIDTH / root.ns if root.ns else 0.0))
    height = _TOP + _ROW * (1 + max((depth for _, _, depth, _ in boxes), default=0)) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="monospace" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="24" font-size="15">{escape(title)}</text>',
    ]
    for box, x, depth, width in boxes:
        y = _TOP + depth * _ROW
        share = box.ns / root.ns
        told = escape(f"{box.name}: {duration_text(box.ns)} ({share:.1%})")
        shown = box.name[: int((width - 6) / _CHARACTER)] if width > 24 else ""
        lines.append(
            f'<g><title>{told}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{_ROW - 1}" fill="{_colour(box.name)}"/>'
            f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(shown)}</text></g>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _placed(
    box: _Box, x: float, depth: int, pixels_per_ns: float
) -> Iterator[tuple[_Box, float, int, float]]:
    """Each box with its left edge, row and width."""
    width = box.ns * pixels_per_ns
    if width < _NARROWEST:
        return
    yield box, x, depth, width
    for inner in sorted(box.inside.values(), key=lambda b: b.name):
        yield from _placed(inner, x, depth + 1, pixels_per_ns)
        x += inner.ns * pixels_per_ns


def _colour(name: str) -> str:
    """A warm colour that a name always has."""
    number = zlib.crc32(name.encode())
    return f"hsl({number % 50},{70 + number % 20}%,{68 + number % 12}%)"
