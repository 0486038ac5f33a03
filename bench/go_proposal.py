"""The proposal's question on real Go: how much does it matter in which way a network stack polls?

``make bench-go`` builds ``bench/go/netstack`` and runs it with each way to make the call, without
and with a capture. It prints the round trips beside the capture's figures: episodes, hold,
P-retake latency, harm. Needs root. Absolute times depend on the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from analysis import load
from analysis.units import duration_text
from bench import results
from tests.go import toolchains
from tracer.capture.launch import RESULT_VARIABLE
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

PROGRAMS = Path(__file__).parent / "go"
PAGE = Path(__file__).parent.parent / "docs" / "go-proposal.md"
HOWS = ("normal", "block", "raw")
CASES = ((1, 0), (1, 1), (2, 0), (2, 1), (4, 0))
"""GOMAXPROCS, and goroutines that compute beside."""
MADE = ("<!-- The table is written by make bench-go. -->", "<!-- End of the table. -->")


def alone(command: list[str], environment: dict[str, str], folder: Path) -> dict[str, int]:
    """What the program tells of a run that nobody traces."""
    result = folder / "result.json"
    subprocess.run(command, env=environment | {RESULT_VARIABLE: str(result)}, check=True)
    told: dict[str, int] = json.loads(result.read_text())
    return told


def traced(command: list[str], environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """What the program tells of a traced run, and the trace of it."""
    os.environ.update(environment)
    path = record(command, output=folder / "t.pretake", options=CaptureOptions(force=True))
    trace = load(path)
    summary = trace.summary()
    told = trace.manifest.workload or {}
    return {
        "round_trip": told,
        "episodes": summary["episodes"],
        "kept": summary["kept"],
        "handed_off": summary["handed_off"],
        "hold_p50_ns": summary["hold_ns"]["p50"],
        "retake_p50_ns": summary["retake_ns"]["p50"],
        "retake_p99_ns": summary["retake_ns"]["p99"],
        "harm_sum_ns": summary["harm_ns"]["sum"],
        "lost": summary["lost"],
    }


def measure(count: int, rounds: int, version: str) -> list[dict[str, Any]]:
    """One row a case and way; of several rounds the one with the median round trip."""
    binary = toolchains.build("netstack", version, among=PROGRAMS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for procs, busy in CASES:
            for how in HOWS:
                environment = os.environ | {"GOMAXPROCS": str(procs)}
                command = [str(binary), how, str(count), str(busy)]
                runs = [alone(command, environment, Path(folder)) for _ in range(rounds)]
                run = sorted(runs, key=lambda told: told["p50_ns"])[rounds // 2]
                captured = traced(command, environment, Path(folder))
                rows.append(
                    {"procs": procs, "busy": busy, "how": how, "alone": run, "traced": captured}
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown; the ratio is to entersyscall's round trip in the same case."""
    head = (
        *("GOMAXPROCS", "busy", "call", "round trip p50", "ratio", "p99", "traced p50"),
        *("episodes", "hold p50", "retake p50", "retake p99", "harm"),
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        base = next(
            other["alone"]["p50_ns"]
            for other in rows
            if (other["procs"], other["busy"], other["how"])
            == (row["procs"], row["busy"], "normal")
        )
        capture = row["traced"]
        cells = [
            str(row["procs"]),
            str(row["busy"]),
            row["how"],
            duration_text(row["alone"]["p50_ns"]),
            f"{row['alone']['p50_ns'] / base:.2f}",
            duration_text(row["alone"]["p99_ns"]),
            duration_text(capture["round_trip"].get("p50_ns")),
            str(capture["episodes"]),
            duration_text(capture["hold_p50_ns"]),
            duration_text(capture["retake_p50_ns"]),
            duration_text(capture["retake_p99_ns"]),
            duration_text(capture["harm_sum_ns"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000, help="round trips of a run")
    parser.add_argument("--rounds", type=int, default=5, help="runs without a capture")
    parser.add_argument("--go", default=toolchains.VERSIONS[-1], help="version of Go")
    asked = parser.parse_args()
    rows = measure(asked.count, asked.rounds, asked.go)
    text = table(rows)
    print(text)
    results.write("go", {"go": asked.go, "rows": rows})
    if PAGE.exists():
        machine = results.machine()
        where = f"Go {asked.go}, Linux {machine['kernel']}, {machine['cpus']} CPUs"
        results.put_between(PAGE, MADE, f"{where}:\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
