"""Which way to make a call: raw, normal (entersyscall) or block (entersyscallblock).

Users cannot know whether a call is long enough that giving the P away pays; a trace can tell. For
each site, the P time that a call costs is estimated for each of the three ways:

- *raw*: P is never taken. It is lost for as long as the call blocks, in those calls during which
  work waits and no other P or M can take it (the *waiting share*).
- *normal*: what was captured, which is the harm until P was retaken, and then the time of P's
  way to the next goroutine (the *move*), where work waited for it. It is known only if calls were
  captured that were made this way.
- *block*: the move, in every call, whether it blocks or not. There is no hold.

The move of *block* is the median time from release to the next goroutine in this trace. It too
counts only where work waits, because a P without work loses nothing on its way. Under another way
of calling threads sleep for other times and wake otherwise, so half and twice as much are within
its interval. The time that the returning goroutine waits for a P is not in it, so the gain of
*block* is an upper bound.

There are two gains: that of the caller's P, in P time, and that of who waits. If three goroutines
wait for a P that is lost for 100 µs, they lose 300 µs. Only those are counted that were in P's own
queue and in the global one at the block.

The intervals are for another run of the same program on the same machine under the same load. How
far the cost of now varies is taken from blocks of time (:mod:`analysis.stats.blocks`).

``pays_from_ns`` is the length of a call at which raw costs as much as block. ``pays_to_ns`` is the
length at which the loss of normal is a hundredth of the call.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.answers.places import call_sites
from analysis.ptime.episodes import episode_windows
from analysis.schema import Field, Frame
from analysis.stats.blocks import Estimate, block_mean
from analysis.stats.quantiles import quantiles
from analysis.windowed import plain
from analysis.windowed.columns import WINDOW_ROWS
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["ADVICE", "WAYS", "advise", "advise_trace"]

WAYS = ("raw", "normal", "block")

ADVICE = Frame(
    "advice",
    "one call site, and which way of calling costs least P time there",
    (
        Field("site", "the site: its system call, and its stack if one was captured", "str"),
        Field("calls", "calls of it that blocked with a P, or whose P was handed off"),
        Field(
            "block_share",
            "share of all its calls that blocked; null if only those that blocked were captured",
            "float",
        ),
        Field("blocked_p50_ns", "median time from the block to the return"),
        Field("blocked_p99_ns", "its 99th percentile"),
        Field(
            "waiting_share",
            "share of the calls in which a goroutine waited that no other P could take",
            "float",
        ),
        Field("way_now", "how most of its calls were made", words=WAYS),
        Field("raw_loss_ns", "estimated P time lost for each call, if made raw", "float"),
        Field(
            "normal_loss_ns",
            "the same, if made with entersyscall; null if none was captured",
            "float",
        ),
        Field("block_loss_ns", "the same, if made with entersyscallblock", "float"),
        Field(
            "way_best",
            "the way with the least loss; null if there is too little evidence",
            words=WAYS,
        ),
        Field("gain_ns", "P time gained for each call by a change to that way", "float"),
        Field("gain_low_ns", "lower end of its 95 % interval", "float"),
        Field("gain_high_ns", "upper end", "float"),
        Field(
            "wait_gain_ns",
            "time for which goroutines wait less, of all that wait, for each call",
            "float",
        ),
        Field("wait_gain_low_ns", "lower end of its 95 % interval", "float"),
        Field("wait_gain_high_ns", "upper end", "float"),
        Field("pays_from_ns", "length of a call from which block costs less than raw"),
        Field("pays_to_ns", "length of a call above which normal loses less than 1 % of it"),
        Field("evidence", "what the advice is based on, and what is not known", "str"),
    ),
)

_FEWEST = 20
"""Fewer calls than these are no ground for advice."""

_NEGLIGIBLE = 0.01
_MOVE = 2.0
"""By which factor a move may be longer or shorter under another way of calling."""
_GAINS = tuple(
    f"{kind}{end}_ns" for kind in ("gain", "wait_gain") for end in ("", "_low", "_high")
)
_SIGNALS = ("runq", "global_runq", "npidle", "nmspinning", "harm_ns")
_COLUMNS = (
    *("tid", "nr", "syscall", "stack_id", "p_use", "outcome", "lost_overlap"),
    *("block_ns", "release_ns", "acquirep_ns", "run_ns", "exit_ns"),
    *_SIGNALS,
)
"""What advice needs of an episode."""
_NOW = {"syscall": "normal", "raw": "raw", "handed_off": "block"}


def advise(
    episodes: pd.DataFrame,
    calls: pd.DataFrame | None = None,
    places: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Advise on each call site of a trace.

    Args:
        episodes: a table of :data:`analysis.schema.EPISODES`.
        calls: the rows of table ``syscall`` (``nr`` and ``blocks``), from which the share of
            calls that block is taken if they were all captured (``--detail full``).
        places: the trace's stacks by name (:data:`analysis.answers.places.PLACES`); those of one
        call
            site are one site, and calls that Go's runtime makes for its own locks are left out.
            Without them each stack is one site.

    Returns:
        A DataFrame of :data:`ADVICE`: the most P time to be won first.
    """
    counted = None if calls is None else _counted_by_number(plain.from_frame("syscall", calls))
    return _advise(_facts(episodes, places), counted)


