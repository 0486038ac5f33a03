"""A trace in a screenful: how often, how long, at what cost, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypedDict

import numpy as np

from analysis.answers.budget import Budget, budget
from analysis.answers.unknown import latency_unknown
from analysis.ptime.episodes import PlainEpisodes, Setting, setting_of
from analysis.ptime.setting import pass_setting, transitions_of
from analysis.ptime.together import EpisodesAlong
from analysis.schema import CLASSES, OUTCOMES, PARTS
from analysis.stats.quantiles import exact_sum, quantiles
from analysis.windowed.asof import Ints
from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

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


def summary(trace: Trace) -> Summary:
    """Summarise a trace, window by window.

    Raises:
        PretakeError: the trace cannot be read.
    """
    return summary_and_budget(trace)[0]


def summary_and_budget(trace: Trace) -> tuple[Summary, Budget]:
    """Both of a trace, from one reading of it.

    Raises:
        PretakeError: the trace cannot be read.
    """
    transitions = transitions_of(trace)
    setting = setting_of(trace, transitions)
    builder = SummaryBuilder(setting, trace.manifest)
    along = EpisodesAlong(setting, SummaryBuilder.COLUMNS, builder.add)
    found = budget(trace, pass_setting(trace, transitions), along)
    return builder.result(), found


class SummaryBuilder:
    """Makes a summary from pieces of an episode table.

    Args:
        setting: of the trace.
        manifest: of the trace.

    Of each episode only the three durations that quantiles are made of stay in memory.
    """

    COLUMNS = (
        *_DURATIONS,
        *(part for _, part, _ in PARTS),
        *("outcome", "class", "lost_overlap", "pidle_ns", "pid", "p", "runq", "global_runq"),
    )
    """What it asks of an episode."""

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
        self._highest_p: dict[int, int] = {}
        self._goroutine_wait_ns = 0
        self._latency_unknown = 0
        self._part_sums: Counter[str] = Counter()
        self._part_counts: Counter[str] = Counter()

    def add(self, episodes: PlainEpisodes) -> None:
        """Take some more episodes: plain columns of :data:`analysis.schema.EPISODES`."""
        trust = episodes["lost_overlap"] == 0
        trusted = {name: episodes[name][trust] for name in self.COLUMNS}
        self._episodes += len(trust)
        self._untrusted += len(trust) - int(trust.sum())
        for name, pieces in self._durations.items():
            known = trusted[name][trusted[name] != UNKNOWN]
            pieces.append(known)
            self._unknown[name] += len(trusted[name]) - len(known)
        told = trusted["retake_ns"] != UNKNOWN
        kept = trusted["outcome"] == OUTCOMES.index("kept")
        unknown = latency_unknown(kept, trusted["pidle_ns"] != UNKNOWN, told)
        self._latency_unknown += int(unknown.sum())
        for _, part, _ in PARTS:
            seen = trusted[part][told & (trusted[part] != UNKNOWN)]
            self._part_sums[part] += exact_sum(seen)
            self._part_counts[part] += len(seen)
        for code, word in enumerate(OUTCOMES):
            self._outcomes[word] += int((episodes["outcome"] == code).sum())
        held = episodes["hold_ns"] != UNKNOWN
        for code, word in enumerate(CLASSES):
            own = episodes["class"] == code
            self._class_counts[word] += int(own.sum())
            if (own & held).any():
                self._class_holds[word] += exact_sum(episodes["hold_ns"][own & held])
        harm, *queued = (
            np.where(trusted[name] == UNKNOWN, 0, trusted[name])
            for name in ("harm_ns", "runq", "global_runq")
        )
        self._goroutine_wait_ns += int((harm * sum(queued)).sum())
        named = episodes["p"] != UNKNOWN
        pids, ps = episodes["pid"][named], episodes["p"][named]
        for pid in np.unique(pids).tolist():
            highest = int(ps[pids == pid].max())
            self._highest_p[pid] = max(self._highest_p.get(pid, highest), highest)

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
        ps = sum(highest + 1 for highest in self._highest_p.values()) or None
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


def _by_reason(transitions: Mapping[tuple[str, str | None], int], kind: str) -> dict[str, int]:
    reasons: Iterable[tuple[str, int]] = (
        (reason or "unknown", count)
        for (told, reason), count in transitions.items()
        if told == kind
    )
    return dict(sorted(reasons))
