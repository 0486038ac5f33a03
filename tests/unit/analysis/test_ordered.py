"""A table that comes in pieces: in order, with its types, and the same text as all at once."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from analysis.formats.export import write_json_lines
from analysis.formats.ordered import in_order


def pieces(count: int) -> list[pd.DataFrame]:
    """Seven pieces of shuffled rows, with a null, a word and a name in each row's way."""
    random = np.random.default_rng(3)
    at = random.permutation(count)
    whole = pd.DataFrame(
        {
            "at": pd.array(at, "Int64"),
            "tid": pd.array(at % 3, "Int64"),
            "maybe": pd.array([None if n % 4 == 0 else int(n) for n in at], "Int64"),
            "word": pd.Categorical.from_codes(at % 2, ["a", "b"]),
            "name": pd.Series([None if n % 5 == 0 else f'n"{n}\n' for n in at], dtype="str"),
            "share": pd.array(at / 8, "Float64"),
            "is": at % 2 == 0,
        }
    )
    cuts = [0, 0, *sorted(random.integers(0, count, 5).tolist()), count]
    return [whole[a:b].reset_index(drop=True) for a, b in pairwise(cuts)]


@pytest.mark.parametrize("rows", [1, 7, 1_000])
def test_all_rows_come_in_order_with_their_types(rows: int) -> None:
    made = pieces(100)
    found = list(in_order(made, ("tid", "at"), rows))
    assert max(map(len, found)) == min(rows, 100)
    whole = pd.concat(made, ignore_index=True)
    expected = whole.sort_values(["tid", "at"], ignore_index=True)
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True), expected)


def test_no_row_is_one_empty_piece() -> None:
    (found,) = in_order([pieces(10)[0][:0]] * 2, ("at",))
    assert len(found) == 0
    assert found["word"].dtype == "category"


def test_lines_are_what_json_has() -> None:
    whole = pd.concat(pieces(50), ignore_index=True)
    whole.loc[3, "share"] = None
    out = io.BytesIO()
    write_json_lines(whole, out)
    plain = whole.astype(object).where(whole.notna(), None).to_dict("records")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == plain
