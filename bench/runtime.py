"""How fast the reference runtime is, beside what people use, and its policies side by side.

    python -m bench.runtime [--repeat 5] [--seconds 1] [--only echo …] [--document]

Peers and policies take turns in each round, and the median of the rounds counts, so that whatever
else the machine does meets all of them. Writes bench/results/runtime.json; ``--document`` also
writes the tables of docs/runtime-bench.md again, and ``--markdown`` only prints them from the
results of the last run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers import LIVE, PEERS
from bench.policies import CASES, NEED_ROOT, POLICIES
from bench.results import put_between
from bench.tables import BEGIN, END, markdown, ratios
from reference_runtime.current import COMPILED

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GO_PROGRAM = HERE / "programs" / "peers.go"


def output_of(*command: str | Path) -> str:
    """What a measuring process prints last."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout.strip().splitlines()[-1]


def build_go() -> Path | None:
    """The Go peers; None where there is no Go."""
    go = Path(sys.executable).with_name("go")
    if not go.exists():
        return None
    program = RESULTS / "peers"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    subprocess.run([go, "build", "-o", program, GO_PROGRAM], check=True, env=environment)
    return program


def measure_peers(repeat: int) -> dict[str, dict[str, float]]:
    """ns by what and peer."""
    go = build_go()
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(repeat):
        for what in ("switch", "spawn", "ping_pong"):
            for peer, measures in PEERS.items():
                if what in measures:
                    ns = float(output_of(sys.executable, "-m", "bench.peers", peer, what))
                    times.setdefault(what, {}).setdefault(peer, []).append(ns)
            if go is not None:
                ns = float(output_of(go, what))
                times.setdefault(what, {}).setdefault("go", []).append(ns)
    return {
        what: {peer: round(median(values), 1) for peer, values in peers.items()}
        for what, peers in times.items()
    }


def measure_policies(
    repeat: int, seconds: float, names: list[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """By workload and policy; the median of each figure over the rounds."""
    told: dict[str, dict[str, dict[str, Any]]] = {}
    for name in names:
        print(f"  {name}", file=sys.stderr, flush=True)
        rows: dict[str, list[dict[str, Any]]] = {}
        for _ in range(repeat):
            for policy in POLICIES:
                if policy in CASES[name].skip or (policy in NEED_ROOT and os.geteuid() != 0):
                    continue
                asked = json.dumps({"workload": name, "policy": policy, "seconds": seconds})
                row = json.loads(output_of(sys.executable, "-m", "bench.policies", asked))
                rows.setdefault(policy, []).append(row)
        told[name] = {policy: middle(runs) for policy, runs in rows.items()}
    return told


def measure_parallel(repeat: int) -> dict[str, dict[str, Any]]:
    """By Python: throughput of 2 Ps by that of 1, in Python code."""
    pythons = {"gil": ["-m", "bench.parallel"]}
    pythons["no_gil"] = ["-m", "tools.free_threaded", *pythons["gil"]]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for _ in range(repeat):
        for name, command in pythons.items():
            runs[name].append(json.loads(output_of(sys.executable, *command)))
    return {name: middle(rows) for name, rows in runs.items()}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure; null where no run had it."""
    medians: dict[str, Any] = {}
    for key in runs[0]:
        values = [run[key] for run in runs if run[key] is not None]
        medians[key] = median(values) if values else None
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run of a policy")
    parser.add_argument(
        "--only", nargs="*", choices=[*CASES, "peers", "parallel"], help="measure only these"
    )
    parser.add_argument("--markdown", action="store_true", help="print the last run's tables")
    parser.add_argument("--document", action="store_true", help="rewrite the documentation's")
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "runtime.json"
    if asked.markdown:
        print(markdown(json.loads(file.read_text())))
        return
    if not COMPILED:
        raise SystemExit("the runtime is interpreted: tools/setup.sh build")
    known: dict[str, Any] = json.loads(file.read_text()) if asked.only and file.exists() else {}
    known["machine"] = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    if not asked.only or "peers" in asked.only:
        print("peers", file=sys.stderr, flush=True)
        peers = measure_peers(asked.repeat)
        known["switch_ns"] = peers["switch"]
        known["spawn_ns"] = peers["spawn"]["runtime"]
        known["spawn_peers_ns"] = peers["spawn"]
        known["ping_pong_ns"] = peers["ping_pong"]
        bytes_each = float(output_of(sys.executable, "-m", "bench.peers", "runtime", "live"))
        known["live"] = {"count": LIVE, "bytes_each": round(bytes_each, 1)}
        from bench import sim

        known["sim_events_per_s"] = sim.measure()["sim_events_per_s"]
    if not asked.only or "parallel" in asked.only:
        print("parallel", file=sys.stderr, flush=True)
        known["parallel"] = measure_parallel(asked.repeat)
    print("policies", file=sys.stderr, flush=True)
    names = [name for name in CASES if not asked.only or name in asked.only]
    known.setdefault("policies", {}).update(measure_policies(asked.repeat, asked.seconds, names))
    file.write_text(json.dumps(known, indent=1))
    print("\n".join(ratios(known)))
    print(f"\n{os.path.relpath(file)} has all figures")
    if asked.document:
        page = HERE.parent / "docs" / "runtime-bench.md"
        put_between(page, (BEGIN, END), markdown(known))


if __name__ == "__main__":
    main()
