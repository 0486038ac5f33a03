"""What a window needs from the windows before it: the last row of each key."""

from __future__ import annotations

import pandas as pd

__all__ = ["LastRows"]


class LastRows:
    """The last row of each key so far; as many rows as there are keys.

    Args:
        key: name of the column with the key.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._rows: pd.DataFrame | None = None

    def extend(self, rows: pd.DataFrame, remember: bool = True) -> pd.DataFrame:
        """``rows`` (in the order of time) with the last row of each key before them in front."""
        both = rows if self._rows is None else pd.concat([self._rows, rows], ignore_index=True)
        if remember:
            self.replace(both)
        return both

    def replace(self, rows: pd.DataFrame) -> None:
        """Remember the last of ``rows`` of each key, and nothing else."""
        self._rows = rows.drop_duplicates(self._key, keep="last")