def advise_trace(
    trace: Trace,
    places: pd.DataFrame | None = None,
    window_rows: int = WINDOW_ROWS,
) -> pd.DataFrame:
    """The same of a trace that may be larger than memory: of a call a few numbers stay.

    Args:
        trace: the trace.
        places: its stacks by name.
        window_rows: rows to hold in memory at once, about; changes nothing in the result.

    Raises:
        PretakeError: the trace cannot be read.
    """
    pieces = [
        _facts(window, places) for window in episode_windows(trace, window_rows, columns=_COLUMNS)
    ]
    pieces = [piece for piece in pieces if len(piece)] or pieces[:1]
    sites = pd.api.types.union_categoricals([piece["site"] for piece in pieces])
    facts = pd.concat([piece.drop(columns="site") for piece in pieces], ignore_index=True)
    return _advise(facts.assign(site=sites), _counted_calls(trace))


def _counted_by_number(calls: pd.DataFrame) -> pd.DataFrame:
    """How many calls of each number were made, and how many of them blocked."""
    told = calls[calls["blocks"] != UNKNOWN]
    by_number = (told["blocks"] > 0).groupby(told["nr"])
    return pd.DataFrame({"made": by_number.size(), "blocked": by_number.sum()})


def _counted_calls(trace: Trace) -> pd.DataFrame:
    """The same of a trace, piece by piece."""
    pieces = []
    for group in trace.row_groups("syscall", plain.TIME_COLUMN["syscall"]):
        rows = plain.from_arrow(
            "syscall", trace.read_row_group("syscall", group, ["nr", "blocks"])
        )
        pieces.append(_counted_by_number(rows))
    return pd.concat(pieces or [_counted_by_number(plain.empty("syscall"))]).groupby(level=0).sum()


def _advise(facts: pd.DataFrame, calls: pd.DataFrame | None) -> pd.DataFrame:
    # In the order of time: neighbours make the blocks.
    facts = facts.sort_values(["block_ns", "tid"], kind="stable", ignore_index=True)
    median_ns = quantiles(facts["move_ns"].dropna(), 0.5)["p50"]
    move_ns = np.nan if median_ns is None else float(median_ns)
    shares = _block_shares(calls)
    rows = [
        _advise_site(str(site), own, move_ns, shares.get(int(own["nr"].iloc[0])))
        for site, own in facts.groupby("site", sort=True, observed=True)
    ]
    table = pd.DataFrame(rows, columns=list(ADVICE.names))
    table["total"] = table["gain_ns"].astype(float).fillna(0) * table["calls"].astype(float)
    table = table.sort_values(["total", "calls"], ascending=False, kind="stable")
    return ADVICE.finish({name: table[name].to_numpy() for name in ADVICE.names})


