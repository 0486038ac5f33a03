"""Search in many time lines at once: the join that most of the analysis uses.

Example: for each block, the next retake of the same P. A time line has the events of one key (a
thread, a P) in the order of time. A question is always "the first event of this key after that
moment", or "the last one before it", for millions of keys and moments together.

``pandas.merge_asof`` answers the same questions, but needs both sides as sorted frames with equal
dtypes at each call. Here the events are sorted once and searched many times.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["NOT_FOUND", "Ints", "Timelines", "take"]

Ints: TypeAlias = npt.NDArray[np.int64]

NOT_FOUND = -1
"""The index that stands for "no such event"."""


class Timelines:
    """Events by key and time.

    Args:
        keys: the key of each event.
        times: the moment of each event, in ns, in any order. Events of one key at the same
            moment stay in the order they were given in.

    Answers are indices into the arrays that were given, or :data:`NOT_FOUND`.
    """

    def __init__(self, keys: npt.ArrayLike, times: npt.ArrayLike) -> None:
        keys = np.asarray(keys, np.int64)
        times = np.asarray(times, np.int64)
        in_order = bool((times[1:] >= times[:-1]).all())
        by_time = np.arange(len(times)) if in_order else np.argsort(times, kind="stable")
        self._times: Ints = times[by_time]
        codes, self._keys = _codes(keys[by_time])
        # A key's code and the event's rank in time in one number: sorting by it is sorting by
        # key and time, and unlike key * span + time it cannot overflow.
        self._stride = len(times) + 1
        # Sorting 16-bit numbers is several times faster, and few keys are the rule.
        narrow = np.int16 if len(self._keys) <= np.iinfo(np.int16).max else np.int64
        by_place = np.argsort(codes.astype(narrow), kind="stable")
        self._places: Ints = codes[by_place].astype(np.int64) * self._stride + by_place
        self._rows: Ints = by_time[by_place]

    def __len__(self) -> int:
        return len(self._times)

    def first_after(
        self, keys: npt.ArrayLike, times: npt.ArrayLike, strictly: bool = False
    ) -> Ints:
        """The first event of each key at or after a moment (``strictly``: after it)."""
        side = "right" if strictly else "left"
        return self._find(keys, times, side, 0)

    def last_before(
        self, keys: npt.ArrayLike, times: npt.ArrayLike, strictly: bool = False
    ) -> Ints:
        """The last event of each key at or before a moment (``strictly``: before it)."""
        side = "left" if strictly else "right"
        return self._find(keys, times, side, -1)

    def _find(self, keys: npt.ArrayLike, times: npt.ArrayLike, side: str, step: int) -> Ints:
        keys = np.asarray(keys, np.int64)
        if len(self) == 0 or len(keys) == 0:
            return np.full(len(keys), NOT_FOUND, np.int64)
        codes = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[codes] == keys
        ranks = np.searchsorted(self._times, np.asarray(times, np.int64), side)  # type: ignore[call-overload]
        at = np.searchsorted(self._places, codes * self._stride + ranks) + step
        inside = known & (at >= 0) & (at < len(self))
        at = np.where(inside, at, 0)
        inside &= self._places[at] // self._stride == codes
        return np.where(inside, self._rows[at], NOT_FOUND)


def _codes(keys: Ints) -> tuple[Ints, Ints]:
    """The place of each event's key among all keys, and the keys in order."""
    if len(keys) == 0:
        return keys, keys
    least, most = int(keys.min()), int(keys.max())
    if most - least > 4 * len(keys) + (1 << 16):
        uniques, codes = np.unique(keys, return_inverse=True)
        return codes, uniques
    # A table by number is several times faster than sorting.
    apart = keys - least
    there = np.zeros(most - least + 1, np.int32)
    there[apart] = 1
    return (np.cumsum(there, dtype=np.int64) - 1)[apart], np.flatnonzero(there) + np.int64(least)


def take(values: npt.ArrayLike, rows: Ints, missing: int) -> Ints:
    """``values`` at ``rows``, and ``missing`` where a row is :data:`NOT_FOUND`."""
    values = np.asarray(values, np.int64)
    if len(values) == 0:
        return np.full(len(rows), missing, np.int64)
    return np.where(rows == NOT_FOUND, missing, values[rows])
