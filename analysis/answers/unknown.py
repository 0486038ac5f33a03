"""Which episodes lack a figure that they should have: one rule for every view that counts them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

__all__ = ["latency_unknown"]


def latency_unknown(kept: npt.ArrayLike, idle: npt.ArrayLike, told: npt.ArrayLike) -> Any:  # noqa: ANN401 - as they came
    """Whether the P-retake latency of each episode is unknown, and not just not there.

    P was given up (or nobody knows whether it was) and did not go idle, so a goroutine ran on it
    at some time, which the trace does not tell.

    Args:
        kept: whether the outcome is kept.
        idle: whether there is a ``pidle_ns``.
        told: whether there is a ``retake_ns``.
    """
    return ~(kept | idle | told)  # type: ignore[operator]
