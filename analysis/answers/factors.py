"""What the P-retake latency is correlated with: a table of factors and effect sizes.

A factor is one number for each episode. Some were known at the block, such as the length of a
run queue. Others are parts of the latency itself, such as how long the next M's thread waited
for a CPU. The effect is Spearman's rank correlation with the latency: it asks only whether one
grows with the other, so a few very long latencies do not decide it. The interval is Fisher's
with the variance of Bonett and Wright (Psychometrika 65, 2000). Episodes near in time resemble
each other, so the true interval is wider. A correlation is not a cause.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.ptime.episodes import episode_windows
from analysis.schema import Field, Frame
from analysis.windowed import plain
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from analysis.windowed.memory import LastRows
from analysis.windowed.windows import WINDOW_ROWS, windows
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["FACTORS", "factors"]

_MEANINGS = {
    "runq": "goroutines in the held P's queue at the block",
    "global_runq": "goroutines in the global queue at the block",
    "npidle": "idle Ps at the block",
    "nmspinning": "Ms looking for work at the block",
    "ps_held": "other Ps held by blocked threads at that moment",
    "monitor_sleep_ns": "from the block until the thread that took P was on a CPU",
    "cpu_wait_ns": "CPU contention: how long the last thread that got a CPU before the block had "
    "waited for it",
    "m_cpu_wait_ns": "wake-up latency of the thread that got P",
    "m_migrated": "whether that thread woke on another CPU than the one it last ran on",
}

FACTORS = Frame(
    "factors",
    "one factor, and how P-retake latency is correlated with it",
    (
        Field("factor", "name of the factor", "str"),
        Field("meaning", "what it is", "str"),
        Field("episodes", "episodes in which the factor and the latency are known"),
        Field("effect", "Spearman's rank correlation with the latency, -1 to 1", "float"),
        Field("effect_low", "lower end of its 95 % interval", "float"),
        Field("effect_high", "upper end", "float"),
        Field(
            "low_p50_ns",
            "median latency of the third of the episodes with the lowest factor",
        ),
        Field("high_p50_ns", "median latency of the third with the highest factor"),
    ),
)

_Z_95 = 1.959963984540054
_FEWEST = 10
"""Fewer episodes than these tell nothing: the effect is null."""


_COLUMNS = (
    *("tid", "retake_ns", "lost_overlap", "block_ns", "hold_ns", "runner_tid"),
    *("runq", "global_runq", "npidle", "nmspinning"),
    *("m_wake_ns", "m_oncpu_ns", "part_notice_ns"),
)
"""What the factors need of an episode."""
_READ = {"sched_switch": ("ts_ns", "next_tid", "cpu"), "sched_wakeup": ("ts_ns", "tid")}


def factors(
    trace: Trace, found: pd.DataFrame | None = None, window_rows: int = WINDOW_ROWS
) -> pd.DataFrame:
    """Correlate a trace's P-retake latencies with what went on meanwhile.

    The trace may be larger than memory: a few numbers of each episode are kept, and no switch.

    Args:
        trace: the trace.
        found: its episodes, if they are at hand.
        window_rows: rows to hold in memory at once, about; changes nothing in the result.

    Returns:
        A DataFrame of :data:`FACTORS`: the strongest effect first, unknown ones last.

    Raises:
        PretakeError: the trace cannot be read.
    """
    pieces = (
        [found] if found is not None else episode_windows(trace, window_rows, columns=_COLUMNS)
    )
    rows = pd.concat([_plain_episodes(piece) for piece in pieces], ignore_index=True)
    rows = rows.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)
    told = rows[(rows["retake_ns"] != UNKNOWN) & ~rows["lost_overlap"]].reset_index(drop=True)
    others = _others_held(rows, told["block_ns"].to_numpy(np.int64))
    del rows
    cpu_wait_ns, migrated = _of_threads(trace, told, window_rows)
    seen_cpu = (told["m_oncpu_ns"] != UNKNOWN) & (told["m_wake_ns"] != UNKNOWN)
    observed = pd.DataFrame(
        {
            **{n: told[n] for n in ("retake_ns", "runq", "global_runq", "npidle", "nmspinning")},
            "ps_held": others,
            "monitor_sleep_ns": told["part_notice_ns"],
            "cpu_wait_ns": cpu_wait_ns,
            "m_cpu_wait_ns": np.where(seen_cpu, told["m_oncpu_ns"] - told["m_wake_ns"], UNKNOWN),
            "m_migrated": migrated,
        }
    )
    del told
    return correlate(observed)


def _plain_episodes(episodes: pd.DataFrame) -> pd.DataFrame:
    """The columns that are needed, plain, in the width they have in a trace."""
    wide = {name for name in _COLUMNS if name.endswith("_ns")}
    columns = {
        name: episodes[name].to_numpy(np.int64 if name in wide else np.int32, na_value=UNKNOWN)
        for name in _COLUMNS
        if name != "lost_overlap"
    }
    return pd.DataFrame(columns).assign(lost_overlap=episodes["lost_overlap"].to_numpy(bool))


def _of_threads(trace: Trace, told: pd.DataFrame, window_rows: int) -> tuple[Ints, Ints]:
    """Of each episode: how long the last thread to get a CPU before it had waited for that, and
    whether the thread that P went on with came onto another CPU."""
    block_ns = told["block_ns"].to_numpy(np.int64)
    by_oncpu = told["m_oncpu_ns"].sort_values(kind="stable")
    oncpu_ns, oncpu_rows = by_oncpu.to_numpy(np.int64), by_oncpu.index.to_numpy()
    runners = told["runner_tid"].to_numpy(np.int64)
    waited, migrated = np.full((2, len(told)), UNKNOWN, np.int64)
    last_in, sleeping = LastRows("next_tid"), plain.empty("sched_wakeup", ("ts_ns", "tid"))
    last_wait = UNKNOWN
    begun = moved = 0
    for window in windows(trace, _READ, window_rows):
        # In the order of time, both of them: each window has the next ones.
        until = int(np.searchsorted(block_ns, window.until_ns, "right"))
        seen = int(np.searchsorted(oncpu_ns, window.until_ns, "right"))
        switches = window.tables["sched_switch"]
        wakeups = pd.concat([sleeping, window.tables["sched_wakeup"]], ignore_index=True)
        waits, sleeping = _cpu_waits(switches, wakeups)
        at = _last_at_or_before(waits["ts_ns"].to_numpy(np.int64), block_ns[begun:until])
        waited[begun:until] = take(waits["wait_ns"], at, last_wait)
        last_wait = int(waits["wait_ns"].iloc[-1]) if len(waits) else last_wait
        rows = oncpu_rows[moved:seen]
        known = last_in.extend(switches)
        migrated[rows] = _migrated(known, runners[rows], oncpu_ns[moved:seen])
        begun, moved = until, seen
    waited[begun:] = last_wait
    rows = oncpu_rows[moved:]
    known = last_in.extend(plain.empty("sched_switch", _READ["sched_switch"]))
    migrated[rows] = _migrated(known, runners[rows], oncpu_ns[moved:])
    return waited, migrated


def correlate(observed: pd.DataFrame) -> pd.DataFrame:
    """Effect sizes out of one column for each factor and ``retake_ns``; null is ``UNKNOWN``."""
    rows = []
    for name, meaning in _MEANINGS.items():
        known = observed[observed[name] != UNKNOWN]
        row = {"factor": name, "meaning": meaning, "episodes": len(known)}
        rows.append({**row, **_effect(known[name], known["retake_ns"])})
    table = pd.DataFrame(rows)
    table = table.assign(strength=table["effect"].abs()).sort_values(
        "strength", ascending=False, na_position="last", kind="stable"
    )
    return FACTORS.finish({name: table[name].to_numpy() for name in FACTORS.names})


def _effect(factor: pd.Series[int], latency: pd.Series[int]) -> dict[str, float]:
    count = len(factor)
    nothing = {"effect": np.nan, "effect_low": np.nan, "effect_high": np.nan}
    thirds: dict[str, float] = {"low_p50_ns": UNKNOWN, "high_p50_ns": UNKNOWN}
    # A factor that never changes goes with nothing.
    if count < _FEWEST or factor.nunique() < 2 or latency.nunique() < 2:
        return {**nothing, **thirds}
    rho = float(np.corrcoef(factor.rank(), latency.rank())[0, 1])
    error = np.sqrt((1 + rho**2 / 2) / (count - 3))
    middle = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    order = factor.rank(method="first")
    low, high = latency[order <= count / 3], latency[order > count - count / 3]
    return {
        "effect": rho,
        "effect_low": float(np.tanh(middle - _Z_95 * error)),
        "effect_high": float(np.tanh(middle + _Z_95 * error)),
        "low_p50_ns": int(low.quantile(0.5, "lower")),
        "high_p50_ns": int(high.quantile(0.5, "lower")),
    }


def _cpu_waits(switches: pd.DataFrame, wakeups: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How long each thread that was woken waited until it was on a CPU; and who still waits."""
    lines = Timelines(switches["next_tid"], switches["ts_ns"])
    then = lines.first_after(wakeups["tid"], wakeups["ts_ns"])
    on_cpu = take(switches["ts_ns"], then, UNKNOWN)
    waits = pd.DataFrame({"ts_ns": on_cpu, "wait_ns": on_cpu - wakeups["ts_ns"].to_numpy()})
    # A thread woken twice before it ran waited since the first time.
    waits = waits[on_cpu != UNKNOWN].sort_values(["ts_ns", "wait_ns"], kind="stable")
    still = wakeups[on_cpu == UNKNOWN].drop_duplicates("tid")
    return pd.DataFrame(waits.drop_duplicates("ts_ns", keep="last")), still


