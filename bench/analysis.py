"""How fast and how right the analysis is: ``make bench-analysis``; ``--part NAME`` for one part.

- *speed*: events a second from files to the summary, beside ``perf sched latency`` and
  ``timehist`` on what perf recorded of the same run, and ``go tool trace -d=parsed``; the start
  of the command (a trace of one call) by itself, and the rate without it.
- *before*: ``summary`` of 10 million events here and at the commit before the budget was a pass,
  in turns, each on its own generated trace of the same events; told as a ratio.
- *big*: peak memory of the summary of a trace of 100 million events.
- *report*: time and size of a report about 10 million events.
- *whatif*: predicted against measured median latency: each workload is captured under each policy
  that a real run can have, in several rounds; the capture under sysmon predicts the others, and
  block predicts it.

Each part merges what it found into ``bench/results/analysis.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from analysis import load
from bench.generate import generate
from pretake.commands.whatif import play
from tests.go import toolchains

RESULTS = Path(__file__).parent / "results" / "analysis.json"
MILLION = 1_000_000
ROUNDS = 3
PRETAKE = str(Path(sys.executable).parent / "pretake")
HIT = 0.25
BEFORE = "b0d2965"
"""The last commit whose summary did not run the pass."""
POLICIES = ("sysmon", "block", "sched_out", "thread_state", "integrated", "adaptive")
SOURCES = {"sysmon": POLICIES[1:], "block": POLICIES[:1]}
"""Whose capture predicts which policies: no prediction has seen what it predicts."""
WORKLOADS = {
    # name: arguments of 'pretake run'
    "echo": ("echo", "--seconds", "1"),
    "echo beside a busy goroutine": ("echo", "--set", "busy=1", "--seconds", "1"),
    "mix": ("mix", "--seconds", "1"),
    "mix on 2 Ps": ("mix", "--procs", "2", "--seconds", "1"),
}


def seconds(*command: str) -> float:
    """The least time of a few rounds: what else runs here only ever makes it longer."""
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took.append(time.perf_counter() - begin)
    return min(took)


def capture(folder: Path, policy: str, arguments: tuple[str, ...], *around: str) -> Path:
    trace = folder / f"{policy}.pretake"
    run = (PRETAKE, "run", *arguments, "--retake", policy)
    record = (PRETAKE, "record", "--quiet", "--force", "-o", str(trace), "--", *run)
    subprocess.run((*around, *record), check=True, capture_output=True, timeout=300)
    return trace


def events_of(trace: Path) -> int:
    manifest = json.loads((trace / "manifest.json").read_text())
    return sum(manifest["events"].values())


def speed(folder: Path) -> dict[str, Any]:
    tiny = folder / "tiny.pretake"
    generate(tiny, 24)
    start = seconds(PRETAKE, "summary", str(tiny), "--json")
    big = folder / "speed.pretake"
    events = {"pretake": generate(big, 10 * MILLION)}
    took = {"pretake": seconds(PRETAKE, "summary", str(big), "--json")}
    data = folder / "perf.data"
    perf = ("perf", "sched", "record", "-q", "-o", str(data), "--")
    same = capture(folder, "sysmon", ("echo", "--seconds", "8"), *perf)
    events["pretake, same run"] = events_of(same)
    took["pretake, same run"] = seconds(PRETAKE, "summary", str(same), "--json")
    stats = subprocess.run(
        ("perf", "report", "--stats", "-i", str(data)), check=True, capture_output=True, text=True
    ).stdout
    samples = sum(int(n) for n in re.findall(r"SAMPLE events:\s+(\d+)", stats)[:1])
    for tool, command in (("perf sched latency", "latency"), ("perf sched timehist", "timehist")):
        events[tool] = samples
        took[tool] = seconds("perf", "sched", command, "-i", str(data))
    go_trace = folder / "go.trace"
    subprocess.run((str(toolchains.build("selftrace")), "2000", str(go_trace)), check=True)
    go = str(Path(sys.executable).parent / "go")
    parsed = (go, "tool", "trace", "-d=parsed", str(go_trace))
    lines = subprocess.run(parsed, check=True, capture_output=True).stdout.count(b"\nM=")
    events["go tool trace"], took["go tool trace"] = lines, seconds(*parsed)
    return {
        "events_per_s": {tool: round(events[tool] / took[tool]) for tool in events},
        "start_s": round(start, 3),
        "events_per_s_after_start": {
            tool: round(events[tool] / (took[tool] - start))
            for tool in events
            if tool.startswith("pretake") and took[tool] > start
        },
        "events": events,
    }


def before(folder: Path) -> dict[str, Any]:
    """Both in turns, so that what else the machine does is in both.

    The old code is checked out into a worktree of its own and runs with this environment.
    """
    old = folder / "old"
    git = ("git", "-C", str(Path(__file__).parents[1]), "worktree")
    subprocess.run((*git, "add", "--quiet", "--detach", str(old), BEFORE), check=True)
    try:
        took: dict[str, list[float]] = {"now": [], "before": []}
        for name, root in (("now", Path(__file__).parents[1]), ("before", old)):
            _in(root, "-m", "bench.generate", str(10 * MILLION), str(folder / f"{name}.pretake"))
        for _ in range(ROUNDS):
            for name, root in (("now", Path(__file__).parents[1]), ("before", old)):
                begin = time.perf_counter()
                _in(root, "-m", "pretake", "summary", "--json", str(folder / f"{name}.pretake"))
                took[name].append(time.perf_counter() - begin)
    finally:
        subprocess.run((*git, "remove", "--force", str(old)), check=True)
    return {"summary_now_to_before": round(min(took["now"]) / min(took["before"]), 3)}


def _in(root: Path, *arguments: str) -> None:
    """Run Python with the packages of a source tree, whichever are installed."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = (sys.executable, *arguments)
    subprocess.run(command, check=True, cwd=root, env=environment, stdout=subprocess.DEVNULL)


