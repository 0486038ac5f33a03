"""Times, kept as they come in a memory that does not grow with their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reference_runtime.locks import new_lock

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["Latencies"]

EXACT: Final = 2048
"""Times below this are kept as they are, longer ones to 11 bits: an error below 0.05 %."""


class Latencies:
    """How often each time was seen, to three digits; a list of times to those who add to it.

    Goroutines may add on several threads.

    At most some 1,000 values between a power of two and the next are kept apart: 50,000 for all
    times from 1 ns to an hour, and in a real run a few hundred.
    """

    def __init__(self) -> None:
        self.lock: Final = new_lock()
        self.seen: dict[int, int] = {}
        """By time, ns: how often."""
        self.count: i64 = 0
        self.most_ns: i64 = 0
        """The longest, as it was."""

    def append(self, ns: i64) -> None:
        """A time; one below 0 (a clock that another CPU read) counts as 0."""
        ns = max(ns, 0)
        shift: i64 = 0
        top = ns
        while top >= EXACT:
            top >>= 1
            shift += 1
        if shift:
            # The middle of those that look alike.
            top = (top << shift) + (1 << (shift - 1))
        key = int(top)
        self.lock.acquire()
        self.count += 1
        self.most_ns = max(self.most_ns, ns)
        self.seen[key] = self.seen.get(key, 0) + 1
        self.lock.release()

    def __len__(self) -> int:
        return int(self.count)
