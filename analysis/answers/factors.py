"""What was so before a block, and whether the P-retake latency goes with it.

A factor is one number of each episode that was known when the thread blocked, such as the length
of a run queue or how long sysmon had slept last. What happened after the block is no factor: it is
a part of the latency itself (:mod:`analysis.answers.latency`), and would always be the first.

The effect is Spearman's rank correlation with the latency, among the calls of one site whose P was
taken for one reason: otherwise a site with long queues and another way of calling would look like
an effect of the queue. It is tested by shifting time (:mod:`analysis.stats.shift`), and all tests
of a trace together are corrected by Holm's method. A correlation is not a cause.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.answers.places import call_sites
from analysis.ptime.episodes import episode_windows
from analysis.ptime.setting import pass_setting
from analysis.schema import Field, Frame
from analysis.stats.quantiles import quantiles
from analysis.stats.shift import FEWEST, shift_test
from analysis.stats.verdict import holm
from analysis.windowed import plain
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from analysis.windowed.columns import WINDOW_ROWS
from analysis.windowed.windows import windows
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["FACTORS", "SHOWN", "correlate", "factors", "observe"]

_MEANINGS = {
    "runq": "goroutines in the held P's queue at the block",
    "global_runq": "goroutines in the global queue at the block",
    "npidle": "idle Ps at the block",
    "nmspinning": "Ms looking for work at the block",
    "ps_held": "other Ps held by blocked threads at the block",
    "monitor_slept_ns": "length of the last sleep of sysmon's thread that was over at the block",
    "monitor_asleep_ns": "how long sysmon's thread had been asleep at the block; 0 if it was not",
    "cpu_wait_ns": "CPU contention: how long the last thread that got a CPU before the block had "
    "waited for it",
    "moved": "whether the thread blocked on another CPU than at its block before",
}

FACTORS = Frame(
    "factors",
    "one factor of the calls of one site and reason, and whether P-retake latency goes with it",
    (
        Field("site", "the site: its system call, and its call site if stacks are known", "str"),
        Field("reason", "why P was taken or handed off; null if not known", "str"),
        Field("factor", "name of the factor", "str"),
        Field("meaning", "what it is", "str"),
        Field("episodes", "episodes in which the factor and the latency are known"),
        Field(
            "effect",
            "Spearman's rank correlation with the latency, -1 to 1; null if the factor or the "
            f"latency hardly ever changes, or with fewer than {FEWEST} episodes",
            "float",
        ),
        Field("effect_low", "lower end of its 95 % interval", "float"),
        Field("effect_high", "upper end", "float"),
        Field("p", "how often chance alone makes such an effect, by shifts of time", "float"),
        Field("p_holm", "the same, corrected for all tests of the trace", "float"),
        Field(
            "low_p50_ns",
            "median latency of the third of the episodes with the lowest factor",
        ),
        Field("high_p50_ns", "median latency of the third with the highest factor"),
    ),
)

_RARE = 0.01
"""A factor that is otherwise in less than this share of the calls counts as one that never
changes."""

SHOWN = 0.05
"""An effect whose ``p_holm`` is below this is told as one."""

_GROUPS = 12
"""Sites and reasons that are looked at, those with the most episodes: each more makes the
correction harder for the others."""

_COLUMNS = (
    *("tid", "cpu", "retake_ns", "lost_overlap", "block_ns", "hold_ns"),
    *("runq", "global_runq", "npidle", "nmspinning", "syscall", "stack_id", "reason"),
)
"""What the factors need of an episode."""
_TEXTS = ("lost_overlap", "syscall", "stack_id", "reason")
_READ = {
    "sched_switch": ("ts_ns", "prev_tid", "next_tid", "prev_state"),
    "sched_wakeup": ("ts_ns", "tid"),
}
_BLOCKED = TABLES["sched_switch"].column("prev_state").code("blocked")


def factors(
    trace: Trace,
    found: pd.DataFrame | None = None,
    window_rows: int = WINDOW_ROWS,
    places: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Correlate a trace's P-retake latencies with what was so before each block.

    The trace may be larger than memory: a few numbers of each episode are kept, and no switch.

    Args:
        trace: the trace.
        found: its episodes, if they are at hand.
        window_rows: rows to hold in memory at once, about; changes nothing in the result.
        places: its stacks by name (:data:`analysis.answers.places.PLACES`), for the call sites.

    Returns:
        A DataFrame of :data:`FACTORS`: what is shown first, by the size of the effect; then the
        others, and what is not known last.

    Raises:
        PretakeError: the trace cannot be read.
    """
    return correlate(observe(trace, found, window_rows, places))


