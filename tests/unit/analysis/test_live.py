"""Counts by call site: sums, names, and that what was told never goes back."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from analysis.answers.live import OTHER, Call, CallSites, TopCalls, by_syscall

READ, WRITE = 0, 1


def counts(*values: int) -> np.ndarray:
    """Retakes, and as many harms, of so many values a bucket."""
    return np.array([values, values])


def test_stacks_of_one_call_site_are_one() -> None:
    sites = CallSites()
    sites.learn(
        pd.DataFrame(
            {
                "stack_id": [0, 1, 2, 3],
                "site": ["main.a", "main.b", "main.a", None],
                "file": ["a.go", None, "a.go", None],
                "line": pd.array([7, None, 8, None], "Int64"),
            }
        )
    )
    found = sites.sum(
        {
            (READ, 0): counts(1, 0),
            (READ, 1): counts(0, 2),
            (READ, 2): counts(4, 4),
            (WRITE, 2): counts(8, 0),
            (READ, 3): counts(0, 16),
            (READ, -1): counts(32, 0),
            (READ, -2): counts(64, 0),
        }
    )
    retakes = {call: own[0].tolist() for call, own in found.items()}
    assert retakes == {
        ("read", "main.a"): [5, 4],
        ("read", "main.b"): [0, 2],
        ("write", "main.a"): [8, 0],
        ("read", None): [32, 16],
        ("read", OTHER): [64, 0],
    }
    assert sites.line_of("main.a") == ("a.go", 7)
    assert sites.line_of("main.b") == (None, None)
    assert sites.line_of(None) == (None, None)
    assert {call: own[0].sum() for call, own in by_syscall(found).items()} == {
        ("read", None): 5 + 4 + 2 + 48 + 64,
        ("write", None): 8,
    }


def test_a_call_that_gets_a_name_starts_where_the_others_stop() -> None:
    top = TopCalls(1)
    a, b = Call("read", "main.a"), Call("read", "main.b")
    other = Call("read", OTHER)

    def look(of_a: int, of_b: int) -> dict[Call, int]:
        told = top.look({a: counts(of_a), b: counts(of_b)})
        return {call: int(own[0].sum()) for call, own in told.items()}

    assert look(10, 4) == {a: 10, other: 4}
    assert look(11, 11) == {a: 11, other: 11}
    # b is the first now: what the others told of it stays theirs, and what a told is gone.
    assert look(12, 20) == {b: 9, other: 12}
    assert look(12, 30) == {b: 19, other: 12}
    assert look(40, 30) == {a: 28, other: 12}


steps = st.lists(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 50), max_size=5), min_size=1
)


@given(steps, st.integers(1, 4))
def test_no_series_goes_back_and_none_is_lost(steps: list[dict[str, int]], most: int) -> None:
    top = TopCalls(most)
    totals: dict[Call, np.ndarray] = {}
    last: dict[Call, int] = {}
    ended: dict[Call, int] = {}
    for step in steps:
        for name, more in step.items():
            # Of two system calls, and some that the kernel had no room for.
            call = Call("read" if name < "c" else "write", OTHER if name == "e" else name)
            totals[call] = totals.get(call, counts(0)) + counts(more)
        told = {call: int(own[0].sum()) for call, own in top.look(totals).items()}
        assert sum(call.site != OTHER for call in told) <= most
        for call, value in last.items():
            if call in told:
                assert told[call] >= value
            else:
                assert call.site != OTHER
                ended[call] = ended.get(call, 0) + value
        assert sum(told.values()) + sum(ended.values()) == sum(
            int(own[0].sum()) for own in totals.values()
        )
        last = told
