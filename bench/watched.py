"""What ``pretake watch`` costs a server, and what it takes itself: ``python -m bench.watched``.

Two parts, both as root:

- *program*: CPU time for an answer of each server of :mod:`bench.served` while a watch with one
  rule is attached, by that just before it came; beside it the same of ``pretake record``, which
  stores what the watch keeps in memory.
- *itself*: CPU time and memory of the watch and its helpers beside the server of ``net/http``. The
  share of a core stands beside the answers a second of the same span, and the records a second
  that a capture just before it had.

Figures go to ``bench/results/watched.json``. Memory is the proportional set size.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench import results
from bench.rivals import TOOLS, Tool, attached
from bench.served import SERVERS, compare_served, http

_RULE = "hold_ns > 10 s"
"""One that does not hold: the watch evaluates it, and writes nothing."""
_SETTLE_S = 5.0
"""Its helper that loads programs has ended by then."""
_RECORD = next(tool for tool in TOOLS if tool.name == "pretake")


def _command(pid: int, folder: Path) -> list[str]:
    watch = [sys.executable, "-m", "pretake", "watch", "--pid", str(pid), "--when", _RULE]
    return [*watch, "-o", str(folder / "dumps")]


_WATCH = Tool(
    "pretake watch",
    "true",
    _command,
    ready=lambda folder: "watching" in (folder / "output").read_text(),
)


def program(rounds: int, window_s: float) -> dict[str, dict[str, float | None]]:
    """For each server and tool, the median ratio of CPU time for an answer."""
    return {
        name: {
            tool: cost.figure(cost.cpu_ratios)
            for tool, cost in compare_served(name, (_WATCH, _RECORD), rounds, window_s).items()
        }
        for name in SERVERS
    }


def itself(rounds: int, window_s: float) -> list[dict[str, float]]:
    """For each span of time: share of a core, answers and records a second, and memory."""
    spans = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, http(Path(name)) as served:
        place = Path(name)
        with attached(_RECORD, served.pid, place) as folder:
            time.sleep(window_s)
        manifest = json.loads((folder / "x.pretake" / "manifest.json").read_text())
        captured_s = (manifest["end_ns"] - manifest["begin_ns"]) / 1e9
        records_per_s = sum(manifest["events"].values()) / captured_s
        with attached(_WATCH, served.pid, place):
            (watch,) = (
                child for child in psutil.Process().children() if "watch" in child.cmdline()
            )
            time.sleep(_SETTLE_S)
            for _ in range(rounds):
                begin_s, cpu_s, answers = time.monotonic(), _cpu_s(watch), served.answers()
                time.sleep(window_s)
                took_s = time.monotonic() - begin_s
                spans.append(
                    {
                        "core": (_cpu_s(watch) - cpu_s) / took_s,
                        "answers_per_s": (served.answers() - answers) / took_s,
                        "records_per_s": records_per_s,
                        "pss_mb": _pss_mb(watch),
                    }
                )
                print("  " + ", ".join(f"{key} {value:.4g}" for key, value in spans[-1].items()))
    return spans


def _cpu_s(watch: psutil.Process) -> float:
    """Of the watch and its helpers, those that have ended as well."""
    helpers = watch.children(recursive=True)
    return sum(watch.cpu_times()[:4]) + sum(sum(each.cpu_times()[:2]) for each in helpers)


def _pss_mb(watch: psutil.Process) -> float:
    processes = [watch, *watch.children(recursive=True)]
    return sum(each.memory_full_info().pss for each in processes) / 1e6


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=3.0, metavar="S")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench.watched: capture needs root: run it with sudo")
    print("itself ...")
    spans = itself(asked.rounds, 3 * asked.window)
    print("program ...")
    ratios = program(asked.rounds, asked.window)
    for server, tools in ratios.items():
        for tool, ratio in tools.items():
            told = "not measured" if ratio is None else f"{ratio:.3f} times"
            print(f"{server:6} {tool:14} {told}")
    print(f"written: {results.write('watched', {'itself': spans, 'cpu': ratios})}")


if __name__ == "__main__":
    main()