def _by_the_runtime(known: pd.DataFrame, places: pd.DataFrame | None) -> pd.Series[bool]:
    """Calls in which Go's runtime itself sleeps: no user can make them in another way."""
    if places is None:
        return pd.Series(False, index=known.index)
    return known["stack_id"].isin(places.loc[places["runtime_wait"], "stack_id"])


def _facts(episodes: pd.DataFrame, places: pd.DataFrame | None) -> pd.DataFrame:
    """What the estimates need of each call whose end is known, in the smallest types."""
    known = episodes[~episodes["lost_overlap"] & episodes["exit_ns"].notna()]
    known = known[~_by_the_runtime(known, places)]
    numbers = {name: _floats(known[name]) for name in _SIGNALS}
    queued = np.fmax(numbers["runq"], numbers["global_runq"])
    alone = (numbers["npidle"] == 0) & ~(numbers["nmspinning"] > 0)
    told = ~np.isnan(queued) & ~np.isnan(numbers["npidle"])
    went_on = known["run_ns"].fillna(known["acquirep_ns"])
    return pd.DataFrame(
        {
            "block_ns": known["block_ns"].to_numpy(np.int64),
            "tid": known["tid"].to_numpy(np.int32),
            "site": pd.Categorical(call_sites(known, places)),
            "nr": known["nr"].to_numpy(np.int16, na_value=UNKNOWN),
            "blocked_ns": (known["exit_ns"] - known["block_ns"]).to_numpy(np.int64),
            "waiting": np.where(told, (queued > 0) & alone, UNKNOWN).astype(np.int8),
            "queued": np.nansum([numbers["runq"], numbers["global_runq"]], axis=0),
            "harm_ns": numbers["harm_ns"],
            "released": known["outcome"].eq("retaken").to_numpy(bool),
            "use": known["p_use"].array,
            # From P's release to its next goroutine.
            "move_ns": _floats(went_on - known["release_ns"]),
        }
    )


def _floats(values: pd.Series[int]) -> np.ndarray:
    return values.astype("Float64").to_numpy(np.float64, na_value=np.nan)


def _block_shares(calls: pd.DataFrame | None) -> dict[int, float]:
    """Share of the calls of each number that blocked; empty if only those were captured."""
    if calls is None or not (calls["made"] > calls["blocked"]).any():
        return {}
    shares = calls["blocked"] / calls["made"]
    return {int(str(nr)): float(share) for nr, share in shares.items()}


