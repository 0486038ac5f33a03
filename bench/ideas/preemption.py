"""Ideas about where a goroutine may be stopped."""

from __future__ import annotations

from collections.abc import Iterator

from bench.ideas.row import GoTimes, Row
from reference_runtime.register_map import PROGRAM, stop_before


def register_map(_: GoTimes) -> Iterator[Row]:
    """−2 in the register map, with the check and without it, on a toy heap."""
    cells = []
    for check, what in ((True, "with the check"), (False, "without it")):
        stops = [stop_before(line, check) for line in range(len(PROGRAM))]
        lost = sum(stop.lost for stop in stops)
        cells.append(f"{what} {lost} of {len(stops)} stops lose the object")
    yield Row(
        "−2 in the register map: a goroutine is not stopped where no map names its pointers",
        "(the article) the collector would free what only a `uintptr` points to",
        ", ".join(cells),
        "–",
        "`python -m reference_runtime.register_map`: a signal in front of each instruction, a "
        "collection, the memory given to another goroutine, whose number is read then",
    )
