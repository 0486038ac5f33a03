"""The tables of a report: text in cells, with the number to sort by beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.compare import compare
from analysis.answers.factors import SHOWN
from analysis.answers.now import range_text
from analysis.answers.preemptions import ledger
from analysis.answers.pressure import distinct_windows, stalls_of
from analysis.answers.sites import sites
from analysis.report.material import Material
from analysis.schema import CLASSES, PARTS
from analysis.stats.quantiles import quantile_name, quantiles
from analysis.trust.witness import Check
from analysis.units import (
    UNKNOWN_TEXT,
    count_text,
    duration_text,
    percent_text,
    runtime_text,
)
from analysis.whatif.errors import COLUMNS, error_name, signed_text, withheld
from analysis.whatif.predict import machine_text

__all__ = [
    "Cell",
    "Grid",
    "advice",
    "capture",
    "classes",
    "comparison",
    "events",
    "factors",
    "latency",
    "parts",
    "places",
    "preemptions",
    "pressure",
    "whatif",
    "withheld_columns",
]


_PARTS = 40
"""Rows of the table of parts: of all calls together and of the first four sites."""


@dataclass(frozen=True)
class Cell:
    """One cell: what it says, and its number (None for text)."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table with a heading; the first column names the row."""

    columns: tuple[str, ...]
    rows: list[list[Cell]]


def _cell(value: object, text: Callable[[object], str]) -> Cell:
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return Cell(UNKNOWN_TEXT)
    return Cell(text(value), float(str(value)))


def _duration(value: object) -> Cell:
    return _cell(value, duration_text)


def _count(value: object) -> Cell:
    return _cell(value, count_text)


def _rounded(value: object) -> Cell:
    return _count(None if value is None else round(float(str(value))))


def _share(value: object) -> Cell:
    known = value is not None and not pd.isna(value)  # type: ignore[call-overload]
    return _cell(100 * float(str(value)) if known else None, percent_text)


def _word(value: object) -> Cell:
    unknown = value is None or pd.isna(value)  # type: ignore[call-overload]
    return Cell(UNKNOWN_TEXT if unknown else str(value))


