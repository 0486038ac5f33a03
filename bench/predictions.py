"""How near ``pretake whatif`` comes to real runs: part ``whatif``.

Each workload is captured in every way that a real run can have, in several rounds, quiet and
loaded. The capture under sysmon predicts the other policies, that under block predicts sysmon, and
a capture with one P predicts two. So no prediction has seen what it predicts. Every column is
compared with the median of the rounds' real runs; harm and handoffs for each call, since a replay
has half of the calls.

A prediction is a *hit* within 25 %. A column that is withheld is counted as such, and not as a
miss. Where both are 0 (the handoffs of sysmon) nothing was predicted, and nothing is counted.

The *baseline* knows no model: of a latency it says the median that this policy had in the other
workloads; of the other columns, the captured value times the median ratio that the others had. Its
hits are counted over the predictions that are shown.

``untuned`` are the workloads that nobody looked at while the model was made.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError
from typing import Any

import pandas as pd

from analysis import load
from analysis.whatif.errors import COLUMNS, LIMIT_PERCENT, percent_apart, why_name
from bench.captured import LOADS, PRETAKE, record, under
from pretake.commands.whatif import play
from tests.go import toolchains
from tracer.errors import PretakeError

ROUNDS = 3
SECONDS, SHORT_SECONDS = "1", "0.5"
_TESTED = Path(toolchains.__file__).parent
_GO = Path(__file__).parent / "go"
_RETAKE = _GO / "retake"
_EACH_CALL = ("harm_ns", "handoffs")


@dataclass(frozen=True)
class Way:
    """How a workload is run: under a policy, with so many Ps."""

    policy: str = "sysmon"
    procs: int = 1

    def __str__(self) -> str:
        return f"{self.policy}, {self.procs} P{'' if self.procs == 1 else 's'}"


@dataclass(frozen=True)
class Workload:
    """Something to run.

    Args:
        arguments: of ``pretake run``, or of a Go program (``program``).
        tuned: it was looked at while the model was made.
        procs: Ps of the captured run.
        program: a Go program's folder; empty for the reference runtime.
        among: where that folder is.
    """

    arguments: tuple[str, ...]
    tuned: bool = False
    procs: int = 1
    program: str = ""
    among: Path = _TESTED

    def sources(self) -> Mapping[Way, Sequence[Way]]:
        """The ways that are captured, and what each of them predicts."""
        captured, more = Way("sysmon", self.procs), Way("sysmon", self.procs + 1)
        if self.program:
            return {captured: (more,)}
        others = ("block", "sched_out", "thread_state", "integrated", "adaptive")
        return {
            captured: (*(Way(policy, self.procs) for policy in others), more),
            Way("block", self.procs): (captured,),
        }

    def capture(self, folder: Path, way: Way, seconds: str) -> Path:
        """Run it one way."""
        trace = folder / f"{way.policy}-{way.procs}.pretake"
        if self.program:
            binary = toolchains.build(self.program, among=self.among)
            command = (str(binary), *self.arguments)
            return record(trace, command, environment={"GOMAXPROCS": str(way.procs)})
        how = ("--retake", way.policy, "--procs", str(way.procs), "--seconds", seconds)
        return record(trace, (PRETAKE, "run", *self.arguments, *how))


WORKLOADS = {
    "echo": Workload(("echo",), tuned=True),
    "echo beside a busy goroutine": Workload(("echo", "--set", "busy=1"), tuned=True),
    "mix": Workload(("mix",), tuned=True),
    "mix on 2 Ps": Workload(("mix",), tuned=True, procs=2),
    "calls, a quarter long": Workload(("calls", "--set", "long_share=0.25")),
    "calls, all long": Workload(("calls", "--set", "long_share=1.0")),
    "calls from one site": Workload(("calls", "--set", "long_share=0.5", "--set", "one_site=1")),
    "longer mix": Workload(("mix", "--set", "block_ns=1000000", "--set", "workers=6")),
    "Go: blocking reads": Workload(("300",), program="blockread"),
    "Go: network stack": Workload(("normal", "1000"), program="netstack", among=_GO),
    "Go: reads of a FIFO": Workload(("fifo", "0.5", "/tmp"), program="calls", among=_RETAKE),
    "Go: write-ahead log": Workload(("fsync", "2", "/var/tmp"), program="calls", among=_RETAKE),
}
SHORT = ("echo", "calls, all long", "Go: blocking reads")


@dataclass(frozen=True)
class Prediction:
    """One column of one way; ``predicted`` is None where it is withheld."""

    workload: str
    source: Way
    way: Way
    column: str
    predicted: float | None


def whatif(folder: Path, short: bool = False) -> dict[str, Any]:
    """Hits, what is shown and withheld, and the hits of the baseline; by load and column."""
    workloads = {n: w for n, w in WORKLOADS.items() if not short or n in SHORT}
    untuned = {name for name, its in workloads.items() if not its.tuned}
    hits: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for kind in LOADS:
        with under(kind):
            predictions, measured = _measure(folder, workloads, 1 if short else ROUNDS, short)
        hits[kind] = tally(predictions, measured)
        hits[f"{kind}_untuned"] = tally(
            [p for p in predictions if p.workload in untuned], measured
        )
        columns[kind] = {
            column: tally([p for p in predictions if p.column == column], measured)
            for column in COLUMNS
        }
    return {"whatif_hits": hits, "whatif_columns": columns}


_Key = tuple[str, Way]
Measured = Mapping[_Key, Mapping[str, float]]
"""Of each workload and way: what a real run has in each column, as far as it has."""


def _measure(
    folder: Path, workloads: Mapping[str, Workload], rounds: int, short: bool
) -> tuple[list[Prediction], Measured]:
    """Every prediction of every round, and the medians over the rounds of the real runs."""
    predictions: list[Prediction] = []
    seen: dict[_Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for name, workload in workloads.items():
            sources = workload.sources()
            for way in dict.fromkeys([*sources, *(w for its in sources.values() for w in its)]):
                try:
                    trace = workload.capture(folder, way, SHORT_SECONDS if short else SECONDS)
                    captured, rows = _whatif(trace, sources.get(way, ()))
                except (PretakeError, CalledProcessError) as error:
                    print(f"{name}, {way}: {error}", file=sys.stderr)
                    continue
                for column in COLUMNS:
                    value = _value(captured, column)
                    if value is not None:
                        seen[name, way][column].append(value)
                for target, row in rows.items():
                    predictions += [
                        Prediction(name, way, target, column, _value(row, column))
                        for column in COLUMNS
                        # No value and no reason: under this policy there is none.
                        if row[column] is not None or row[why_name(column)] is not None
                    ]
    medians = {
        key: {column: median(values) for column, values in own.items()}
        for key, own in seen.items()
    }
    return predictions, medians


def _whatif(trace: Path, ways: Sequence[Way]) -> tuple[dict[Any, Any], dict[Way, dict[Any, Any]]]:
    """The capture itself, and what is predicted of each way."""
    found: dict[Way, dict[Any, Any]] = {}
    captured: dict[Any, Any] = {}
    for procs in dict.fromkeys([way.procs for way in ways] or [None]):
        own = [way for way in ways if way.procs == procs]
        table = load(trace).whatif([way.policy for way in own], play, procs=procs)
        captured, *rows = table.astype(object).where(table.notna(), None).to_dict("records")
        found |= dict(zip(own, rows, strict=True))
    return captured, found


def _value(row: Mapping[Any, Any], column: str) -> float | None:
    if row[column] is None or pd.isna(row[column]):
        return None
    value = float(row[column])
    return value / max(float(row["calls"]), 1) if column in _EACH_CALL else value


def tally(predictions: Iterable[Prediction], measured: Measured) -> dict[str, int]:
    """Count predictions against what was measured, and the baseline's beside them."""
    found = dict.fromkeys(("hits", "shown", "withheld", "baseline_hits"), 0)
    for told in predictions:
        real = measured.get((told.workload, told.way), {}).get(told.column)
        if real is None or (real == 0 and told.predicted in (None, 0)):
            continue
        if told.predicted is None:
            found["withheld"] += 1
            continue
        found["shown"] += 1
        found["hits"] += _hit(told.predicted, real)
        found["baseline_hits"] += _hit(_baseline(told, measured), real)
    return found


def _hit(predicted: float | None, real: float) -> bool:
    apart = percent_apart(predicted, real)
    return apart is not None and abs(apart) <= LIMIT_PERCENT


def _baseline(told: Prediction, measured: Measured) -> float | None:
    """What one who knows the other workloads would say."""
    values, ratios = [], []
    for (workload, way), own in measured.items():
        if workload == told.workload or way != told.way or told.column not in own:
            continue
        values.append(own[told.column])
        before = measured.get((workload, told.source), {}).get(told.column)
        if before:
            ratios.append(own[told.column] / before)
    if told.column.startswith(("retake_", "without_")):
        return median(values) if values else None
    captured = measured.get((told.workload, told.source), {}).get(told.column)
    return captured * median(ratios) if ratios and captured is not None else None