def _last_at_or_before(times: Ints, moments: Ints) -> Ints:
    found = np.searchsorted(times, moments, "right") - 1
    return np.where(found < 0, NOT_FOUND, found)


def _others_held(episodes: pd.DataFrame, moments: Ints) -> Ints:
    """How many Ps were held by blocked threads at each moment, besides the one in question."""
    held = episodes[episodes["hold_ns"] > 0]
    begin = np.sort(held["block_ns"].to_numpy(np.int64))
    end = np.sort((held["block_ns"] + held["hold_ns"]).to_numpy(np.int64))
    open_ = np.searchsorted(begin, moments, "right") - np.searchsorted(end, moments, "right")
    return np.asarray(np.maximum(open_ - 1, 0), np.int64)


def _migrated(switches: pd.DataFrame, tids: Ints, on_cpu_ns: Ints) -> Ints:
    """Whether each thread came onto another CPU than at its switch before."""
    lines = Timelines(switches["next_tid"], switches["ts_ns"])
    now = lines.last_before(tids, on_cpu_ns)
    before = lines.last_before(tids, on_cpu_ns, strictly=True)
    cpu = switches["cpu"]
    here, there = take(cpu, now, UNKNOWN), take(cpu, before, UNKNOWN)
    known = (here != UNKNOWN) & (there != UNKNOWN) & (on_cpu_ns != UNKNOWN)
    return np.where(known, (here != there).astype(np.int64), UNKNOWN)