def comparison(materials: Sequence[Material]) -> Grid:
    """One row a trace: the figures by which policies differ."""
    table = compare([m.trace for m in materials], [m.summary for m in materials])
    columns: tuple[tuple[str, str, Callable[[object], Cell]], ...] = (
        ("retake p50", "retake_p50_ns", _duration),
        ("p90", "retake_p90_ns", _duration),
        ("p99", "retake_p99_ns", _duration),
        ("unknown", "retake_unknown", _count),
        ("hold p50", "hold_p50_ns", _duration),
        ("harm", "harm_sum_ns", _duration),
        ("harm unknown", "harm_unknown", _count),
        ("round trip p50", "round_trip_p50_ns", _duration),
        ("p99", "round_trip_p99_ns", _duration),
        ("calls", "episodes", _count),
        ("handoffs", "handoffs", _count),
        ("records", "events", _count),
        ("lost", "lost", _count),
        ("capture CPU", "capture_cpu_ns", _duration),
    )
    workloads = [material.workload for material in materials]
    several = len(set(workloads)) > 1
    rows = [
        [
            Cell(material.label),
            *([_word(material.workload)] if several else []),
            *(cell(row[name]) for _, name, cell in columns),
        ]
        for material, row in zip(materials, table.to_dict("records"), strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda number: workloads.index(workloads[number]))
    headings = (*(("workload",) if several else ()), *(heading for heading, _, _ in columns))
    return Grid(("trace", *headings), [rows[number] for number in order])


def pressure(material: Material) -> Grid:
    """Stall time of the process that lost most P time, by cause; shares of time."""
    processes = material.budget["processes"]
    told = processes[0]["pressure"] if processes else {}
    windows = distinct_windows(told)
    rows = [
        [
            Cell(stall.cause),
            Cell(stall.kind),
            *(Cell(range_text(*stall.over[window]), stall.over[window][1]) for window in windows),
        ]
        for stall in stalls_of(told)
    ]
    return Grid(("cause", "", *windows.values()), rows)


def parts(materials: Sequence[Material]) -> Grid:
    """Median and 99th percentile of each part of the latency."""
    headings = [f"{m.label} {which}" for m in materials for which in ("p50", "p99")]
    rows = []
    for _, part, meaning in PARTS:
        cells = [Cell(meaning)]
        for material in materials:
            values = material.episodes[part].dropna().to_numpy(np.int64)
            for share in (0.5, 0.99):
                cells.append(_duration(quantiles(values, share)[quantile_name(share)]))
        if any(cell.number is not None for cell in cells):
            rows.append(cells)
    return Grid(("part", *headings), rows)


def classes(materials: Sequence[Material]) -> Grid:
    """Each class: how many calls, and how long they held their Ps."""
    headings = [f"{m.label} {what}" for m in materials for what in ("calls", "held")]
    rows = []
    for word in CLASSES:
        cells = [Cell(word)]
        for material in materials:
            share = material.summary["classes"][word]
            cells += [_count(share["episodes"]), _duration(share["hold_ns"])]
        rows.append(cells)
    return Grid(("class", *headings), rows)


def places(material: Material) -> Grid:
    """Episodes by call site, where stacks were captured, and system call."""
    columns: tuple[tuple[str, str, Callable[[object], Cell]], ...] = (
        ("calls", "episodes", _count),
        ("blocked p50", "blocked_p50_ns", _duration),
        ("hold p50", "hold_p50_ns", _duration),
        ("hold p99", "hold_p99_ns", _duration),
        ("retake p50", "retake_p50_ns", _duration),
        ("harm", "harm_sum_ns", _duration),
        ("kept", "kept", _count),
        ("harmful", "harmful", _count),
        ("needless", "needless", _count),
    )
    table = sites(material.episodes, material.places)
    texts = {"system call": "syscall"}
    if table["site"].notna().any():
        texts = {"call site": "site", **texts}
    return Grid(
        (*texts, *(heading for heading, _, _ in columns)),
        [
            [
                *(_word(row[name]) for name in texts.values()),
                *(cell(row[name]) for _, name, cell in columns),
            ]
            for row in table.to_dict("records")
        ],
    )


def advice(material: Material) -> Grid:
    """Which way of calling fits each site."""
    columns: tuple[tuple[str, str, Callable[[object], Cell]], ...] = (
        ("calls", "calls", _count),
        ("blocked p50", "blocked_p50_ns", _duration),
        ("work waits in", "waiting_share", _share),
        ("now", "way_now", _word),
        ("fits best", "way_best", _word),
        ("gain a call", "gain_ns", _duration),
        ("at least", "gain_low_ns", _duration),
        ("at most", "gain_high_ns", _duration),
        ("of who waits", "wait_gain_ns", _duration),
        ("pays from", "pays_from_ns", _duration),
        ("evidence", "evidence", _word),
    )
    return Grid(
        ("call site", *(heading for heading, _, _ in columns)),
        [
            [_word(row["site"]), *(cell(row[name]) for _, name, cell in columns)]
            for row in material.advice.to_dict("records")
        ],
    )


def latency(material: Material) -> Grid:
    """The parts of the mean latency, of all calls and of the sites with most of it."""
    table = material.latency
    rows = []
    for row in table[table["sum_ns"].gt(0)].head(_PARTS).to_dict("records"):
        of_all = pd.isna(row["site"])
        rows.append(
            [
                Cell("all calls") if of_all else _word(row["site"]),
                Cell("") if of_all else _word(row["reason"]),
                _word(row["meaning"]),
                _duration(row["mean_ns"]),
                _share(row["share"]),
                _count(row["episodes"]),
            ]
        )
    return Grid(("site", "reason", "part", "mean", "share", "episodes"), rows)


def factors(material: Material) -> Grid:
    """What the latency goes with; factors without a known effect are left out."""
    rows = []
    for row in material.factors.dropna(subset=["effect"]).to_dict("records"):
        effect, low, high = (float(row[name]) for name in ("effect", "effect_low", "effect_high"))
        rows.append(
            [
                _word(row["site"]),
                _word(row["reason"]),
                _word(row["meaning"]),
                Cell(f"{effect:+.2f}", effect),
                Cell(f"{low:+.2f} … {high:+.2f}"),
                Cell("yes" if row["p_holm"] < SHOWN else "no"),
                _duration(row["low_p50_ns"]),
                _duration(row["high_p50_ns"]),
                _count(row["episodes"]),
            ]
        )
    headings = ("correlation", "95 % interval", "more than chance")
    ends = ("latency with least", "with most", "episodes")
    return Grid(("site", "reason", "factor", *headings, *ends), rows)


def preemptions(material: Material) -> Grid:
    """What became of the requests to stop a goroutine."""
    rows = []
    for row in ledger(material.preemptions).to_dict("records"):
        ends = [str(row[name]) for name in ("outcome", "why") if not pd.isna(row[name])]
        rows.append(
            [
                _word(row["reason"]),
                Cell(": ".join(ends) or UNKNOWN_TEXT),
                *(_count(row[name]) for name in ("requests", "signals", "interrupted")),
                *(_duration(row[f"{name}_p50_ns"]) for name in ("sent", "delivered", "latency")),
                _duration(row["latency_p99_ns"]),
            ]
        )
    times = ("until sent p50", "until delivered p50", "until stopped p50", "p99")
    return Grid(("asked for", "end", "requests", "signals", "calls interrupted", *times), rows)


def whatif(material: Material) -> Grid:
    """The run under other policies; above them the error of each column."""
    columns: dict[str, tuple[str, Callable[[object], Cell]]] = {
        "retake_p50_ns": ("retake p50", _duration),
        "retake_p90_ns": ("p90", _duration),
        "retake_p99_ns": ("p99", _duration),
        "without_p50_ns": ("P without a goroutine p50", _duration),
        "harm_ns": ("lost P time", _duration),
        "calls_per_s": ("calls a second", _rounded),
        "handoffs": ("handoffs", _count),
    }
    rows = []
    found = _whatif_rows(material)
    for row in found:
        captured = row["source"] == "captured"
        name = f"{row['policy']}, as captured" if captured else str(row["policy"])
        if not captured:
            name += machine_text(row, found[0])
        cells = [cell(row[column]) for column, (_, cell) in columns.items()]
        rows.append([Cell(name if row["ends"] else f"{name}: would never end"), *cells])
    if len(found) > 1:
        errors = [found[1][error_name(column)] for column in columns]
        rows.insert(1, [Cell("error of a replay"), *(Cell(signed_text(e)) for e in errors)])
    return Grid(("policy", *(heading for heading, _ in columns.values())), rows)


def withheld_columns(material: Material) -> list[str]:
    """Why columns of :func:`whatif` are not told."""
    headings = dict(zip(COLUMNS, whatif(material).columns[1:], strict=True))
    return withheld(_whatif_rows(material), headings)


def _whatif_rows(material: Material) -> list[dict[Any, Any]]:
    """The what-if table of a trace as rows, None for null; the capture is the first."""
    table = pd.DataFrame() if material.whatif is None else material.whatif
    return table.astype(object).where(table.notna(), None).to_dict("records")


def events(material: Material) -> Grid:
    """Rows stored and lost, by table."""
    counts = material.summary["tables"]
    return Grid(
        ("table", "stored", "lost"),
        [
            [Cell(name), _count(count["stored"]), _count(count["lost"])]
            for name, count in counts.items()
        ],
    )


def capture(material: Material) -> Grid:
    """How the trace was made, and what that cost."""
    manifest, told = material.trace.manifest, material.summary
    cost = manifest.capture
    seconds = None if cost.wall_s is None else cost.wall_s * 1e9
    cpu = None if cost.cpu_s is None else cost.cpu_s * 1e9
    share = 100 * cost.cpu_s / cost.wall_s if cost.cpu_s is not None and cost.wall_s else None
    target = runtime_text(manifest.target.runtime, manifest.target.version)
    rows = {
        "program": manifest.target.path,
        "command": " ".join(manifest.command) or None,
        "runtime": target,
        "host": manifest.host,
        "kernel": manifest.kernel,
        "backend": manifest.backend,
        "captured for": duration_text(seconds),
        "its own CPU time": f"{duration_text(cpu)} ({percent_text(share)} of one CPU)",
        "records a second": count_text(cost.events_per_s),
        "bytes a record": None if cost.bytes_per_event is None else f"{cost.bytes_per_event:.1f}",
        "Ps seen": count_text(told["p_time"]["ps"]),
        "episodes left out": f"{count_text(told['untrusted'])} (records were lost meanwhile)",
        "could not be had": "; ".join(told["missing"]) or "nothing was missing",
        "ended early": manifest.error,
    }
    if material.trace.go_trace is not None:
        rows["Go's own flight recorder"] = _go_check_text(*material.go_check)
    return Grid(("", ""), [[Cell(name), _word(text)] for name, text in rows.items()])


def _go_check_text(found: Check | None, why_not: str) -> str:
    """How the trace agrees with what Go's own flight recorder gave."""
    if found is None:
        return f"not compared: {why_not}"
    return (
        f"tells {count_text(found['records'])} retakes of the same time, "
        f"{count_text(found['matched'])} of them in this trace, "
        f"which has {count_text(found['episodes'])}"
    )
