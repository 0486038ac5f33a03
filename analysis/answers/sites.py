"""Where calls block: episodes by call site and system call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.answers.unknown import latency_unknown
from analysis.schema import Field, Frame
from analysis.stats.quantiles import group_quantile
from tracer.trace.schema import UNKNOWN

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

__all__ = ["SITES", "sites"]

SITES = Frame(
    "sites",
    "the episodes of one call site and system call",
    (
        Field("site", "function that made the call; null if no stack was captured", "str"),
        Field("file", "source file of the call there, of its most frequent stack", "str"),
        Field("line", "its line"),
        Field("syscall", "name of the system call", "str"),
        Field("runtime_wait", "whether the runtime itself sleeps in these calls", "bool"),
        Field("episodes", "how many there are"),
        Field("blocked_p50_ns", "median time that the call blocked"),
        Field("hold_p50_ns", "median hold"),
        Field("hold_p99_ns", "99th percentile of the hold"),
        Field("hold_sum_ns", "all holds together; null if it is known of no episode"),
        Field("retake_p50_ns", "median P-retake latency"),
        Field("harm_sum_ns", "all harm together; null if it is not known of most episodes"),
        Field("harm_unknown", "episodes whose harm is not known; they would add to the sum"),
        Field("hold_unknown", "episodes whose hold is not known; no figure of the hold has them"),
        Field(
            "retake_unknown",
            "episodes whose P was given up and did not go idle, and whose latency is not known",
        ),
        Field("kept", "episodes whose call returned with its P"),
        Field("harmful", "episodes with harm"),
        Field("needless", "handoffs for calls that returned before P ran anything else"),
    ),
)


def sites(episodes: pd.DataFrame, places: pd.DataFrame | None = None) -> pd.DataFrame:
    """Group episodes by call site and system call.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`; rows of a lost span are left out.
        places: the trace's stacks (:data:`analysis.answers.places.PLACES`); None for one site.

    Returns:
        A DataFrame of :data:`SITES`: the most harm first, then the most hold.
    """
    trusted = episodes[~episodes["lost_overlap"]].reset_index(drop=True)
    trusted = trusted.join(_place_of(trusted, places))
    keys = [trusted[name].astype(object) for name in ("site", "syscall", "runtime_wait")]
    keys = [key.where(key.notna(), None) for key in keys]
    by_call = trusted.groupby(keys, sort=True, dropna=False)
    sizes = by_call.size()
    columns = {
        "episodes": sizes,
        # A few that are known would pass for all of them.
        "harm_sum_ns": _sum(by_call["harm_ns"]).where(by_call["harm_ns"].count() * 2 >= sizes),
        "hold_sum_ns": _sum(by_call["hold_ns"]).where(by_call["hold_ns"].count() > 0),
        **{
            f"{name}_unknown": lacking.groupby(keys, dropna=False).sum()
            for name, lacking in (
                ("harm", trusted["harm_ns"].isna()),
                ("hold", trusted["hold_ns"].isna()),
                ("retake", _latency_unknown(trusted)),
            )
        },
        "kept": trusted["outcome"].eq("kept").groupby(keys, dropna=False).sum(),
        "line": by_call["line"].agg(_commonest),
        "file": by_call["file"].agg(_commonest),
    }
    for word in ("harmful", "needless"):
        columns[word] = trusted["class"].eq(word).groupby(keys, dropna=False).sum()
    for name, column, share in (
        ("blocked_p50_ns", "blocked_ns", 0.5),
        ("hold_p50_ns", "hold_ns", 0.5),
        ("hold_p99_ns", "hold_ns", 0.99),
        ("retake_p50_ns", "retake_ns", 0.5),
    ):
        columns[name] = group_quantile(by_call[column], share)
    rows = pd.DataFrame(columns).reset_index()
    # Unknown harm is no less than none: then the hold decides.
    worst = rows[["harm_sum_ns", "hold_sum_ns"]].fillna(0)
    rows = rows.loc[worst.sort_values([*worst], ascending=False, kind="stable").index]
    return SITES.finish_rows(rows)


def _sum(groups: SeriesGroupBy[Any, Any]) -> pd.Series[Any]:
    """The sum of each group; null where it is larger than a column holds."""
    wide = groups.agg(lambda values: float(values.astype("Float64").sum()))
    return groups.sum().where(wide.abs() < 2**63)


def _place_of(episodes: pd.DataFrame, places: pd.DataFrame | None) -> pd.DataFrame:
    """Call site, file and line of each episode, and whether the runtime waits, in their order."""
    wanted = ["site", "file", "line", "runtime_wait"]
    if places is None or len(places) == 0:
        nothing = dict.fromkeys(wanted, pd.Series(None, index=episodes.index, dtype=object))
        return pd.DataFrame(nothing).assign(runtime_wait=False)
    at = pd.Index(places["stack_id"]).get_indexer(pd.Index(episodes["stack_id"].fillna(UNKNOWN)))
    found = places[wanted].astype(object).take(np.maximum(at, 0)).reset_index(drop=True)
    found.loc[at < 0] = None
    return found.assign(runtime_wait=found["runtime_wait"].eq(True))


def _commonest(values: pd.Series[Any]) -> object:
    counts = values.dropna().value_counts()
    return counts.index[0] if len(counts) else None


def _latency_unknown(episodes: pd.DataFrame) -> pd.Series[bool]:
    kept = episodes["outcome"].eq("kept").fillna(False).astype(bool)
    unknown = latency_unknown(kept, episodes["pidle_ns"].notna(), episodes["retake_ns"].notna())
    return pd.Series(unknown, episodes.index)
