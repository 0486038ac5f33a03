"""What attaching to a Go server with load costs it: ``python -m bench.go_server``.

The server and its load (``tests/go/server``) run all the time; a capture is attached and taken
away again, some rounds over. A round's ratio is between the answers of a second under the capture
and those of the seconds before and behind it, in the same processes. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.request import urlopen

from analysis import load
from tests.go import toolchains
from tracer.options import CaptureOptions, Progress
from tracer.record import record

RESULTS = Path(__file__).parent / "results" / "go_server.json"


def answers(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/count") as answer:
        return int(answer.read())


def rate(port: int, seconds: float) -> float:
    """Answers a second, over the next seconds."""
    count, begin = answers(port), time.monotonic()
    time.sleep(seconds)
    return (answers(port) - count) / (time.monotonic() - begin)


def rate_captured(pid: int, port: int, output: Path, seconds: float) -> float:
    """The same while a capture is attached; it is there longer, on both sides."""
    there = threading.Event()

    def told(_: Progress) -> None:
        there.set()

    options = CaptureOptions(force=True, seconds=seconds + 1)
    capture = threading.Thread(
        target=record, kwargs={"pid": pid, "output": output, "options": options, "progress": told}
    )
    capture.start()
    there.wait()
    measured = rate(port, seconds)
    capture.join()
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--procs", type=int, default=2, help="GOMAXPROCS of the server")
    asked = parser.parse_args()
    binary = str(toolchains.build("server"))
    environment = os.environ | {"GOMAXPROCS": str(asked.procs)}
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = subprocess.Popen(
            [binary, "serve"], stdout=subprocess.PIPE, text=True, env=environment
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        client = subprocess.Popen([binary, "load", str(port)])
        stack.callback(client.kill)
        rate(port, asked.seconds)  # to warm up
        before = rate(port, asked.seconds)
        for _ in range(asked.rounds):
            captured = rate_captured(server.pid, port, folder / "t", asked.seconds)
            after = rate(port, asked.seconds)
            rows.append({"alone": (before + after) / 2, "captured": captured})
            before = after
        assert server.poll() is None
        assert client.poll() is None, "a request was lost"
        summary = load(folder / "t").summary()
    ratios = [row["captured"] / row["alone"] for row in rows]
    alone = statistics.median(row["alone"] for row in rows)
    print(
        f"requests/s alone {alone:,.0f}, captured / alone: median {statistics.median(ratios):.3f}"
    )
    print("rounds: " + ", ".join(f"{ratio:.3f}" for ratio in ratios))
    print(
        f"episodes {summary['episodes']:,}, retaken {summary['retaken']:,}, lost {summary['lost']}"
    )
    machine = {"kernel": platform.release(), "cpus": os.cpu_count()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
