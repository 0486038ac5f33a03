"""What each episode cost: its share of the lost P time, off the pass.

A P is lost while it neither runs nor is idle and work waits that no idle P and no spinning M takes
(:mod:`analysis.ptime.engine.sums`). What all Ps of a process lose together is shared out over
those that are lost at that instant, so that the harm of all episodes is never more than there was.
Example: 8 threads each hold a P in ``read`` for 10 ms and one goroutine waits: the harm of each is
1.25 ms. Only the time in which the thread was blocked is the call's; while it was awake again and
had no CPU, the CPU is what was missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.ptime.budget import run_pass
from analysis.schema import OUTCOMES
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["KEPT", "ShareBuilder", "Shares", "shares_of"]

KEPT = ("tid", "block_ns", "end", "least_ns", "most_ns", "awake_ns", "monitor_ns")
"""Columns of a hold that its episode asks for."""

_UNTOLD = 2
_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Shares:
    """What the pass settled of each hold, to be found by its thread and block."""

    holds: dict[str, Ints]
    lines: Timelines

    @classmethod
    def of(cls, holds: dict[str, Ints]) -> Shares:
        """The shares of these holds: columns :data:`KEPT`, in the order in which they ended."""
        return cls(holds, Timelines(holds["tid"], holds["block_ns"]))

    def fill(self, columns: dict[str, Ints]) -> None:
        """Fill in what the pass knows of episodes.

        Args:
            columns: plain columns of :data:`analysis.schema.EPISODES`, with tid, block_ns,
                outcome and hold_ns; gets harm_ns, harm_most_ns, awake_ns and monitor_wait_ns.
        """
        block_ns = columns["block_ns"]
        found = self.lines.first_after(columns["tid"], block_ns)
        same = take(self.holds["block_ns"], found, UNKNOWN) == block_ns
        told = same & (take(self.holds["end"], found, _UNTOLD) != _UNTOLD)
        found = np.where(told & (columns["outcome"] != UNKNOWN), found, NOT_FOUND)
        least = take(self.holds["least_ns"], found, UNKNOWN)
        most = take(self.holds["most_ns"], found, UNKNOWN)
        # An episode may end its hold sooner than the pass does: of a P taken back, only the return
        # of its taker is known. What no longer holds P does no harm.
        hold_ns = np.where(columns["hold_ns"] == UNKNOWN, _FOREVER, columns["hold_ns"])
        least, most = np.minimum(least, hold_ns), np.minimum(most, hold_ns)
        handed_off = columns["outcome"] == OUTCOMES.index("handed_off")
        # A least of nothing beside a most of something: whether there was any is not known.
        columns["harm_ns"] = np.where((least == 0) & (most > 0), UNKNOWN, least)
        columns["harm_most_ns"] = most
        columns["awake_ns"] = take(self.holds["awake_ns"], found, UNKNOWN)
        columns["monitor_wait_ns"] = take(self.holds["monitor_ns"], found, UNKNOWN)
        for name in ("harm_ns", "harm_most_ns", "awake_ns", "monitor_wait_ns"):
            columns[name] = np.where(handed_off, 0, columns[name])


class ShareBuilder:
    """Makes shares from the holds of a pass, window by window."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, Ints]] = []

    def add(self, holds: dict[str, Ints]) -> None:
        """Take the holds of one window."""
        self._pieces.append({name: holds[name] for name in KEPT})

    def result(self) -> Shares:
        """The shares of all holds so far."""
        nothing = np.empty(0, np.int64)
        holds = {
            name: np.concatenate([piece[name] for piece in self._pieces])
            if self._pieces
            else nothing
            for name in KEPT
        }
        return Shares.of(holds)


def shares_of(trace: Trace | None) -> Shares:
    """The shares of a trace's holds; none, where there is no trace.

    Raises:
        PretakeError: the trace cannot be read.
    """
    builder = ShareBuilder()
    if trace is not None:
        run_pass(trace, on_holds=builder.add)
    return builder.result()
