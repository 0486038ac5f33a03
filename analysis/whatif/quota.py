"""What CPU quotas took from a run. A replay has no quota, so it shows the run without them.

Example: 30 ms of each 100 ms were throttled. The scripts have the CPU time that goroutines used
and the time that calls blocked, but not the time in which a quota kept threads off the CPUs, and
the simulated machine has no quota. So the error of a replay is computed only from the episodes in
which the run was not throttled.

Table ``throttle`` has a span for each reading of the cgroups' counters (every 0.1 s), with the
throttled time in it, summed over CPUs. It is not known when in the span that was, so all of the
span counts as throttled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.windowed import plain
from analysis.windowed.asof import Ints
from analysis.windowed.columns import read
from tracer.trace.reader import Trace

__all__ = ["Quota", "quota_of"]


@dataclass(frozen=True)
class Quota:
    """The spans in which quotas took something from one process.

    Args:
        asked: whether anybody asked its cgroups; if not, nothing is known.
        begin_ns: begins of the spans, in order; end_ns: their ends; throttled_ns: what was taken
            in each, summed over CPUs.
    """

    asked: bool
    begin_ns: Ints
    end_ns: Ints
    throttled_ns: Ints

    def taken_ns(self, begin_ns: int, end_ns: int) -> int | None:
        """What was taken between two moments, with what lies across them; None if nobody asked."""
        if not self.asked:
            return None
        inside = (self.begin_ns < end_ns) & (self.end_ns > begin_ns)
        return int(self.throttled_ns[inside].sum())

    def touched_ns(self, begin_ns: int, end_ns: int) -> int:
        """How long the spans are between two moments."""
        own = np.minimum(self.end_ns, end_ns) - np.maximum(self.begin_ns, begin_ns)
        return int(np.maximum(own, 0).sum())

    def untouched(self, episodes: pd.DataFrame) -> pd.DataFrame:
        """Those episodes (:data:`analysis.schema.EPISODES`) that no span overlaps."""
        begins = plain.numbers(episodes["block_ns"])
        ends = np.maximum(begins, plain.numbers(episodes["exit_ns"]))
        ends = np.maximum(ends, plain.numbers(episodes["run_ns"]))
        # The spans do not overlap: so the last that begins before an episode's end is the one.
        last = np.searchsorted(self.begin_ns, ends, "right") - 1
        reaches = np.append(self.end_ns, np.iinfo(np.int64).min)
        return episodes[reaches[last] <= begins]


def quota_of(trace: Trace, pid: int | None) -> Quota:
    """What quotas took from process ``pid``; of None, and without table ``throttle``, nothing.

    Raises:
        PretakeError: the trace cannot be read.
    """
    rows = read(trace, "throttle", ["begin_ns", "end_ns", "throttled_ns", "pid"])
    own = rows["pid"] == (-1 if pid is None else pid)
    took = own & (rows["throttled_ns"] > 0)
    order = np.argsort(rows["begin_ns"][took], kind="stable")
    begins, ends, taken = (
        np.asarray(rows[name][took][order], np.int64)
        for name in ("begin_ns", "end_ns", "throttled_ns")
    )
    # Who made the trace may have let them overlap.
    return Quota(
        bool(own.any()), begins, np.maximum.accumulate(ends) if len(ends) else ends, taken
    )
