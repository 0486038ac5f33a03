"""Where calls block: episodes by system call."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.schema import Field, Frame
from tracer.schema import UNKNOWN

__all__ = ["SITES", "sites"]

SITES = Frame(
    "sites",
    "the episodes of one system call",
    (
        Field("syscall", "name of the system call", "str"),
        Field("episodes", "how many there are"),
        Field("blocked_p50_ns", "median time that the call blocked"),
        Field("hold_p50_ns", "median hold"),
        Field("hold_p99_ns", "99th percentile of the hold"),
        Field("retake_p50_ns", "median P-retake latency"),
        Field("harm_sum_ns", "all harm together; null where no episode's is known"),
        Field("kept", "episodes whose call returned with its P"),
        Field("harmful", "episodes with harm"),
        Field("needless", "handoffs that bought nothing"),
    ),
)


def sites(episodes: pd.DataFrame) -> pd.DataFrame:
    """Group episodes by system call.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`; rows of a lost span are left out.

    Returns:
        A DataFrame of :data:`SITES`: the most harm first, then the most hold.
    """
    trusted = episodes[~episodes["lost_overlap"]]
    by_call = trusted.groupby(trusted["syscall"].astype(object), sort=True)
    columns = {
        "episodes": by_call.size(),
        "harm_sum_ns": by_call["harm_ns"].sum(min_count=1),
        "kept": trusted["outcome"].eq("kept").groupby(trusted["syscall"].astype(object)).sum(),
    }
    for word in ("harmful", "needless"):
        columns[word] = trusted["class"].eq(word).groupby(trusted["syscall"].astype(object)).sum()
    for name, column, share in (
        ("blocked_p50_ns", "blocked_ns", 0.5),
        ("hold_p50_ns", "hold_ns", 0.5),
        ("hold_p99_ns", "hold_ns", 0.99),
        ("retake_p50_ns", "retake_ns", 0.5),
    ):
        found = by_call[column].quantile(share, interpolation="lower")
        columns[name] = found.astype("Float64").round()
    rows = pd.DataFrame(columns).assign(
        hold_sum=by_call["hold_ns"].sum(), syscall=lambda table: table.index
    )
    rows = rows.sort_values(
        ["harm_sum_ns", "hold_sum"], ascending=False, na_position="last", kind="stable"
    )
    return SITES.finish(
        {
            name: rows[name].to_numpy(object)
            if name == "syscall"
            else rows[name].astype("Int64").to_numpy(np.int64, na_value=UNKNOWN)
            for name in SITES.names
        }
    )
