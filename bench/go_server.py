"""What attaching to a Go server with load costs it: ``python -m bench.go_server``.

The server and its load (``tests/go/server``) run all the time: eight connections that ask again as
soon as they have an answer. A capture is attached and removed again and again. A pair is two
seconds with it and two without, and every second pair begins without it. So a slow minute of the
machine affects both. The server has one CPU. The load and the capture's own reader have another
one, if there are two, so that they do not take turns with the server. The work of the capture's
programs in the kernel is counted as the server's own time.

It prints answers per second, and the server's CPU time for each answer. The second figure is the
steadier one, because it does not depend on what else ran. Needs root; takes less than two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

from analysis import load
from bench import results
from tests.go import toolchains
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record

MARGIN_S = 0.8
"""A capture stays so much longer than what is measured: it tells that it is there a quarter of a
second after it is, and the question how many were answered waits in line."""


@dataclass(frozen=True)
class Span:
    """What the server did in a span of time.

    Args:
        answers_per_s: requests answered.
        cpu_ns: CPU time of the server, user and system, for each of them.
    """

    answers_per_s: float
    cpu_ns: float


class Server:
    """A server under load, which answers for as long as both run."""

    def __init__(self, binary: Path, procs: int) -> None:
        server_cpus, load_cpus = _apart()
        environment = os.environ | {"GOMAXPROCS": str(procs)}
        self._server = subprocess.Popen(
            _on(server_cpus, str(binary), "serve"),
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._server.stdout is not None
        self.pid = self._server.pid
        self._port = int(self._server.stdout.readline())
        self._load = subprocess.Popen(_on(load_cpus, str(binary), "load", str(self._port)))
        # The threads of the capture, which this process starts later, are not on the server's CPU.
        os.sched_setaffinity(0, load_cpus)

    def measure(self, seconds: float) -> Span:
        """Look on for so long."""
        begin = time.monotonic_ns()
        answers, cpu_ns = self._answers(), self._cpu_ns()
        time.sleep(seconds)
        answered, spent_ns = self._answers() - answers, self._cpu_ns() - cpu_ns
        return Span(answered * 1e9 / (time.monotonic_ns() - begin), spent_ns / answered)

    def lives(self) -> bool:
        """Whether both still run; the load ends at the first answer that is missing or wrong."""
        return self._server.poll() is None and self._load.poll() is None

    def close(self) -> None:
        for process in (self._load, self._server):
            process.kill()
            process.wait()

    def _answers(self) -> int:
        with urlopen(f"http://127.0.0.1:{self._port}/count") as answer:
            return int(answer.read())

    def _cpu_ns(self) -> int:
        # clock_getcpuclockid(3): the CPU clock of another process.
        return time.clock_gettime_ns(~self.pid << 3 | 2)


def _apart() -> tuple[set[int], set[int]]:
    """CPUs for the server, and for all else; the same where there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


def _on(cpus: set[int], *command: str) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, sorted(cpus))), *command]


@contextlib.contextmanager
def captured(pid: int, output: Path, seconds: float) -> Iterator[None]:
    """A capture of a process, attached for longer than so many seconds."""
    attached = threading.Event()

    def told(_: Progress) -> None:
        attached.set()

    options = CaptureOptions(force=True, seconds=seconds + MARGIN_S)
    capture = threading.Thread(
        target=record, kwargs={"pid": pid, "output": output, "options": options, "progress": told}
    )
    capture.start()
    attached.wait()
    yield
    covered = capture.is_alive()
    capture.join()
    assert covered, "the capture ended before the span did"


def measure_pairs(
    server: Server, output: Path, pairs: int, seconds: float
) -> list[dict[str, Span]]:
    """Spans without and with a capture, two by two."""

    def alone() -> Span:
        return server.measure(seconds)

    def under_capture() -> Span:
        with captured(server.pid, output, seconds):
            return server.measure(seconds)

    measured = []
    for number in range(pairs):
        ways = {"alone": alone, "captured": under_capture}
        order = ("alone", "captured") if number % 2 == 0 else ("captured", "alone")
        measured.append({way: ways[way]() for way in order})
    return measured


def ratios(pairs: list[dict[str, Span]], what: str) -> dict[str, float]:
    """Captured to alone: the median of all pairs, and the quartiles."""
    found = [getattr(pair["captured"], what) / getattr(pair["alone"], what) for pair in pairs]
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return {"median": median, "low_quartile": low, "high_quartile": high}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--procs", type=int, default=2, help="GOMAXPROCS of the server")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("go_server: a capture needs root: run it with sudo")
    with contextlib.ExitStack() as stack:
        trace = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "t"
        server = stack.enter_context(
            contextlib.closing(Server(toolchains.build("server"), asked.procs))
        )
        measure_pairs(server, trace, 1, seconds=0.5)  # to warm up, and to compile what is loaded
        pairs = measure_pairs(server, trace, asked.pairs, asked.seconds)
        assert server.lives(), "a request was lost"
        summary = load(trace).summary()
    figures = {
        "throughput_ratio": ratios(pairs, "answers_per_s"),
        "cpu_ratio": ratios(pairs, "cpu_ns"),
    }
    alone = statistics.median(pair["alone"].answers_per_s for pair in pairs)
    cpu_ns = statistics.median(pair["alone"].cpu_ns for pair in pairs)
    print(f"alone: {alone:,.0f} answers/s, {cpu_ns / 1000:.1f} µs of CPU each")
    for name, told in figures.items():
        spread = f"quartiles {told['low_quartile']:.3f} to {told['high_quartile']:.3f}"
        print(f"{name}, captured to alone, {len(pairs)} pairs: {told['median']:.3f} ({spread})")
    print(f"last capture: {summary['episodes']:,} episodes, {summary['lost']} records lost")
    rows = [{way: asdict(span) for way, span in pair.items()} for pair in pairs]
    written = results.write(
        "go_server",
        {"go": toolchains.VERSIONS[-1], "procs": asked.procs, **figures, "pairs": rows},
    )
    print(f"written: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
