"""How often a verdict is wrong, on real runs: parts ``false_alarms``, ``power``, ``factors``.

- *false_alarms*: the same command is recorded several times, and all ways to split the runs in two
  halves are compared, as ``pretake diff`` does. ``figures`` is the share of primary figures that
  are called different, ``pairs`` the share of splits with any figure that is, ``conditions`` the
  share that meets ``harm_ns.p99 > 1.1 * baseline``. On both runtimes, quiet and loaded; with the
  highest of a program beside the share over all. The splits of ten runs are not independent, so
  the share of one program may be far from its expectation.
- *power*: calls that keep their P for 200 and for 220 µs, recorded in turns; how often a
  comparison of ten runs a side, drawn from those that there are, calls the hold longer.
- *factors*: the factors of one run against the latencies of another one of the same program, call
  by call. Both have the bursts of real runs, and nothing ties them. ``intervals`` is the share of
  intervals that exclude 0, ``traces`` that of pairs in which any effect is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import load
from analysis.answers.factors import SHOWN, correlate, observe
from analysis.answers.runs import FIGURES, PRIMARY, Run, run_of
from analysis.stats.condition import outcomes, parse_condition
from analysis.stats.verdict import judge
from bench.captured import LOADS, PRETAKE, record, under
from tests.go import toolchains

CONDITION = "harm_ns.p99 > 1.1 * baseline"
RUNS, SHORT_RUNS = 10, 6
A_SIDE = 10
"""Runs of a side of which the power is told."""
DRAWN = 200
CHANGED = "hold_ns.p50"
LONGER = 1.1
_NS = 200_000

Command = tuple[tuple[str, ...], dict[str, str]]


def commands(short: bool) -> Mapping[str, Command]:
    """What is recorded, by name: the command, and variables of its environment."""
    seconds = "0.3" if short else "1"
    run = (PRETAKE, "run")
    return {
        "mix": ((*run, "mix", "--seconds", seconds), {}),
        "echo": ((*run, "echo", "--seconds", seconds), {}),
        "Go: blocking reads": (
            (str(toolchains.build("blockread")), "100" if short else "300"),
            {"GOMAXPROCS": "1"},
        ),
    }


def false_alarms(folder: Path, short: bool = False) -> dict[str, Any]:
    """The share of wrong verdicts, by load."""
    runs = SHORT_RUNS if short else RUNS
    found: dict[str, Any] = {}
    for kind in LOADS:
        splits: list[dict[str, bool]] = []
        worst: dict[str, dict[str, float]] = {}
        with under(kind):
            recorded = _in_turns(folder, commands(short), runs)
        for name, its in recorded.items():
            own = list(_splits(its))
            worst[name] = _shares(own)
            splits += own
        found[kind] = {**_shares(splits), "splits": len(splits), "by_program": worst}
    return {"false_alarms": {**found, "runs_a_side": runs // 2}}


def power(folder: Path, short: bool = False) -> dict[str, Any]:
    """How often a change of 10 % is found."""
    runs = A_SIDE + (0 if short else 4)
    seconds = "0.3" if short else "1"
    sides: Mapping[str, Command] = {
        name: (
            (
                *(PRETAKE, "run", "calls", "--retake", "raw", "--seconds", seconds),
                *("--set", "long_share=1.0", "--set", f"long_ns={ns}"),
            ),
            {},
        )
        for name, ns in (("a", _NS), ("b", round(_NS * LONGER)))
    }
    found: dict[str, Any] = {"change": LONGER - 1, "figure": CHANGED, "runs_a_side": A_SIDE}
    for kind in LOADS:
        with under(kind):
            recorded = _in_turns(folder, sides, runs)
        random = np.random.default_rng(0)
        hits, ratios = 0, []
        for _ in range(1 if short else DRAWN):
            drawn = [
                [its[at].values for at in random.permutation(runs)[:A_SIDE]]
                for its in recorded.values()
            ]
            row = judge(drawn[0], drawn[1], FIGURES).set_index("figure").loc[CHANGED]
            hits += row["verdict"] == "higher"
            ratios.append(float(row["ratio"]))
        found[kind] = {
            "found": hits / len(ratios),
            "comparisons": len(ratios),
            "ratio": round(float(np.median(ratios)), 3),
        }
    return {"power": found}


def factors(folder: Path, short: bool = False) -> dict[str, Any]:
    """How often an effect is told where there is none, by load."""
    found: dict[str, Any] = {}
    for kind in LOADS:
        tests = excluded = pairs = shown = 0
        with under(kind):
            runs: dict[str, list[pd.DataFrame]] = {name: [] for name in commands(short)}
            for _ in range(SHORT_RUNS // 2 if short else RUNS):
                for name, (command, environment) in commands(short).items():
                    trace = record(folder / "run.pretake", command, environment=environment)
                    runs[name].append(observe(load(trace).trace))
        for its in runs.values():
            for a, b in permutations(its, 2):
                told = correlate(_mixed(a, b)).dropna(subset=["effect"])
                tests += len(told)
                excluded += int(((told["effect_low"] > 0) | (told["effect_high"] < 0)).sum())
                pairs += 1
                shown += bool((told["p_holm"] < SHOWN).any())
        found[kind] = {
            "intervals": round(excluded / max(tests, 1), 4),
            "tests": tests,
            "traces": round(shown / max(pairs, 1), 4),
            "pairs": pairs,
        }
    return {"factors": found}


def _mixed(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The factors of one run's commonest site and reason, with the latencies of another's."""
    own, other = (
        its[(its["site"].astype(str) == site) & (its["reason"].astype(str) == reason)]
        for site, reason in [a[["site", "reason"]].astype(str).value_counts().index[0]]
        for its in (a, b)
    )
    count = min(len(own), len(other))
    return own.head(count).assign(retake_ns=other["retake_ns"].to_numpy()[:count])


def _in_turns(folder: Path, asked: Mapping[str, Command], runs: int) -> dict[str, list[Run]]:
    """Record each command so often, one of each after the other."""
    found: dict[str, list[Run]] = {name: [] for name in asked}
    for _ in range(runs):
        for name, (command, environment) in asked.items():
            trace = record(folder / "run.pretake", command, environment=environment)
            found[name].append(run_of(load(trace).trace))
    return found


def _splits(runs: Sequence[Run]) -> list[dict[str, bool]]:
    """Each way to make two halves of runs of one program, and what is said of them."""
    condition = parse_condition(CONDITION)
    found = []
    for chosen in combinations(range(1, len(runs)), len(runs) // 2 - 1):
        # The first run is always of the first half: so no split comes twice.
        first = {0, *chosen}
        a = [run for at, run in enumerate(runs) if at in first]
        b = [run for at, run in enumerate(runs) if at not in first]
        table = judge([run.values for run in a], [run.values for run in b], FIGURES)
        different = table["verdict"].isin(["lower", "higher"])
        (outcome,) = outcomes([condition], [run.told for run in b], [run.told for run in a])
        found.append(
            {
                "figures": bool(different[table["figure"] == PRIMARY].any()),
                "pairs": bool(different.any()),
                "conditions": bool(outcome.met),
            }
        )
    return found


def _shares(splits: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    return {
        name: round(sum(split[name] for split in splits) / max(len(splits), 1), 4)
        for name in ("figures", "pairs", "conditions")
    }
