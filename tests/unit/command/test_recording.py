"""What ``pretake watch`` makes of what the pass settles; who watches and writes is made up."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.answers.rules import parse_rule
from pretake.recording import Recording
from tracer.capture.dumps import Dumps
from tracer.capture.live import buckets_of, lower_ns
from tracer.capture.recorder import Recorder
from tracer.capture.watch import Watch
from tracer.trace.schema import UNKNOWN


@given(st.integers(1, 1 << 50))
def test_a_time_is_in_its_bucket(ns: int) -> None:
    (bucket,) = buckets_of(np.array([ns])).tolist()
    assert lower_ns(bucket) <= ns < lower_ns(bucket + 1) or ns == 1 == bucket + 1


class Triggers:
    def __init__(self) -> None:
        self.had: list[tuple[str, int | None]] = []

    def trigger(self, reason: str, event_ns: int | None = None) -> None:
        self.had.append((reason, event_ns))


def test_each_hold_is_counted_by_system_call_and_a_long_one_is_a_trigger() -> None:
    triggers = Triggers()
    rules = [parse_rule("hold_ns > 50 ms"), parse_rule("stw_ns > 1 s")]
    recording = Recording(
        cast(Watch, None), cast(Dumps, None), cast(Recorder, cast(Any, triggers)), rules
    )
    ends = [1_024, 1_280, 60_000_000, 2_048]
    holds = {
        "pid": np.full(4, 7),
        "block_ns": np.full(4, 5),
        "end_ns": np.array(ends) + 5,
        "nr": np.array([0, 0, 0, UNKNOWN]),
    }
    for _ in range(2):
        recording._settled("holds", holds)
    reads, faults = recording.holds["read"], recording.holds["page fault"]
    assert (reads.sum(), faults.sum()) == (6, 2)
    assert (reads[40], reads[41], faults[44]) == (2, 2, 2)
    assert recording.alarms == {"hold_ns > 50 ms": 2, "stw_ns > 1 s": 0}
    assert triggers.had == [("hold_ns > 50 ms (60 ms in process 7)", 5)] * 2