def observe(
    trace: Trace,
    found: pd.DataFrame | None = None,
    window_rows: int = WINDOW_ROWS,
    places: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What :func:`correlate` takes: each call's latency and factors, in the order of time.

    Raises:
        PretakeError: the trace cannot be read.
    """
    pieces = (
        [found] if found is not None else episode_windows(trace, window_rows, columns=_COLUMNS)
    )
    plain_pieces = [_plain_episodes(piece, places) for piece in pieces]
    groups = {
        name: pd.api.types.union_categoricals([piece[name] for piece in plain_pieces])
        for name in ("site", "reason")
    }
    dropped = [piece.drop(columns=list(groups)) for piece in plain_pieces]
    rows = pd.concat(dropped, ignore_index=True).assign(**groups)
    rows = rows.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)
    rows["moved"] = _moved(rows)
    told = rows[(rows["retake_ns"] != UNKNOWN) & ~rows["lost_overlap"]].reset_index(drop=True)
    block_ns = told["block_ns"].to_numpy(np.int64)
    others = _others_held(rows, block_ns)
    del rows
    waited, slept, asleep = _of_threads(trace, told, window_rows)
    return told.assign(
        ps_held=others,
        monitor_slept_ns=slept,
        monitor_asleep_ns=asleep,
        cpu_wait_ns=waited,
    )


def _plain_episodes(episodes: pd.DataFrame, places: pd.DataFrame | None) -> pd.DataFrame:
    """The columns that are needed, plain, in the width they have in a trace."""
    wide = {name for name in _COLUMNS if name.endswith("_ns")}
    columns = {
        name: episodes[name].to_numpy(np.int64 if name in wide else np.int32, na_value=UNKNOWN)
        for name in _COLUMNS
        if name not in _TEXTS
    }
    return pd.DataFrame(columns).assign(
        lost_overlap=episodes["lost_overlap"].to_numpy(bool),
        site=pd.Categorical(call_sites(episodes, places)),
        reason=episodes["reason"].array,
    )


def _moved(rows: pd.DataFrame) -> Ints:
    """Whether each thread blocked on another CPU than at its block before."""
    cpu = rows["cpu"]
    before = cpu.groupby(rows["tid"]).shift(fill_value=UNKNOWN)
    known = (cpu != UNKNOWN) & (before != UNKNOWN)
    return np.where(known, (cpu != before).astype(np.int64), UNKNOWN)


def _of_threads(trace: Trace, told: pd.DataFrame, window_rows: int) -> tuple[Ints, Ints, Ints]:
    """Of each episode: how long the last thread to get a CPU before it had waited for that; how
    long sysmon's thread had slept last, and for how long it was asleep now."""
    block_ns = told["block_ns"].to_numpy(np.int64)
    setting = pass_setting(trace)
    tids = told["tid"].to_numpy(np.int64)
    owner = {tid: setting.monitors.get(pid, UNKNOWN) for tid, pid in setting.threads.items()}
    only = setting.monitors.get(setting.only_pid, UNKNOWN)
    monitors = np.array([owner.get(tid, only) for tid in tids.tolist()], np.int64)
    waited, slept, asleep = np.full((3, len(told)), UNKNOWN, np.int64)
    sleeping = plain.empty("sched_wakeup", ("ts_ns", "tid"))
    rest = _Sleeps(set(setting.monitors.values()))
    last_wait = UNKNOWN
    begun = 0
    for window in windows(trace, _READ, window_rows):
        # In the order of time: each window has the next ones.
        until = int(np.searchsorted(block_ns, window.until_ns, "right"))
        own = slice(begun, until)
        switches = window.tables["sched_switch"]
        wakeups = pd.concat([sleeping, window.tables["sched_wakeup"]], ignore_index=True)
        waits, sleeping = _cpu_waits(switches, wakeups)
        at = _last_at_or_before(waits["ts_ns"].to_numpy(np.int64), block_ns[own])
        waited[own] = take(waits["wait_ns"], at, last_wait)
        last_wait = int(waits["wait_ns"].iloc[-1]) if len(waits) else last_wait
        rest.extend(switches)
        slept[own], asleep[own] = rest.at(monitors[own], block_ns[own])
        begun = until
    waited[begun:] = last_wait
    slept[begun:], asleep[begun:] = rest.at(monitors[begun:], block_ns[begun:])
    return waited, slept, asleep


class _Sleeps:
    """When the monitors of a trace fell asleep and came back, window by window.

    Args:
        tids: their threads.
    """

    def __init__(self, tids: set[int]) -> None:
        self._tids = tids
        # One row for each time that a monitor left its CPU or came onto one.
        self._rows = pd.DataFrame(
            {"tid": [], "ts_ns": [], "fell": [], "slept": []}, dtype=np.int64
        )

    def extend(self, switches: pd.DataFrame) -> None:
        """Take the switches of the next window; of those before, the last row is kept."""
        left = switches[
            switches["prev_tid"].isin(self._tids) & (switches["prev_state"] == _BLOCKED)
        ]
        came = switches[switches["next_tid"].isin(self._tids)]
        rows = pd.concat(
            [
                pd.DataFrame({"tid": left["prev_tid"], "ts_ns": left["ts_ns"], "fell": 1}),
                pd.DataFrame({"tid": came["next_tid"], "ts_ns": came["ts_ns"], "fell": 0}),
            ]
        )
        last = self._rows.drop_duplicates("tid", keep="last")
        rows = rows.assign(slept=UNKNOWN).sort_values("ts_ns", kind="stable").astype(np.int64)
        rows = pd.concat([last, rows], ignore_index=True)
        before = rows.groupby("tid")[["ts_ns", "fell", "slept"]].shift(fill_value=UNKNOWN)
        back = (rows["fell"] == 0) & (before["fell"] == 1)
        length = np.where(back, rows["ts_ns"] - before["ts_ns"], rows["slept"])
        # What a monitor slept last goes on until it comes back the next time.
        known = pd.Series(length, rows.index).where(length != UNKNOWN)
        rows["slept"] = known.groupby(rows["tid"]).ffill().fillna(UNKNOWN).astype(np.int64)
        self._rows = rows

    def at(self, tids: Ints, moments: Ints) -> tuple[Ints, Ints]:
        """How long each monitor's last sleep was, and how long it was asleep at each moment."""
        rows = self._rows
        found = Timelines(rows["tid"], rows["ts_ns"]).last_before(tids, moments)
        fell = take(rows["fell"], found, UNKNOWN)
        since = moments - take(rows["ts_ns"], found, 0)
        asleep = np.where(fell == UNKNOWN, UNKNOWN, np.where(fell == 1, since, 0))
        return take(rows["slept"], found, UNKNOWN), np.asarray(asleep, np.int64)


def correlate(observed: pd.DataFrame) -> pd.DataFrame:
    """Effects of each factor, among the calls of each site and reason.

    Args:
        observed: rows in the order of time, with site, reason, retake_ns and a column for each
            factor; ``UNKNOWN`` for null.
    """
    rows: list[dict[str, object]] = []
    keys = [observed["site"].astype(str), observed["reason"].astype(object).fillna("")]
    groups = sorted(observed.groupby(keys, sort=True), key=lambda item: -len(item[1]))
    for (site, reason), own in groups[:_GROUPS]:
        for name, meaning in _MEANINGS.items():
            known = own[own[name] != UNKNOWN]
            rows.append(
                {
                    "site": site,
                    "reason": reason or None,
                    "factor": name,
                    "meaning": meaning,
                    "episodes": len(known),
                    **_effect(known[name], known["retake_ns"]),
                }
            )
    table = pd.DataFrame(rows, columns=list(FACTORS.names))
    table["p_holm"] = holm(table["p"].astype(float).tolist())
    shown = table["p_holm"].lt(SHOWN)
    order = table.assign(shown=shown, strength=table["effect"].astype(float).abs()).sort_values(
        ["shown", "strength"], ascending=False, na_position="last", kind="stable"
    )
    return FACTORS.finish(
        {
            f.name: order[f.name].to_numpy(
                {"str": object, "float": np.float64}.get(f.type, np.int64)
            )
            for f in FACTORS.fields
        }
    )


def _effect(factor: pd.Series[int], latency: pd.Series[int]) -> dict[str, float]:
    usual = factor.value_counts()
    # One call that stands out in two things would be an effect.
    varies = len(usual) > 0 and len(factor) - usual.iloc[0] >= max(_RARE * len(factor), 1)
    told = shift_test(factor, latency) if varies else None
    if told is None:
        effects = dict.fromkeys(("effect", "effect_low", "effect_high", "p"), np.nan)
        return {**effects, "low_p50_ns": UNKNOWN, "high_p50_ns": UNKNOWN}
    count = len(factor)
    order = factor.rank(method="first")
    thirds = {
        "low_p50_ns": latency[order <= count / 3],
        "high_p50_ns": latency[order > count - count / 3],
    }
    medians = {name: quantiles(values, 0.5)["p50"] or 0 for name, values in thirds.items()}
    names = ("effect", "effect_low", "effect_high", "p")
    return {**dict(zip(names, told, strict=True)), **medians}


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
