"""How fast and how right the analysis is: ``make bench-analysis``; ``--part NAME`` for one part.

- *speed*: events a second from files to the summary, beside ``perf sched latency`` and
  ``timehist`` on what perf recorded of the same run, and ``go tool trace -d=parsed``.
- *big*: peak memory of the summary of a trace of 100 million events.
- *report*: time and size of a report about 10 million events.
- *whatif*: predicted against measured median latency: each workload is captured under each policy
  that a real run can have; the capture under sysmon predicts the others, and block predicts it.

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
from pathlib import Path
from typing import Any

from bench.generate import generate
from tests.go import toolchains

RESULTS = Path(__file__).parent / "results" / "analysis.json"
MILLION = 1_000_000
ROUNDS = 3
PRETAKE = str(Path(sys.executable).parent / "pretake")
POLICIES = ("sysmon", "block", "sched_out", "thread_state", "integrated", "adaptive")
WORKLOADS = {
    # name: arguments of 'pretake run'
    "echo": ("echo", "--seconds", "2"),
    "echo beside a busy goroutine": ("echo", "--set", "busy=1", "--seconds", "2"),
    "mix": ("mix", "--seconds", "2"),
    "mix on 2 Ps": ("mix", "--procs", "2", "--seconds", "2"),
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
        "events": events,
    }


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
    table: dict[str, Any] = {}
    for workload, arguments in WORKLOADS.items():
        traces = {policy: capture(folder, policy, arguments) for policy in POLICIES}
        found: dict[str, Any] = {}
        for policy in POLICIES:
            # From the capture under another policy: no prediction has seen what it predicts.
            source = "block" if policy == "sysmon" else "sysmon"
            measured = json.loads(run_json(PRETAKE, "summary", str(traces[policy]), "--json"))
            told = run_json(
                PRETAKE, "whatif", str(traces[source]), "--retake", policy, "--json"
            ).splitlines()
            row = json.loads(told[-1])
            found[policy] = {
                "from": source,
                "predicted_ns": row["retake_p50_ns"],
                "measured_ns": measured["retake_ns"]["p50"],
                "error_percent": row["error_percent"],
            }
            print(workload, policy, found[policy], file=sys.stderr)
        table[workload] = found
    return {"whatif": table}


def run_json(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=300
    ).stdout.strip()


PARTS = {"speed": speed, "big": big, "report": report, "whatif": whatif}


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
