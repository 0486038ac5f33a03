"""Searching many time lines at once, against a plain loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analysis.windowed.asof import NOT_FOUND, Timelines

EVENTS = st.lists(st.tuples(st.integers(-2, 3), st.integers(0, 12)), max_size=20)


@given(EVENTS, EVENTS, st.booleans())
def test_answers_are_those_of_a_loop(
    events: list[tuple[int, int]], asked: list[tuple[int, int]], strictly: bool
) -> None:
    lines = Timelines([k for k, _ in events], [t for _, t in events])
    keys, times = [k for k, _ in asked], [t for _, t in asked]
    order = sorted(range(len(events)), key=lambda row: events[row][1])
    for at, (key, time) in enumerate(asked):
        own = [(events[row][1], row) for row in order if events[row][0] == key]
        after = [row for t, row in own if t > time or (t == time and not strictly)]
        before = [row for t, row in own if t < time or (t == time and not strictly)]
        assert lines.first_after(keys, times, strictly)[at] == (after or [NOT_FOUND])[0]
        assert lines.last_before(keys, times, strictly)[at] == (before or [NOT_FOUND])[-1]
