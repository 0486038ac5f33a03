"""What each part of a capture costs the worst case: ``python -m bench.parts``.

The pipes run on one CPU without an end and report the CPU time of a round trip. The programs are
attached to their tracepoints and removed in turns, with one part after the other left out. Each
figure is from a pair of measurements a fraction of a second apart, and is CPU time, so other work
of the machine disturbs it little. There are no uprobes. The pipes have two Ps, and their runtime
has little to do.

A pair in which the pipes stood still, so that one of its spans has no whole slice, is left out and
counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import slices
from bench.slices import Slice
from tests.go import toolchains
from tracer.capture.programs import Programs
from tracer.kernel import bpf
from tracer.kernel.compiler import TRACEPOINTS
from tracer.kernel.fitting import fitted_programs
from tracer.targets import runtimes_of_process

__all__ = ["NO_PAIR", "PARTS", "Cost", "costs", "parts", "show"]

PROGRAMS = Path(__file__).parent / "programs"
_BUFFER_BYTES = 256 << 20
_DRAIN_S = 0.005
_SYSCALLS = frozenset({"sys_enter", "sys_exit"})
_SCHEDULER = frozenset({"sched_switch", "sched_waking"})
NO_PAIR = "the pipes stood still, no whole slice of theirs is in the window"
"""Why a pair is left out."""
# r0 = 0; exit
_NOTHING = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)


@dataclass(frozen=True)
class Part:
    """One way to capture.

    Args:
        defines: what the programs are compiled with.
        runtime: whether the target's runtime is in reach.
        leave_out: tracepoints to go without.
        empty: programs that do nothing.
    """

    defines: tuple[str, ...] = ()
    runtime: bool = False
    leave_out: frozenset[str] = frozenset()
    empty: bool = False


PARTS = {
    "everything": Part(("INFER",), runtime=True),
    "no stacks (--no-stacks)": Part(("INFER", "NO_STACKS"), runtime=True),
    "no runtime's state (--runtime none)": Part(),
    "that, and no wake-ups": Part(leave_out=frozenset({"sched_waking"})),
    "everything, histograms instead of records (live)": Part(("INFER", "LIVE"), runtime=True),
    "with the calls' tracepoints (--calls exact)": Part(("INFER", "CALLS_EXACT"), runtime=True),
    "every call (--detail full)": Part(("INFER", "DETAIL_FULL"), runtime=True),
    "programs that do nothing": Part(leave_out=_SYSCALLS, empty=True),
    "the same, and at sys_enter and sys_exit": Part(empty=True),
}


@dataclass(frozen=True)
class Cost:
    """Of one part: CPU time of a round trip, against the same without a capture.

    Args:
        ratio: the median of the pairs.
        least: of the pairs.
        most: likewise.
        added_ns: the median of the pairs.
        pairs: how many could be measured.
        left_out: how many had a span without a whole slice.
    """

    ratio: float
    least: float
    most: float
    added_ns: float
    pairs: int
    left_out: int


Spans = Mapping[str, Sequence[tuple[int, int, int, int]]]
"""For each part and pair: begin and end without it, begin and end with it, ns."""


def parts(rounds: int, window_s: float) -> dict[str, Cost | None]:
    """Measure every one of :data:`PARTS`; None of one that has no pair.

    Args:
        rounds: pairs of each part.
        window_s: of each of a pair's two; it is made long enough for a whole slice.
    """
    window_s = max(window_s, slices.WHOLE_S)
    spans: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in PARTS}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, contextlib.ExitStack() as stack:
        told = Path(folder) / "slices"
        pid = stack.enter_context(_pipes(told))
        time.sleep(1)
        captures = {name: _Capture(part, pid) for name, part in PARTS.items()}
        for capture in captures.values():
            stack.callback(capture.close)
        for _ in range(rounds):
            for name, capture in captures.items():
                begin_ns = time.monotonic_ns()
                time.sleep(window_s)
                untraced_ns = time.monotonic_ns()
                capture.attach()
                attached_ns = time.monotonic_ns()
                capture.drain_for(window_s)
                end_ns = time.monotonic_ns()
                capture.detach()
                spans[name].append((begin_ns, untraced_ns, attached_ns, end_ns))
        return costs(spans, slices.read(told))


def costs(spans: Spans, told: Sequence[Slice]) -> dict[str, Cost | None]:
    """What the pairs of each part say; None where none says anything."""
    result: dict[str, Cost | None] = {}
    for name, rows in spans.items():
        pairs = []
        for begin_ns, untraced_ns, attached_ns, end_ns in rows:
            # Whole ones only: a slice that reaches out of its span is of both.
            without = slices.cost_ns(slices.whole(told, begin_ns, untraced_ns), of_cpu=True)
            traced = slices.cost_ns(slices.whole(told, attached_ns, end_ns), of_cpu=True)
            if without is not None and traced is not None:
                pairs.append((without, traced))
        ratios = sorted(traced / without for without, traced in pairs)
        result[name] = None
        if pairs:
            result[name] = Cost(
                ratio=statistics.median(ratios),
                least=ratios[0],
                most=ratios[-1],
                added_ns=statistics.median(traced - without for without, traced in pairs),
                pairs=len(pairs),
                left_out=len(rows) - len(pairs),
            )
    return result


@contextlib.contextmanager
def _pipes(told: Path) -> Iterator[int]:
    """The program on the first CPU, and this process on the others."""
    binary = toolchains.build("pipes", among=PROGRAMS)
    others = os.sched_getaffinity(0) - {0} or {0}
    before = os.sched_getaffinity(0)
    with told.open("w") as output:
        process = subprocess.Popen(
            ["taskset", "-c", "0", str(binary)],
            stdout=output,
            env=os.environ | {"GOMAXPROCS": "2"},
        )
    os.sched_setaffinity(0, others)
    try:
        yield process.pid
    finally:
        os.sched_setaffinity(0, before)
        process.kill()
        process.wait()


class _Capture:
    def __init__(self, part: Part, pid: int) -> None:
        self._part = part
        self._pid = pid
        self._programs = Programs(_BUFFER_BYTES, defines=dict.fromkeys(part.defines, 1))
        self._fds: list[int] = []
        if part.runtime:
            for binary in runtimes_of_process(pid):
                self._programs.layouts.set_layout(pid, 0, binary.layout)

    def attach(self) -> None:
        if not self._part.empty:
            self._programs.probes.attach(self._part.leave_out)
            self._programs.followed.follow(self._pid)
            return
        ids = fitted_programs({}).btf_ids
        for name, function in TRACEPOINTS.items():
            if name in _SYSCALLS | _SCHEDULER and name not in self._part.leave_out:
                how = bpf.TRACING, _NOTHING, bpf.TRACE_TRACEPOINT, ids[function]
                program = bpf.load_program("nothing", *how)
                self._fds += [program, bpf.open_tracepoint(program)]

    def drain_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            time.sleep(_DRAIN_S)
            self._discard()

    def detach(self) -> None:
        self._programs.probes.detach()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._discard()

    def _discard(self) -> None:
        for ring in self._programs.rings.rings.values():
            ring.peek()
            ring.release()

    def close(self) -> None:
        self._programs.close()


def show(found: Mapping[str, Cost | None]) -> None:
    """As rows of the table in docs/capture.md."""
    for name, cost in found.items():
        if cost is None:
            print(f"pipes  {name:50} not measured: {NO_PAIR}")
            continue
        spread = f"{cost.ratio:.2f} ({cost.least:.2f}-{cost.most:.2f})"
        print(
            f"pipes  {name:50} {spread} times its CPU time, {cost.added_ns:+.0f} ns a round trip"
        )
        if cost.left_out:
            of = cost.pairs + cost.left_out
            print(f"{'':7}{'':50} {cost.left_out} of {of} pairs left out: {NO_PAIR}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--window", type=float, default=0.3, metavar="S")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench.parts: capture needs root: run it with sudo")
    show(parts(chosen.rounds, chosen.window))


if __name__ == "__main__":
    main()
