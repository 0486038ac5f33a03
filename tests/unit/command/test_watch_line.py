"""The first line of a watch names the processes that it begins with."""

from __future__ import annotations

import pytest

from pretake.commands.watch import _found


@pytest.mark.parametrize(
    ("pids", "told"),
    [
        ([], "none yet"),
        ([7], "7"),
        (range(1, 9), "1, 2, 3, 4, 5, 6, 7, 8"),
        (range(1, 201), "1, 2, 3, 4, 5, 6, 7, 8 and 192 more"),
    ],
)
def test_of_many_the_first_are_named(pids: list[int], told: str) -> None:
    assert _found(list(pids)) == told
