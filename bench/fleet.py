"""Time and memory of ``pretake fleet`` by the number of traces: ``python -m bench.fleet TRACE``.

A recorded trace, of 10 s as a rule, is linked N times, its manifest with another host's name. The
workers are two processes of Dask with a thread each, and the client is a process of its own for
each N, so that its peak of memory is that N's. The fit is by least squares: ``s = a + b * N``. If
the growth were not linear, the time of one trace, which stands beside it, would grow with N.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from distributed import LocalCluster

COUNTS = (125, 250, 500, 1000)
HOSTS = 40
_ONE = """
import json, resource, sys, time
from analysis.answers.fleet import fleet
from analysis.answers.found import find_traces
begin = time.perf_counter()
told = fleet(find_traces([sys.argv[1]]), sys.argv[2])
taken = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([taken, peak, told["traces"], len(told["hosts"])]))
"""


def copies(trace: Path, into: Path, count: int) -> None:
    """So many traces of :data:`HOSTS` hosts; the tables are links to those of ``trace``."""
    manifest = json.loads((trace / "manifest.json").read_text())
    for number in range(count):
        host = f"host{number % HOSTS}"
        folder = into / host / "server" / f"{number}.pretake"
        for file in sorted(path for path in trace.rglob("*") if path.is_file()):
            own = folder / file.relative_to(trace)
            own.parent.mkdir(parents=True, exist_ok=True)
            if file.name != "manifest.json":
                os.link(file, own)
        (folder / "manifest.json").write_text(json.dumps({**manifest, "host": host}))


def peak_kb(pids: Sequence[int]) -> int:
    """The largest memory that any of these processes ever had."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max(int(text.partition("VmHWM:")[2].split()[0]) for text in texts)


def measure(
    trace: Path, counts: Sequence[int], scratch: Path
) -> Iterator[tuple[int, float, int, int]]:
    """Number, seconds, peak of the client and of the larger worker in kB."""
    for count in counts:
        with (
            tempfile.TemporaryDirectory(dir=scratch) as folder,
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            ) as cluster,
        ):
            copies(trace, Path(folder), count)
            workers = [worker.pid for worker in cluster.workers.values()]
            command = [sys.executable, "-c", _ONE, folder, cluster.scheduler_address]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds, client_kb, traces, hosts = json.loads(done.stdout)
            assert (traces, hosts) == (count, min(HOSTS, count))
            yield count, float(seconds), int(client_kb), peak_kb(workers)


def main() -> None:
    """Measure, and print a line for each number and the fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path, help="a recorded trace")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    asked = parser.parse_args()
    rows = []
    trace = asked.trace.resolve()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    print("traces  seconds  ms a trace  client MB  worker MB")
    for count, seconds, client_kb, worker_kb in measure(trace, asked.counts, trace.parent):
        rows.append((count, seconds))
        each = 1000 * seconds / count
        print(
            f"{count:6} {seconds:8.1f} {each:11.1f} {client_kb / 1024:10.0f}"
            f" {worker_kb / 1024:10.0f}",
            flush=True,
        )
    numbers, taken = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if len(rows) > 1:
        slope, start = np.polyfit(numbers, taken, 1)
        left = taken - (start + slope * numbers)
        r2 = 1 - float((left**2).sum() / ((taken - taken.mean()) ** 2).sum())
        power = np.polyfit(np.log(numbers), np.log(taken), 1)[0]
        print(f"seconds = {start:.2f} + {slope:.4f} * traces, R2 {r2:.4f}; as N^{power:.2f}")


if __name__ == "__main__":
    main()
