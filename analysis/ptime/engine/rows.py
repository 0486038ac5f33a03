"""Rows and words that both halves of the pass share: plain columns of one table in one window.

Compiled by mypyc together with its neighbours; interpreted it means the same. Numbers come as the
bytes of int64 columns, which ``librt.strings.read_i64_le`` reads at 1.2 ns an element. A list of
Python's numbers costs 30 ns and 28 bytes an element, a numpy array 40 ns a reading.
"""

from __future__ import annotations

from typing import Final

from librt.strings import read_i64_le
from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

__all__ = [
    "BEGINS",
    "BLOCK",
    "COLUMNS",
    "EDGE",
    "ENDS",
    "FITS",
    "LOSS_BEGINS",
    "LOSS_ENDS",
    "NEVER",
    "OUT_OF_REACH",
    "PSTATE",
    "REACHED",
    "RUNTIME",
    "SIGNAL",
    "SWITCH",
    "SYSCALL",
    "TASK",
    "THROTTLE_BEGINS",
    "THROTTLE_ENDS",
    "THROTTLE_NS",
    "WAITING",
    "WAKEUP",
    "Out",
    "Rows",
    "capped",
    "capped_product",
]

NEVER: Final[i64] = (1 << 62) - 1
"""Later than any row. A larger number is an object to mypyc, whatever its type, and each use of it
costs a call."""

FITS: Final[i64] = (1 << 62) - 1
"""Of two numbers up to it the sum is an i64."""

_FEW: Final[i64] = (1 << 31) - 1

LARGEST: Final[i64] = (1 << 63) - 1

TASK: Final = 0
BLOCK: Final = 1
SYSCALL: Final = 2
RUNTIME: Final = 3
PSTATE: Final = 4
WAITING: Final = 5
SWITCH: Final = 6
WAKEUP: Final = 7
SIGNAL: Final = 8
EDGE: Final = 9
"""Tables by number, in the order in which rows of one moment are taken: what a thread's block
means (BLOCK) is known before it leaves its CPU (SWITCH), which has the same time."""

COLUMNS: Final = (
    ("task", ("ts_ns", "tid", "pid", "kind")),
    ("block", ("ts_ns", "enter_ns", "tid", "p", "p_use", "why", "nr", "stack_id",
               "runq", "global_runq", "npidle", "nmspinning")),
    ("syscall", ("exit_ns", "enter_ns", "tid", "nr", "blocks", "ret", "blocked_ns")),
    ("runtime", ("ts_ns", "since_ns", "tid", "p", "target_tid", "kind", "reason",
                 "runq", "global_runq", "npidle", "nmspinning")),
    ("pstate", ("ts_ns", "since_ns", "pid", "p", "tid", "status")),
    ("waiting", ("ts_ns", "oldest_ns", "timer_ns", "pid", "runq_least", "runq", "global_runq",
                 "timers_due", "npidle", "nmspinning", "gomaxprocs", "unseen", "gcwaiting")),
    ("sched_switch", ("ts_ns", "prev_tid", "next_tid", "prev_state")),
    ("sched_wakeup", ("ts_ns", "tid")),
    ("signal", ("ts_ns", "tid", "pc", "kind")),
    ("edge", ("ts_ns", "pid", "kind", "value")),
)  # fmt: skip
"""Tables and the columns that the pass reads, in its own order; the first is the time. What a call
returned, and how long it was blocked, only the loop over episodes asks."""


# What an edge says; edges are no table of a trace, but made of the small ones and the manifest.
LOSS_BEGINS: Final = 0
"""From here on records were lost."""
LOSS_ENDS: Final = 1
REACHED: Final = 2
"""From here on the runtime of ``pid`` can be read."""
OUT_OF_REACH: Final = 3
BEGINS: Final = 4
"""The process, or its part in the capture, begins."""
ENDS: Final = 5
THROTTLE_BEGINS: Final = 6
THROTTLE_ENDS: Final = 7
"""A CPU quota took ``value`` ns from the process since the edge before."""

THROTTLE_NS: Final = 100_000_000
"""The period of a quota, as the kernel has it by default. A throttling is longer only where
somebody chose a longer period (up to 1 s): then what is told late beyond it has no cause."""


@mypyc_attr(acyclic=True)
class Rows:
    """The rows of one table in one window of time, in the order of time.

    Args:
        numbers: the bytes of the columns of :data:`COLUMNS` as int64, one after the other; null
            is -1. They lie in one object, since each object that is asked costs as much as the
            number in it.
        count: rows; each column has eight bytes for each.
    """

    def __init__(self, numbers: bytes, count: i64) -> None:
        self.numbers: bytes = numbers
        self.length: i64 = count * 8
        """Of a column, in bytes."""
        self.at: i64 = 0
        """Where the next row to be taken lies in each column."""
        self.ts_ns: i64 = NEVER
        """Its time."""
        self.seek(0)

    def seek(self, at: i64) -> None:
        """Go to a row by its place; behind the last one the time is :data:`NEVER`."""
        self.at = at
        self.ts_ns = read_i64_le(self.numbers, at) if at < self.length else NEVER

    def next(self) -> None:
        """Go to the row behind this one."""
        at = self.at + 8
        self.at = at
        self.ts_ns = read_i64_le(self.numbers, at) if at < self.length else NEVER

    def get(self, column: i64) -> i64:
        """The number in a column of the row that is next."""
        return read_i64_le(self.numbers, column * self.length + self.at)


def capped(total: i64, more: i64) -> i64:
    """The sum of two numbers that are not negative, at most what an i64 holds.

    The counts of a program whose memory was misread reach 31 bits each.
    """
    if total <= FITS and more <= FITS:
        return total + more
    return LARGEST if more > LARGEST - total else total + more


def capped_product(count: i64, ns: i64) -> i64:
    """The product of two numbers that are not negative, at most what an i64 holds."""
    if count <= _FEW and ns <= _FEW:
        return count * ns
    return LARGEST if ns > 0 and count > LARGEST // ns else count * ns


@mypyc_attr(acyclic=True)
class Out:
    """Rows of results, all columns of a row side by side: numpy takes them without a copy.

    Who puts a long row appends to :attr:`values` itself.
    """

    def __init__(self) -> None:
        self.values: vec[i64] = vec[i64]()

    def put(self, value: i64) -> None:
        """Add the number of the next column, or of the first one of the next row."""
        self.values = append(self.values, value)

    def take(self) -> memoryview:
        """What was put so far, as bytes of int64; there is nothing afterwards."""
        taken = self.values
        self.values = vec[i64]()
        return memoryview(taken)