def _advise_site(
    site: str,
    own: pd.DataFrame,
    move_ns: float,
    block_share: float | None,
) -> dict[str, object]:
    blocked = own["blocked_ns"].to_numpy()
    waiting = np.where(own["waiting"] == UNKNOWN, np.nan, own["waiting"].astype(float))
    now = _NOW.get(str(own["use"].mode().iloc[0]), "") if own["use"].notna().any() else ""
    share = float(np.nanmean(waiting)) if not np.isnan(waiting).all() else np.nan
    normal_calls = own[(own["use"] == "syscall") & own["harm_ns"].notna()]
    # A handful of calls made another way than the rest is no sample of that way.
    normal_calls = normal_calls if len(normal_calls) >= _FEWEST else normal_calls[:0]
    normal = _normal_losses(normal_calls, move_ns, share)
    # A call that does not block still pays for its handoff.
    tries = 1.0 if block_share is None else 1 / max(block_share, 1e-9)
    losses = {
        "raw": waiting * blocked,
        "normal": normal,
        "block": np.full(len(own), move_ns * share * tries),
    }
    means = {w: float(np.nanmean(v)) if _any_known(v) else np.nan for w, v in losses.items()}
    row: dict[str, object] = {
        "site": site,
        "calls": len(own),
        "block_share": np.nan if block_share is None else block_share,
        **{f"blocked_{name}_ns": ns for name, ns in quantiles(blocked, 0.5, 0.99).items()},
        "waiting_share": share,
        "way_now": WAYS.index(now) if now else UNKNOWN,
        **{f"{way}_loss_ns": means[way] for way in WAYS},
        "way_best": UNKNOWN,
        **dict.fromkeys(_GAINS, np.nan),
        "pays_from_ns": UNKNOWN,
        "pays_to_ns": UNKNOWN,
        "evidence": _evidence(own, share, means, block_share, move_ns),
    }
    if share > 0 and not np.isnan(move_ns):
        # raw loses share * length, block share * move: they meet where the call is one move.
        row["pays_from_ns"] = round(move_ns * tries)
    if not np.isnan(means["normal"]):
        row["pays_to_ns"] = round(means["normal"] / _NEGLIGIBLE)
    if len(own) < _FEWEST or not now or np.isnan(means[now]) or np.isnan(means["block"]):
        return row
    best = min((way for way in WAYS if not np.isnan(means[way])), key=lambda way: means[way])
    # No change unless it wins something: at equal loss the way of now stays.
    if means[best] >= means[now]:
        best = now
    row["way_best"] = WAYS.index(best)
    if best == now:
        return row | dict.fromkeys(_GAINS, 0.0)
    # How many wait for the P that is lost; at least the one that is known to.
    queued = {way: own["queued"].to_numpy() for way in WAYS}
    queued["normal"] = normal_calls["queued"].to_numpy()
    gain = _difference(*(_loss(losses[way], way) for way in (now, best)))
    waiting_less = _difference(*(_loss(losses[w] * np.fmax(queued[w], 1), w) for w in (now, best)))
    names = iter(_GAINS)
    if not gain.value > gain.below:
        # A change that may lose is no advice; what it may gain is told.
        row["way_best"] = UNKNOWN
        row["evidence"] = f"{row['evidence']}; whether {best} gains anything is not sure"
    for told in (gain, waiting_less):
        for value in (told.value, told.value - told.below, told.value + told.above):
            row[next(names)] = value
    return row


def _normal_losses(calls: pd.DataFrame, move_ns: float, share: float) -> np.ndarray:
    """Of each call that was made with entersyscall: its harm, and its move if work waited."""
    waits = calls["waiting"].astype(float).where(calls["waiting"] != UNKNOWN, share)
    moved = calls["move_ns"].fillna(move_ns) * waits
    return (calls["harm_ns"] + moved.where(calls["released"], 0)).to_numpy(np.float64)


def _any_known(values: np.ndarray) -> bool:
    return bool((~np.isnan(values)).any())


def _loss(values: np.ndarray, way: str) -> Estimate:
    """The mean loss of a call in the order of time, and how far another run's may be from it."""
    known = values[~np.isnan(values)]
    told = block_mean(known)
    if told is None:
        return Estimate(float(known.mean()) if len(known) else np.nan, np.nan, np.nan)
    if way != "block":
        return told
    # What is known of the move comes from another way of calling.
    return Estimate(
        told.value,
        max(told.below, told.value * (1 - 1 / _MOVE)),
        max(told.above, told.value * (_MOVE - 1)),
    )


def _difference(now: Estimate, best: Estimate) -> Estimate:
    """``now`` less ``best``, whose errors have nothing to do with each other."""
    return Estimate(
        now.value - best.value,
        float(np.hypot(now.below, best.above)),
        float(np.hypot(now.above, best.below)),
    )


def _evidence(
    own: pd.DataFrame,
    share: float,
    means: dict[str, float],
    block_share: float | None,
    move_ns: float,
) -> str:
    said = [f"{len(own):,} calls"]
    if len(own) < _FEWEST:
        said.append(f"fewer than {_FEWEST} calls are too few for advice")
    if np.isnan(share):
        said.append("run queues and idle Ps are not known")
    if np.isnan(move_ns):
        said.append("no P was seen to run a goroutine after a release")
    if np.isnan(means["normal"]):
        said.append("too few calls were made with entersyscall to know its loss")
    if block_share is None:
        said.append("calls that did not block were not captured, so they are not counted")
    return "; ".join(said)
