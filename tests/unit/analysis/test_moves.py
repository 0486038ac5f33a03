"""Moves lie in the order of time, those of one moment in the order in which they were put."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analysis.ptime.engine.moves import LOOK, Move, Moves


@given(st.lists(st.integers(0, 40), max_size=200))
def test_each_lies_behind_those_of_its_moment(times: list[int]) -> None:
    moves = Moves()
    for number, ns in enumerate(times):
        moves.put(Move(ns, LOOK, number, -1, 0, -1))
    expected = sorted(enumerate(times), key=lambda pair: pair[1])
    assert [(move.pid, move.ns) for move in moves.moves] == expected
    for ns in range(-1, 42):
        assert moves.place(ns) == sum(other <= ns for other in times)
