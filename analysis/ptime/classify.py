"""What an episode means: the rule for each class, in one place.

The rules are asked from the top; the first that holds is the episode's class.

============  ===================================================================================
unknown       records were lost meanwhile, or it is not known how the hold ended, or its harm is
              not known, or (handed off) it is not known whether P ran on
needless      P was handed off for a call that returned before P ran anything else: the handoff
              was paid for and bought nothing
harmful       ``harm_ns`` is more than 0: work waited for this P and nobody could take it
kept          the call returned, or the trace ended, with P still held, and nothing was harmed
deliberate    P was retaken, and at the block its queue was empty and a P was idle or an M
              spinning: the case in which Go's sysmon leaves a P alone on purpose
harmless      everything else: P was held and nothing waited for it, or it was handed off in time
============  ===================================================================================

Only ``harmful`` and ``needless`` cost something: the first goroutines' time, the second the
handoff's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.schema import CLASSES, OUTCOMES
from analysis.windowed.asof import Ints
from tracer.trace.schema import UNKNOWN

__all__ = ["classify"]

_RETAKEN = OUTCOMES.index("retaken")
_HANDED_OFF = OUTCOMES.index("handed_off")
_KEPT = OUTCOMES.index("kept")


def classify(columns: Mapping[str, np.ndarray]) -> Ints:
    """The class of each episode, as an index into :data:`analysis.schema.CLASSES`.

    Args:
        columns: plain columns (null is ``UNKNOWN``) of :data:`analysis.schema.EPISODES`:
            outcome, harm_ns, lost_overlap, exit_ns, run_ns, acquirep_ns, pidle_ns, runq,
            npidle, nmspinning.
    """
    outcome, harm, exit_ns = columns["outcome"], columns["harm_ns"], columns["exit_ns"]
    handed_off = outcome == _HANDED_OFF
    went_on = np.where(columns["run_ns"] != UNKNOWN, columns["run_ns"], columns["acquirep_ns"])
    idled = columns["pidle_ns"] != UNKNOWN
    untold = handed_off & (went_on == UNKNOWN) & ~idled
    could_take = (columns["npidle"] > 0) | (columns["nmspinning"] > 0)
    rules = (
        (
            "unknown",
            (columns["lost_overlap"] != 0) | (outcome == UNKNOWN) | (harm == UNKNOWN) | untold,
        ),
        ("needless", handed_off & (exit_ns != UNKNOWN) & (idled | (went_on > exit_ns))),
        ("harmful", harm > 0),
        ("kept", outcome == _KEPT),
        ("deliberate", (outcome == _RETAKEN) & (columns["runq"] == 0) & could_take),
    )
    codes = [np.int64(CLASSES.index(word)) for word, _ in rules]
    return np.select([rule for _, rule in rules], codes, np.int64(CLASSES.index("harmless")))
