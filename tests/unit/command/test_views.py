from __future__ import annotations

import io

import pytest
from rich.console import Console

from pretake.views import bytes_text, duration, table


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "–"),
        (0, "0 ns"),
        (7, "7 ns"),
        (999.4, "999 ns"),
        (999.6, "1 µs"),
        (1_234, "1.23 µs"),
        (182_000, "182 µs"),
        (20_100_000, "20.1 ms"),
        (1_500_000_000, "1.5 s"),
        (-50, "-50 ns"),
    ],
)
def test_duration(ns: float | None, text: str) -> None:
    assert duration(ns) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (0, "0 B"), (4.25, "4.25 B"), (1536, "1.5 KiB"), (3 << 30, "3 GiB")],
)
def test_bytes(count: float | None, text: str) -> None:
    assert bytes_text(count) == text


def test_a_hostile_name_is_shown_and_not_obeyed() -> None:
    shown = io.StringIO()
    Console(width=60, file=shown).print(table("t", ["name"], [["[red]x[/red]\x1b[2J"]]))
    assert "[red]x[/red]·[2J" in shown.getvalue()


def test_columns_go_in_the_order_that_is_told_and_by_place_where_names_are_equal() -> None:
    """Ten characters a column: three fit into 45, and two into 36."""
    head = ("what", "p50", "p99", "harm", "p50")
    rows = [["x" * 10, *(f"{n} ms".rjust(10, "1") for n in range(4))]]
    said = {}
    for width in (80, 45, 36):
        shown = io.StringIO()
        Console(width=width, file=shown).print(table("t", head, rows, spare=("harm",)))
        said[width] = shown.getvalue()
        assert all(len(line) <= width for line in said[width].splitlines())
    assert "Too narrow" not in said[80]
    assert "Too narrow for: harm, p50." in said[45]
    assert "Too narrow for: harm, p50, p99." in said[36]
    # The last p50 is gone, and the first is there.
    assert rows[0][1] in said[36]
    assert rows[0][4] not in said[45]
