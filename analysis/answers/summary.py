"""A trace in a screenful: how often, how long, at what cost, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypedDict

import numpy as np
import pandas as pd

from analysis.answers.budget import Budget, budget
from analysis.answers.unknown import latency_unknown
from analysis.ptime.episodes import Setting, episode_windows, setting_of
from analysis.ptime.harm import ShareBuilder
from analysis.schema import CLASSES, PARTS
from analysis.stats.quantiles import exact_sum, quantiles
from analysis.windowed.asof import Ints
from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace

__all__ = ["Summary", "SummaryBuilder", "summary", "summary_and_budget", "tells_of_ps"]


class Latency(TypedDict):
    """Quantiles in ns, None where no episode has a value; ``unknown`` is how many have none
    although P was given up and did not go idle."""

    p50: int | None
    p90: int | None
    p99: int | None
    max: int | None
    unknown: int


class Part(TypedDict):
    """One part of the latency: its mean over all latencies that are known, and in how many of
    them it was seen. A part that was not seen took none of the time."""

    mean_ns: float | None
    episodes: int


class Duration(TypedDict):
    """Quantiles and sum in ns, None if no value is known; ``unknown`` counts the unknown ones."""

    p50: int | None
    p90: int | None
    p99: int | None
    max: int | None
    sum: int | None
    unknown: int


class ClassShare(TypedDict):
    """One class of episodes: how many, and how long they held their Ps, None if not known."""

    episodes: int
    hold_ns: int | None


class PTime(TypedDict):
    """Time of Ps. ``ps`` is how many were seen: the highest number in each process, plus one."""

    ps: int | None
    total_ns: int | None
    harm_percent: float | None
    goroutine_wait_ns: int | None


class Capture(TypedDict):
    """What the capture cost."""

    wall_s: float | None
    cpu_s: float | None
    events_per_s: float | None
    bytes_per_event: float | None


class Target(TypedDict):
    """What was traced."""

    path: str | None
    runtime: str
    version: str | None


class TableCount(TypedDict):
    """Rows of one table."""

    stored: int
    lost: int


class Summary(TypedDict):
    """What :func:`summary` returns; every time is in ns, unknown is None.

    Keys:
        policy: the retake policy, where the traced program told it.
        p_known: whether the trace can tell which blocked threads held a P. If it cannot (unknown
            runtime, or unknown offsets), the absence of episodes says nothing.
        episodes: all of them; retaken, kept and handed_off are those with that outcome.
        untrusted: episodes in whose time records were lost; in none of the distributions.
        retake_ns: P-retake latency, of the episodes after which P ran a goroutine again.
        parts: where that latency goes, by the meaning of each part of
            :data:`analysis.schema.PARTS`.
        hold_ns: of all episodes; kept ones count with their lower bound.
        harm_ns: of all episodes.
        classes: by word of :data:`analysis.schema.CLASSES`.
        p_time: what the harm is of all the time the Ps had; ``goroutine_wait_ns`` counts it
            once for each goroutine that was queued at the block.
        handoffs: rows of kind handoff by reason; ``unknown`` where the runtime tells none.
        retakes: rows of kind retake likewise.
        events: records stored; lost: records that found no room; tables: both by table.
        complete: whether the capture ended in order.
        suspended_ns: how long the machine was suspended meanwhile, which is in no other time.
        missing: what could not be captured, and why.
    """

    policy: str | None
    p_known: bool
    episodes: int
    retaken: int
    kept: int
    handed_off: int
    untrusted: int
    retake_ns: Latency
    parts: dict[str, Part]
    hold_ns: Duration
    harm_ns: Duration
    classes: dict[str, ClassShare]
    p_time: PTime
    handoffs: dict[str, int]
    retakes: dict[str, int]
    events: int
    lost: int
    tables: dict[str, TableCount]
    complete: bool
    suspended_ns: int | None
    missing: list[str]
    capture: Capture
    target: Target


_SHARES = (0.5, 0.9, 0.99, 1.0)
_NONE: Ints = np.empty(0, np.int64)
_DURATIONS = ("retake_ns", "hold_ns", "harm_ns")
_COLUMNS = (
    *_DURATIONS,
    *(part for _, part, _ in PARTS),
    "pidle_ns",
    *("lost_overlap", "outcome", "class", "pid", "p", "runq", "global_runq"),
)


def summary(trace: Trace) -> Summary:
    """Summarise a trace, window by window.

    Raises:
        PretakeError: the trace cannot be read.
    """
    return _summary(trace, setting_of(trace))


def summary_and_budget(trace: Trace) -> tuple[Summary, Budget]:
    """Both of a trace, from one pass over it.

    Raises:
        PretakeError: the trace cannot be read.
    """
    shares = ShareBuilder()
    found = budget(trace, on_holds=shares.add)
    return _summary(trace, replace(setting_of(trace), settled=shares.result())), found


def _summary(trace: Trace, setting: Setting) -> Summary:
    builder = SummaryBuilder(setting, trace.manifest)
    for episodes in episode_windows(trace, setting=setting, columns=_COLUMNS):
        builder.add(episodes)
    return builder.result()


class SummaryBuilder:
    """Makes a summary from pieces of an episode table.

    Args:
        setting: of the trace.
        manifest: of the trace.

    Of each episode only the three durations that quantiles are made of stay in memory.
    """

    def __init__(self, setting: Setting, manifest: Manifest) -> None:
        self._setting = setting
        self._manifest = manifest
        self._durations: dict[str, list[Ints]] = {name: [] for name in _DURATIONS}
        self._unknown: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._class_counts: Counter[str] = Counter()
        self._class_holds: Counter[str] = Counter()
        self._episodes = 0
        self._untrusted = 0
        self._highest_p: pd.Series[int] = pd.Series(dtype="int64")
        self._goroutine_wait_ns = 0
        self._latency_unknown = 0
        self._part_sums: Counter[str] = Counter()
        self._part_counts: Counter[str] = Counter()

    def add(self, episodes: pd.DataFrame) -> None:
        """Take some more episodes (:data:`analysis.schema.EPISODES`)."""
        trusted = episodes[~episodes["lost_overlap"]]
        self._episodes += len(episodes)
        self._untrusted += len(episodes) - len(trusted)
        for name, pieces in self._durations.items():
            known = trusted[name].dropna().to_numpy(np.int64)
            pieces.append(known)
            self._unknown[name] += len(trusted) - len(known)
        self._latency_unknown += int(latency_unknown(trusted).sum())
        told = trusted[trusted["retake_ns"].notna()]
        for _, part, _ in PARTS:
            seen = told[part].dropna().to_numpy(np.int64)
            self._part_sums[part] += exact_sum(seen)
            self._part_counts[part] += len(seen)
        self._outcomes.update(_as_numbers(episodes["outcome"].value_counts()))
        self._class_counts.update(_as_numbers(episodes["class"].value_counts()))
        for word, rows in episodes["hold_ns"].dropna().groupby(episodes["class"], observed=True):
            self._class_holds[str(word)] += exact_sum(rows.to_numpy(np.int64))
        queued = trusted["runq"].fillna(0) + trusted["global_runq"].fillna(0)
        self._goroutine_wait_ns += int((trusted["harm_ns"].fillna(0) * queued).sum())
        highest = episodes.dropna(subset=["p"]).groupby(episodes["pid"].fillna(-1))["p"].max()
        both = pd.concat([self._highest_p, highest.astype("int64")])
        self._highest_p = both.groupby(level=0).max()

    def result(self) -> Summary:
        """The summary of all episodes so far."""
        durations = {name: np.concatenate(p or [_NONE]) for name, p in self._durations.items()}
        manifest, transitions = self._manifest, self._setting.transitions
        workload = manifest.workload or {}
        policy = workload.get("policy")
        return {
            "policy": policy if isinstance(policy, str) else None,
            "p_known": self._episodes > 0 or tells_of_ps(manifest),
            "episodes": self._episodes,
            "retaken": self._outcomes["retaken"],
            "kept": self._outcomes["kept"],
            "handed_off": self._outcomes["handed_off"],
            "untrusted": self._untrusted,
            "retake_ns": _latency_of(durations["retake_ns"], self._latency_unknown),
            "parts": {
                meaning: self._part(part, len(durations["retake_ns"]))
                for _, part, meaning in PARTS
            },
            "hold_ns": _duration(durations["hold_ns"], self._unknown["hold_ns"]),
            "harm_ns": _duration(durations["harm_ns"], self._unknown["harm_ns"]),
            "classes": {word: self._class(word) for word in CLASSES},
            "p_time": self._p_time(_sum(durations["harm_ns"])),
            "handoffs": _by_reason(transitions, "handoff"),
            "retakes": _by_reason(transitions, "retake"),
            "events": sum(manifest.events.values()),
            "lost": sum(manifest.lost.values()),
            "tables": {
                name: {"stored": count, "lost": manifest.lost.get(name, 0)}
                for name, count in manifest.events.items()
            },
            "complete": manifest.complete and manifest.error is None,
            "suspended_ns": manifest.suspended_ns,
            "missing": [f"{item.what}: {item.why}" for item in manifest.missing],
            "capture": {
                "wall_s": manifest.capture.wall_s,
                "cpu_s": manifest.capture.cpu_s,
                "events_per_s": manifest.capture.events_per_s,
                "bytes_per_event": manifest.capture.bytes_per_event,
            },
            "target": {
                "path": manifest.target.path,
                "runtime": manifest.target.runtime,
                "version": manifest.target.version,
            },
        }

    def _part(self, part: str, latencies: int) -> Part:
        mean_ns = self._part_sums[part] / latencies if self._part_counts[part] else None
        return {"mean_ns": mean_ns, "episodes": self._part_counts[part]}

    def _class(self, word: str) -> ClassShare:
        episodes = self._class_counts[word]
        hold_ns = self._class_holds.get(word) if episodes else 0
        return {"episodes": episodes, "hold_ns": hold_ns}

    def _p_time(self, harm_ns: int | None) -> PTime:
        begin_ns, end_ns = self._manifest.begin_ns, self._manifest.end_ns
        ps = int((self._highest_p + 1).sum()) or None
        total_ns = None
        if ps is not None and begin_ns is not None and end_ns is not None:
            total_ns = ps * (end_ns - begin_ns)
        return {
            "ps": ps,
            "total_ns": total_ns,
            "harm_percent": 100 * harm_ns / total_ns if total_ns and harm_ns is not None else None,
            "goroutine_wait_ns": None if harm_ns is None else self._goroutine_wait_ns,
        }


def _latency_of(values: Ints, unknown: int) -> Latency:
    found = quantiles(values, *_SHARES)
    return {
        "p50": found["p50"],
        "p90": found["p90"],
        "p99": found["p99"],
        "max": found["p100"],
        "unknown": unknown,
    }


def _duration(values: Ints, unknown: int) -> Duration:
    return {**_latency_of(values, unknown), "sum": _sum(values)}


def _sum(values: Ints) -> int | None:
    return exact_sum(values) if len(values) else None


def tells_of_ps(manifest: Manifest) -> bool:
    """Whether a trace can tell which blocked threads held a P: its runtime could be read."""
    lacks = any(item.what.startswith("block") for item in manifest.missing)
    return manifest.target.runtime != "none" and not lacks


def _as_numbers(counts: pd.Series[int]) -> dict[str, int]:
    return {str(word): int(count) for word, count in counts.items()}


def _by_reason(transitions: Mapping[tuple[str, str | None], int], kind: str) -> dict[str, int]:
    reasons: Iterable[tuple[str, int]] = (
        (reason or "unknown", count)
        for (told, reason), count in transitions.items()
        if told == kind
    )
    return dict(sorted(reasons))
