"""How fast and how right the analysis is: ``make bench-analysis``; ``--part NAME`` for one part.

- *speed*: events a second from files to the summary, beside ``perf sched latency`` and
  ``timehist`` on what perf recorded of the same run, and ``go tool trace -d=parsed``; the start
  of the command (a trace of one call) by itself, and the rate without it.
- *before*: ``summary`` of 10 million events here and at the commit before the budget was a pass,
  in turns, each on its own generated trace of the same events; told as a ratio.
- *perf*: ``summary`` and ``perf sched latency`` in turns, on what both recorded of one run
  (:mod:`bench.beside_perf`).
- *big*: peak memory of the summary of a trace of 100 million events.
- *report*: time and size of a report about 10 million events.
- *whatif*: predicted against measured, column by column (:mod:`bench.predictions`).
- *false_alarms*, *power*, *factors*: how often a verdict is wrong, and finds what was put in
  (:mod:`bench.verdicts`).
- *advice*: whether the told gains come true (:mod:`bench.advised`).

``--short`` has fewer and shorter runs of *perf* and of the last five: to see that they work.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import advised, beside_perf, predictions, verdicts
from bench.captured import PRETAKE, record
from bench.generate import generate
from tests.go import toolchains

RESULTS = Path(__file__).parent / "results" / "analysis.json"
MILLION = 1_000_000
ROUNDS = 3
BEFORE = "b0d2965"
"""The last commit whose summary did not run the pass."""


def seconds(*command: str) -> float:
    """The least time of a few rounds: what else runs here only ever makes it longer."""
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took.append(time.perf_counter() - begin)
    return min(took)


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
    same = record(folder / "same.pretake", (PRETAKE, "run", "echo", "--seconds", "8"), *perf)
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


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "speed": speed,
    "before": before,
    "big": big,
    "report": report,
}
SCALED: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "perf": beside_perf.perf,
    "whatif": predictions.whatif,
    "false_alarms": verdicts.false_alarms,
    "power": verdicts.power,
    "factors": verdicts.factors,
    "advice": advised.advice,
}
"""Parts that have a short form."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*PARTS, *SCALED]
    parser.add_argument("--part", choices=names, help="only this part")
    parser.add_argument("--short", action="store_true", help="fewer and shorter runs")
    asked = parser.parse_args()
    part = asked.part
    if part is None:
        for name in names:
            # A process of its own, so that peak memory is the part's.
            words = (sys.executable, "-m", "bench.analysis", "--part", name)
            subprocess.run((*words, *(("--short",) if asked.short else ())), check=True)
        return
    with tempfile.TemporaryDirectory(prefix="pretake-bench-") as folder:
        found = (
            PARTS[part](Path(folder)) if part in PARTS else SCALED[part](Path(folder), asked.short)
        )
    RESULTS.parent.mkdir(exist_ok=True)
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    aside = RESULTS.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(told | found, indent=2) + "\n")
    aside.replace(RESULTS)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
