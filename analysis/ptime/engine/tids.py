"""Threads by number, which all loops look up for each row.

A dict would need a Python number for each look-up; here it is one read of an array's page.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

__all__ = ["MAX_TID", "Tids"]

MAX_TID: Final = 1 << 23
"""The kernel numbers threads below 2^22 (PID_MAX_LIMIT, include/linux/threads.h)."""

PAGE: Final = 1024


class Tids:
    """Gives each thread a place: 0, 1, 2 and so on, in the order in which they are asked for.

    Example: of threads 511, 512 and again 511 the places are 0, 1 and 0. So what is kept of
    threads is a list, and a place that is as large as the list is a thread that is new.
    """

    def __init__(self) -> None:
        self.pages: list[vec[i64]] = []
        self.odd: dict[int, int] = {}
        """Those whose numbers the kernel does not give; a trace may have any."""
        self.count: i64 = 0

    def place(self, tid: i64) -> i64:
        """The place of a thread."""
        if tid < 0 or tid >= MAX_TID:
            return self.place_of_odd(tid)
        number = tid // PAGE
        while len(self.pages) <= number:
            self.pages.append(vec[i64]())
        page = self.pages[number]
        if len(page) == 0:
            page = vec[i64]([-1] * PAGE)
            self.pages[number] = page
        place = page[tid % PAGE]
        if place < 0:
            place = self.count
            page[tid % PAGE] = place
            self.pages[number] = page
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
