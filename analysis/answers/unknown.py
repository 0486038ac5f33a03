"""Which episodes lack a figure that they should have: one rule for every view that counts them."""

from __future__ import annotations

import pandas as pd

__all__ = ["latency_unknown"]


def latency_unknown(episodes: pd.DataFrame) -> pd.Series[bool]:
    """Whether the P-retake latency of each episode is unknown, and not just not there.

    P was given up (or nobody knows whether it was) and did not go idle, so a goroutine ran on it
    at some time, which the trace does not tell.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`, with ``outcome``, ``pidle_ns`` and
            ``retake_ns``.
    """
    gone = episodes["outcome"].ne("kept").fillna(True) & episodes["pidle_ns"].isna()
    return (gone & episodes["retake_ns"].isna()).astype(bool)
