"""What a report is made of: one trace's episodes and figures, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis.answers.advise import advise
from analysis.answers.budget import Budget, budget_over_time
from analysis.answers.compare import trace_label
from analysis.answers.factors import factors
from analysis.answers.latency import decompose
from analysis.answers.places import places
from analysis.answers.preemptions import PREEMPTIONS, preemptions
from analysis.answers.summary import Summary, SummaryBuilder
from analysis.ptime.episodes import plain_episode_windows, setting_of
from analysis.ptime.harm import ShareBuilder
from analysis.ptime.timeline import timelines
from analysis.schema import EPISODES
from analysis.trust.witness import Check, check_own
from analysis.windowed.asof import Ints
from tracer.trace.reader import Trace

__all__ = ["WORST", "Material", "Predictor", "gather"]

Predictor = Callable[[Trace], "pd.DataFrame | None"]
"""Makes the what-if table of a trace (:data:`analysis.whatif.predict.WHATIF`), or None where it
cannot."""


BINS = 120
"""Pieces of time that the budget is drawn in."""

WORST = 6
"""How many of the worst episodes get a time line of their own, of all traces together; each trace
has one at least."""

_COLUMNS = (
    *("tid", "pid", "comm", "goid", "p", "nr", "syscall", "arg0", "blocked_ns", "cpu"),
    *("enter_ns", "block_ns", "release_ns", "acquirep_ns", "run_ns", "pidle_ns", "exit_ns"),
    *("hold_ns", "retake_ns", "harm_ns", "outcome", "reason", "taker_tid", "runner_tid"),
    *("runq", "global_runq", "npidle", "nmspinning", "p_use", "class", "lost_overlap", "censored"),
    *("part_notice_ns", "part_take_ns", "part_handoff_ns", "part_start_ns"),
    *(
        "m_wake_ns",
        "m_oncpu_ns",
        "stack_id",
        "part_m_wake_ns",
        "part_m_oncpu_ns",
        "part_acquire_ns",
        "part_run_ns",
    ),
)


@dataclass(frozen=True)
class Material:
    """One trace, as far as a report shows it.

    Args:
        label: what the trace is called in the report: its policy, or its folder's name.
        workload: what was run, as far as the program told; traces of one are comparable.
        trace: the trace.
        summary: its figures.
        budget: where the P time of each process went.
        bins: sums of the budget over time, for a picture.
        episodes: its trusted episodes, the columns that a report uses.
        worst: those with the most harm (then the longest hold).
        lanes: their time lines.
        places: the stacks that its threads blocked with, by name.
        latency: the parts of the mean latency.
        factors: what the latency goes with, of what was so before the block.
        advice: which way of calling fits each site.
        preemptions: requests to stop a goroutine.
        whatif: the run under other policies; None where nobody was asked, or it cannot be told.
        go_check: the trace against what Go's own flight recorder gave, or why not
            (:func:`analysis.trust.witness.check_own`).
    """

    label: str
    workload: str | None
    trace: Trace
    summary: Summary
    budget: Budget
    bins: Mapping[str, Ints]
    episodes: pd.DataFrame
    worst: pd.DataFrame
    lanes: pd.DataFrame
    places: pd.DataFrame
    latency: pd.DataFrame
    factors: pd.DataFrame
    advice: pd.DataFrame
    preemptions: pd.DataFrame
    whatif: pd.DataFrame | None
    go_check: tuple[Check | None, str]


def gather(traces: Sequence[Trace], predict: Predictor | None = None) -> list[Material]:
    """Read traces for a report.

    Args:
        traces: the traces.
        predict: makes the what-if table of each; None leaves it out.

    Raises:
        PretakeError: a trace cannot be read.
    """
    policies = [(trace.manifest.workload or {}).get("policy") for trace in traces]
    telling = all(isinstance(p, str) for p in policies) and len(set(policies)) == len(policies)
    labels = policies if telling else _distinct([trace_label(trace) for trace in traces])
    return [
        _gather(str(label), trace, predict, max(WORST // len(traces), 1))
        for label, trace in zip(labels, traces, strict=True)
    ]


def _gather(label: str, trace: Trace, predict: Predictor | None, most: int) -> Material:
    shares = ShareBuilder()
    budget, bins = budget_over_time(trace, BINS, shares.add)
    setting = replace(setting_of(trace), settled=shares.result())
    builder = SummaryBuilder(setting, trace.manifest)
    pieces = []
    for plain in plain_episode_windows(trace, setting=setting, columns=_COLUMNS):
        builder.add(plain)
        episodes = EPISODES.finish(plain, _COLUMNS)
        trusted = episodes.loc[~episodes["lost_overlap"], list(_COLUMNS)]
        pieces.append(trusted)
    filled = [piece for piece in pieces if len(piece)] or pieces[:1]
    rows = pd.concat(filled, ignore_index=True)
    worst = rows[rows["hold_ns"] > 0]
    worst = worst.sort_values(
        ["harm_ns", "hold_ns"], ascending=False, na_position="last", kind="stable"
    ).head(most)
    stacks = places(trace)
    asked = any(kind == "preempt_request" for kind, _ in setting.transitions)
    workload = (trace.manifest.workload or {}).get("name")
    return Material(
        label,
        workload if isinstance(workload, str) else None,
        trace,
        builder.result(),
        budget,
        bins,
        rows,
        worst,
        timelines(trace, worst),
        stacks,
        decompose(rows, stacks),
        factors(trace, rows, places=stacks),
        advise(rows, trace.frame("syscall", ["nr", "blocks"]), places=stacks),
        preemptions(trace) if asked else PREEMPTIONS.finish({}),
        None if predict is None else predict(trace),
        check_own(trace),
    )


def _distinct(labels: list[str]) -> list[str]:
    """Labels of traces in different folders may be the same."""
    return [
        label if labels.count(label) == 1 else f"{label} ({number})"
        for number, label in enumerate(labels, 1)
    ]
