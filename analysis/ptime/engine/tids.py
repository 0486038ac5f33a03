"""Threads by number, which all loops look up for each row.

A dict would need a Python number for each look-up; here it is one read of an array's page.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

__all__ = ["MAX_TID", "Tids"]

MAX_TID: Final = 1 << 23
"""The kernel numbers threads below 2^22 (PID_MAX_LIMIT, include/linux/threads.h)."""

PAGE_BITS: Final = 10
PAGE: Final = 1 << PAGE_BITS


class Tids:
    """Gives each thread a place: 0, 1, 2 and so on, in the order in which they are asked for.

    Example: of threads 511, 512 and again 511 the places are 0, 1 and 0. So what is kept of
    threads is a list, and a place that is as large as the list is a thread that is new.
    """

    def __init__(self) -> None:
        self.pages: vec[i64] = vec[i64]([-1] * (MAX_TID // PAGE))
        """Where the numbers of each page begin in :attr:`places`; -1 for a page without any."""
        self.places: vec[i64] = vec[i64]()
        self.odd: dict[int, int] = {}
        """Those whose numbers the kernel does not give; a trace may have any."""
        self.count: i64 = 0

    def place(self, tid: i64) -> i64:
        """The place of a thread."""
        if tid < 0 or tid >= MAX_TID:
            return self.place_of_odd(tid)
        begin = self.pages[tid >> PAGE_BITS]
        if begin >= 0:
            place = self.places[begin + (tid & (PAGE - 1))]
            if place >= 0:
                return place
        return self.new_place(tid)

    def new_place(self, tid: i64) -> i64:
        """The same of a thread that has none yet."""
        begin = self.pages[tid >> PAGE_BITS]
        if begin < 0:
            begin = len(self.places)
            self.pages[tid >> PAGE_BITS] = begin
            places = self.places
            left: i64 = PAGE
            while left > 0:
                places = append(places, -1)
                left -= 1
            self.places = places
        place = self.count
        self.places[begin + (tid & (PAGE - 1))] = place
        self.count += 1
        return place

    def place_of_odd(self, tid: i64) -> i64:
        """The same of a number that is no thread's."""
        place = self.odd.get(tid)
        if place is None:
            place = self.count
            self.odd[tid] = place
            self.count += 1
        return place
