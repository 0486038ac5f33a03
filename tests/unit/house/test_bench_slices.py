"""What the benchmarks make of a program's slices, on slices made by hand."""

from __future__ import annotations

from pathlib import Path

from bench import slices
from bench.parts import Cost, costs
from bench.slices import Slice

MS = 1_000_000


def of(begin_ms: int, round_trips: int) -> Slice:
    """A slice of 50 ms, all of it on a CPU."""
    return Slice(begin_ms * MS, (begin_ms + 50) * MS, round_trips, 50 * MS)


def span(*ms: int) -> tuple[int, int, int, int]:
    begin, untraced, attached, end = ms
    return begin * MS, untraced * MS, attached * MS, end * MS


def test_a_pair_without_a_whole_slice_is_left_out_and_counted() -> None:
    """The program stands still from 250 ms on, through the whole of a window."""
    told = [
        *(of(0, 500), of(50, 500), of(100, 250), of(150, 250), of(200, 250)),
        *(of(650, 500), of(700, 200)),
    ]
    found = costs(
        {
            # 100 µs a round trip without it, 200 with it.
            "one of two": [span(0, 100, 100, 250), span(250, 400, 410, 560)],
            "not once": [span(250, 400, 410, 560), span(0, 100, 250, 400)],
            # 100 µs, then 250.
            "each": [span(640, 700, 700, 760)],
        },
        told,
    )
    assert found == {
        "one of two": Cost(2.0, 2.0, 2.0, 100_000.0, pairs=1, left_out=1),
        "not once": None,
        "each": Cost(2.5, 2.5, 2.5, 150_000.0, pairs=1, left_out=0),
    }


def test_a_slice_that_reaches_out_of_its_window_is_of_neither() -> None:
    told = [of(0, 500), of(50, 5), of(100, 250)]
    assert slices.cost_ns(slices.whole(told, 0, 75 * MS)) == 100_000
    assert slices.cost_ns(slices.overlapping(told, 60 * MS, 70 * MS)) == 10 * MS
    assert slices.cost_ns(slices.whole(told, 60 * MS, 70 * MS)) is None


def test_the_fastest_tenth_is_what_counts() -> None:
    assert slices.cost_ns([of(50 * i, 100 + i) for i in range(20)]) == 50 * MS / 117


def test_a_program_that_does_not_tell_its_cpu_time_has_none() -> None:
    assert slices.cost_ns([Slice(0, 50 * MS, 10)], of_cpu=True) is None


def test_a_line_that_is_whole_counts_and_one_that_is_not_waits(tmp_path: Path) -> None:
    told = tmp_path / "slices"
    told.write_text("1 2 3 4\n2 3 4 5\n3 4")
    assert slices.read(told) == [Slice(1, 2, 3, 4), Slice(2, 3, 4, 5)]
    told.write_text("1 2 3\n")
    assert slices.read(told) == [Slice(1, 2, 3)]