def big(folder: Path) -> dict[str, Any]:
    trace = folder / "big.pretake"
    events = generate(trace, 100 * MILLION)
    begin = time.perf_counter()
    subprocess.run((PRETAKE, "summary", str(trace), "--json"), check=True, capture_output=True)
    took = time.perf_counter() - begin
    # The largest of all children so far; this part begins in a process of its own.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak_rss_bytes_100m": peak, "events_per_s_100m": round(events / took)}


def report(folder: Path) -> dict[str, Any]:
    trace, page = folder / "report.pretake", folder / "report.html"
    generate(trace, 10 * MILLION)
    took = seconds(PRETAKE, "report", str(trace), "-o", str(page), "--force")
    return {"report": {"seconds": round(took, 2), "bytes": page.stat().st_size}}


def whatif(folder: Path) -> dict[str, Any]:
    """Medians over rounds in which every workload runs under every policy once.

    So what else the machine does, which changes from minute to minute, is in all of them.
    """
    table: dict[str, Any] = {w: {p: _Predicted() for p in POLICIES} for w in WORKLOADS}
    for _ in range(ROUNDS):
        for workload, arguments in WORKLOADS.items():
            traces = {policy: capture(folder, policy, arguments) for policy in POLICIES}
            for policy, trace in traces.items():
                table[workload][policy].add_measured(trace)
            for source, policies in SOURCES.items():
                told = load(traces[source]).whatif(policies, play)
                for row in told[told["source"] == "replayed"].to_dict("records"):
                    table[workload][row["policy"]].add_predicted(source, row)
    found = {w: {p: told.result() for p, told in own.items()} for w, own in table.items()}
    for line in _lines(found):
        print(line, file=sys.stderr)
    return {"whatif": found}


class _Predicted:
    """What was predicted and what was measured of one workload under one policy."""

    def __init__(self) -> None:
        self.source = ""
        self.measured: list[float] = []
        self.predicted: list[float] = []
        self.errors: list[float] = []

    def add_measured(self, trace: Path) -> None:
        latencies = load(trace).episodes()["retake_ns"].dropna()
        if len(latencies):
            self.measured.append(float(latencies.median()))

    def add_predicted(self, source: str, row: dict[Any, Any]) -> None:
        self.source = source
        for values, name in (
            (self.predicted, "retake_p50_ns"),
            (self.errors, "retake_p50_error_percent"),
        ):
            if not pd.isna(row[name]):
                values.append(float(row[name]))

    def result(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "predicted_ns": round(median(self.predicted)) if self.predicted else None,
            "measured_ns": round(median(self.measured)) if self.measured else None,
            "measured_low_ns": round(min(self.measured, default=0)),
            "measured_high_ns": round(max(self.measured, default=0)),
            "error_percent": round(median(self.errors), 1) if self.errors else None,
        }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """The table of the documentation, and how many hits it has."""
    head = ("workload", "policy", "predicted", "measured", "of runs", "difference", "error told")
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    hits = 0
    for workload, own in found.items():
        for policy, told in own.items():
            predicted, measured = told["predicted_ns"], told["measured_ns"]
            apart = None if not measured or predicted is None else predicted / measured - 1
            hit = apart is not None and abs(apart) <= HIT
            hits += hit
            spread = [f"{told[f'measured_{end}_ns'] / 1e3:.1f}" for end in ("low", "high")]
            cells = (
                workload,
                policy,
                "none" if predicted is None else f"{predicted / 1e3:.1f} µs",
                "none" if measured is None else f"{measured / 1e3:.1f} µs",
                " to ".join(spread),
                ("" if apart is None else f"{apart:+.0%}") + ("" if hit else ", **miss**"),
                "" if told["error_percent"] is None else f"{told['error_percent']:+.0f} %",
            )
            yield f"| {' | '.join(cells)} |"
    yield f"{hits} of {sum(len(own) for own in found.values())} are hits"


PARTS = {"speed": speed, "before": before, "big": big, "report": report, "whatif": whatif}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="only this part")
    part = parser.parse_args().part
    if part is None:
        for name in PARTS:
            # A process of its own, so that peak memory is the part's.
            subprocess.run((sys.executable, "-m", "bench.analysis", "--part", name), check=True)
        return
    with tempfile.TemporaryDirectory(prefix="pretake-bench-") as folder:
        found = PARTS[part](Path(folder))
    RESULTS.parent.mkdir(exist_ok=True)
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    aside = RESULTS.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(told | found, indent=2) + "\n")
    aside.replace(RESULTS)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
