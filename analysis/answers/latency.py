"""Where the P-retake latency goes: its mean, as the sum of its parts.

Example: 2,447 calls had a mean latency of 156 µs; 62 µs of it passed until sysmon's thread was on
a CPU, 80 µs until it had taken P, 14 µs on P's way to the next goroutine. The parts are those of
an episode (:data:`analysis.schema.PARTS`), and each nanosecond of a latency is in exactly one of
them; so their sums are the sum of the latencies, to the nanosecond. A moment that the runtime
does not tell gives its part 0, and the time before it belongs to the next part.

What a latency consists of says where the time goes, and not why: that is for
:mod:`analysis.answers.factors`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.answers.places import call_sites
from analysis.ptime.episodes import episode_windows
from analysis.schema import PARTS, Field, Frame
from analysis.stats.quantiles import exact_sum
from analysis.windowed import plain
from analysis.windowed.windows import WINDOW_ROWS
from tracer.trace.reader import Trace

__all__ = ["LATENCY", "decompose", "decompose_trace"]

LATENCY = Frame(
    "latency",
    "one part of the P-retake latency, of all calls or of those of one site and reason",
    (
        Field("site", "the site: its system call and call site; null for all together", "str"),
        Field("reason", "why P was taken or handed off; null if not known, or for all", "str"),
        Field("part", "name of the part: a column of episodes", "str"),
        Field("meaning", "what it is", "str"),
        Field("episodes", "episodes whose latency is known"),
        Field("sum_ns", "the part of all of them; over all parts it is the sum of latencies"),
        Field("mean_ns", "the same for each episode", "float"),
        Field("share", "share of the sum of all parts; null if that is 0", "float"),
    ),
)

_NAMES = tuple(name for _, name, _ in PARTS)
_MEANINGS = {name: meaning for _, name, meaning in PARTS}
_COLUMNS = ("syscall", "stack_id", "reason", "retake_ns", "lost_overlap", *_NAMES)

_Group = tuple[str | None, str | None]


def decompose(episodes: pd.DataFrame, places: pd.DataFrame | None = None) -> pd.DataFrame:
    """The parts of the mean latency.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`.
        places: the trace's stacks by name (:data:`analysis.answers.places.PLACES`).

    Returns:
        A DataFrame of :data:`LATENCY`: all calls first, then each site and reason, that with the
        most latency first. Empty where no latency is known.
    """
    return _decompose([episodes], places)


def decompose_trace(
    trace: Trace, places: pd.DataFrame | None = None, window_rows: int = WINDOW_ROWS
) -> pd.DataFrame:
    """The same of a trace that may be larger than memory.

    Raises:
        PretakeError: the trace cannot be read.
    """
    return _decompose(episode_windows(trace, window_rows, columns=_COLUMNS), places)


def _decompose(pieces: Iterable[pd.DataFrame], places: pd.DataFrame | None) -> pd.DataFrame:
    sums: dict[_Group, list[int]] = {}
    for piece in pieces:
        known = piece[piece["retake_ns"].notna() & ~piece["lost_overlap"]]
        keys = [call_sites(known, places), known["reason"].astype(object).fillna("")]
        for (site, reason), own in known.groupby(keys, sort=False):
            row = [len(own), *(exact_sum(plain.numbers(own[n].fillna(0))) for n in _NAMES)]
            group = (str(site), str(reason) or None)
            before = sums.get(group, [0] * len(row))
            sums[group] = [a + b for a, b in zip(before, row, strict=True)]
    order = sorted(sums.items(), key=lambda item: (-sum(item[1][1:]), str(item[0])))
    total = [sum(column) for column in zip(*sums.values(), strict=True)]
    groups: list[tuple[_Group, list[int]]] = [((None, None), total), *order] if sums else []
    rows = [
        (site, reason, part, _MEANINGS[part], count, ns, ns / count, ns / whole)
        for (site, reason), (count, *parts) in groups
        for whole in [sum(parts) or np.nan]
        for part, ns in zip(_NAMES, parts, strict=True)
    ]
    columns = zip(*rows, strict=True) if rows else ((),) * len(LATENCY.names)
    return LATENCY.finish(
        {
            field.name: np.array(values, object if field.type == "str" else np.float64)
            if field.type != "int"
            else np.array(values, np.int64)
            for field, values in zip(LATENCY.fields, columns, strict=True)
        }
    )
