"""Rows and words that both halves of the pass share: plain columns of one table in one window.

Compiled by mypyc together with its neighbours; interpreted it means the same. Numbers come as the
bytes of int64 columns, which ``librt.strings.read_i64_le`` reads at 1.2 ns an element. A list of
Python's numbers costs 30 ns and 28 bytes an element, a numpy array 40 ns a reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import read_i64_le
from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BEGINS",
    "BLOCK",
    "COLUMNS",
    "EDGE",
    "EMPTY",
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
    ("syscall", ("exit_ns", "enter_ns", "tid", "nr", "blocks")),
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
"""Tables and the columns that the pass reads, in its own order; the first is the time."""


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
        columns: the bytes of each int64 column of :data:`COLUMNS`, null as -1.
        count: rows; each column has eight bytes for each.
    """

    def __init__(self, columns: Sequence[bytes], count: i64) -> None:
        self.columns: list[bytes] = list(columns)
        self.count: i64 = count
        self.at: i64 = 0
        """The next row to be taken."""
        self.ts_ns: i64 = NEVER
        """Its time."""
        self.seek(0)

    def seek(self, row: i64) -> None:
        """Go to a row; behind the last one the time is :data:`NEVER`."""
        self.at = row
        self.ts_ns = read_i64_le(self.columns[0], row * 8) if row < self.count else NEVER

    def get(self, column: i64) -> i64:
        """The number in a column of the row that is next."""
        return read_i64_le(self.columns[column], self.at * 8)


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


EMPTY: Final = Rows([b""], 0)


@mypyc_attr(acyclic=True)
class Out:
    """One column of results: numpy takes it without a copy."""

    def __init__(self) -> None:
        self.values: vec[i64] = vec[i64]()

    def put(self, value: i64) -> None:
        """Add a number at the end."""
        self.values = append(self.values, value)

    def take(self) -> memoryview:
        """What was put so far, as bytes of int64; the column is empty afterwards."""
        taken = self.values
        self.values = vec[i64]()
        return memoryview(taken)
