"""Which episodes lack a figure that they should have: one rule for every view that counts them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["latency_unknown"]


def latency_unknown(
    kept: npt.ArrayLike, idle: npt.ArrayLike, told: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Whether the P-retake latency of each episode is unknown, and not just not there.

    P was given up (or nobody knows whether it was) and did not go idle, so a goroutine ran on it
    at some time, which the trace does not tell.

    Args:
        kept: whether the outcome is kept.
        idle: whether there is a ``pidle_ns``.
        told: whether there is a ``retake_ns``.
    """
    there = np.array([kept, idle, told], bool)
    return np.logical_not(there.any(axis=0))
