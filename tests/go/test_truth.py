"""The budget against the clocks of real programs: what was true, and what is told.

Each program (``truth``) writes down when its goroutines were ready and did not run, and how long
its calls took. Nothing here is faster or slower than something: told and true are of one run.
"""

from __future__ import annotations

import subprocess
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pytest

from analysis.answers.budget import Process, budget
from analysis.ptime.budget import Pass, run_pass
from analysis.ptime.engine.state import STATES
from tests.cpus import on_one_cpu
from tests.go.capture import capture
from tests.kernel.freezers import FREEZERS, freezer_of
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

VERSIONS = ("1.25.5", "1.27.3")
"""The last with a P of its own state in calls, and one without."""
GOING = STATES[1:7]
NEAR = 0.1


@dataclass
class Told:
    """A capture of one case, and what its program says."""

    trace: Trace
    waits: list[tuple[int, int]]
    calls: list[tuple[int, int]]
    figures: dict[str, int]

    def process(self) -> Process:
        """The process with the most lost P time."""
        return budget(self.trace)["processes"][0]


def run(folder: Path, case: str, version: str) -> Told:
    told = folder / "told"
    trace = capture(folder / "t", "truth", [case, str(told)], version, probes="none")
    lines = [line.split() for line in told.read_text().splitlines()]
    inner = told.with_name("told.inner")
    if inner.exists():
        lines += [f"inner_{line}".split() for line in inner.read_text().splitlines()]
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    figures = {}
    for name, *numbers in lines:
        if len(numbers) == 2:
            spans[name].append((int(numbers[0]), int(numbers[1])))
        else:
            figures[name] = int(numbers[0])
    return Told(trace, spans["wait"], spans["call"], figures)


class Shares:
    """What one P that is lost loses, as an integral over time, by the program's own waits.

    A goroutine that a P without a CPU has does not wait for a P, and its program cannot tell: so
    there is a least and a most.
    """

    def __init__(self, found: Pass, waits: list[tuple[int, int]]) -> None:
        changes = [
            change
            for name, begin, end in (
                *((STATES[s], b, e) for s, b, e in columns(found.spans, "state", *TIMES)),
                *(("waits", begin, end) for begin, end in waits),
            )
            for change in ((begin, name, 1), (end, name, -1))
        ]
        counts: Counter[str] = Counter()
        self.moments, self.least, self.most = [0], [0.0], [0.0]
        for ns, name, step in sorted(changes):
            going = sum(counts[state] for state in GOING)
            most = counts["waits"] - counts["idle"]
            least = most - counts["no_cpu"] - counts["transit"]
            passed = (ns - self.moments[-1]) / max(going, 1)
            self.least.append(self.least[-1] + passed * min(going, max(0, least)))
            self.most.append(self.most[-1] + passed * min(going, max(0, most)))
            self.moments.append(ns)
            counts[name] += step

    def of(self, begin: int, end: int) -> tuple[float, float]:
        """The least and the most of a span that begins and ends with a change."""
        first, last = (bisect_right(self.moments, ns) - 1 for ns in (begin, end))
        return self.least[last] - self.least[first], self.most[last] - self.most[first]


TIMES = ("begin_ns", "end_ns")


def columns(rows: Mapping[str, npt.NDArray[np.int64]], *names: str) -> list[tuple[int, ...]]:
    return list(zip(*(rows[name].tolist() for name in names), strict=True))


RUNS = 4


class Unseen:
    """How long a goroutine can be taken to wait before it does, or still: between two looks."""

    def __init__(self, told: Told) -> None:
        self.looks = sorted(told.trace.frame("waiting")["ts_ns"].tolist())
        self.moments, self.waited = [0], [0]
        count = 0
        steps = [(ns, step) for wait in told.waits for ns, step in zip(wait, (1, -1), strict=True)]
        for ns, step in sorted(steps):
            self.waited.append(self.waited[-1] + (ns - self.moments[-1]) * (count > 0))
            self.moments.append(ns)
            count += step

    def until(self, ns: int) -> int:
        """For how long at least one had waited; all of them have ended at the last moment."""
        at = bisect_right(self.moments, ns)
        if at == len(self.moments):
            return self.waited[-1]
        share = self.waited[at] - self.waited[at - 1]
        return self.waited[at - 1] + min(share, ns - self.moments[at - 1])

    def of(self, begin: int, end: int) -> int:
        """Of a P's block: without a waiting goroutine, and with one since the look before."""
        inside = self.looks[bisect_right(self.looks, begin) : bisect_right(self.looks, end)]
        unseen = 0
        for since, until in pairwise([begin, *inside, end]):
            waited = self.until(until) - self.until(since)
            unseen += (until - since - waited) * (waited > 0)
        return unseen


def harm_sums(told: Told) -> Counter[str]:
    """Of all holds: what was lost as told, and by the program's own waits."""
    unseen = Unseen(told)
    found = run_pass(told.trace, spans=True)
    shares = Shares(found, told.waits)
    blocked: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for p, state, begin, end in columns(found.spans, "p", "state", *TIMES):
        if STATES[state] == "syscall":
            blocked[p].append((begin, end))
    sums = Counter[str]()
    for p, begin, end, least, most in columns(
        found.holds, "p", "block_ns", "end_ns", "least_ns", "most_ns"
    ):
        spans = [(b, e) for b, e in blocked[p] if begin <= b and e <= end]
        true = [shares.of(b, e) for b, e in spans]
        sums["holds"] += 1
        if least == 0 and most > 0:
            # Nobody looked when it began: null, and counted.
            sums["untold"] += 1
            continue
        sums["least"] += least
        sums["most"] += most
        sums["true_least"] += round(sum(low for low, _ in true))
        sums["true_most"] += round(sum(high for _, high in true))
        sums["unseen"] += sum(unseen.of(b, e) for b, e in spans)
    return sums


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", ["other-queue", "due-timers", "late-work", "eight-ps", "one-p"])
def test_harm_is_the_lost_time_that_the_goroutines_saw(
    case: str, version: str, tmp_path: Path
) -> None:
    told = run(tmp_path, case, version)
    sums = harm_sums(told)
    assert sums["holds"] > len(told.calls) // 2
    assert sums["true_most"] > 0
    assert sums["least"] <= sums["true_most"] * (1 + NEAR), sums
    assert sums["most"] >= sums["true_least"] * (1 - NEAR), sums
    assert sums["least"] > 0
    # How near the most comes depends on how often anybody looks, and while the host gives the
    # machine no CPU nobody does. When a timer is due is read, and needs no look.
    unseen = 0 if case == "due-timers" else sums["unseen"]
    assert sums["most"] <= (sums["true_most"] + unseen) * (1 + NEAR), sums


def test_time_without_a_cpu_is_what_the_threads_own_clock_lacks(tmp_path: Path) -> None:
    # Another one that always wants the only CPU: so the time without one is long on any machine.
    shares: list[float] = []
    with on_one_cpu(), subprocess.Popen(["sh", "-c", "while :; do :; done"]) as other:
        try:
            while len(shares) < RUNS and min(shares, default=2) > 1 + NEAR:
                folder = tmp_path / str(len(shares))
                folder.mkdir()
                shares.append(share_of_cpu_time(run(folder, "without-cpu", VERSIONS[-1])))
        finally:
            other.kill()
    # What the host took is not in the thread's clock, and no switch tells of it.
    assert min(shares) <= 1 + NEAR, shares


def share_of_cpu_time(told: Told) -> float:
    """The time that is told as running, as a share of the thread's CPU time."""
    states = told.process()["states"]
    true = told.figures["without_cpu"]
    assert states["no_cpu"] <= true + (told.process()["p_ns"] - told.figures["wall"])
    assert states["no_cpu"] > true / 2
    # What it did not wait for a CPU it waited for its P, in another M's hands or on the idle list,
    # after sysmon had asked it to stop. None of that is told as running.
    cpu = told.figures["wall"] - true
    assert cpu * (1 - NEAR) <= states["running"] + states["unknown"]
    return states["running"] / cpu


@pytest.fixture(params=FREEZERS)
def freezer(request: pytest.FixtureRequest) -> Iterator[str]:
    """A shell's lines that freeze the process $1, let time pass, and let it go on."""
    with freezer_of(request.param) as its:
        yield (
            f"echo $1 > {its.group}/cgroup.procs; sleep 0.2; echo {its.freeze} > {its.file};"
            f" sleep 0.7; echo {its.thaw} > {its.file}; echo $1 > {its.root}/cgroup.procs"
        )


def test_a_program_that_a_signal_stops_is_stopped_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_stopped_by("sleep 0.2; kill -STOP $1; sleep 0.7; kill -CONT $1", tmp_path, monkeypatch)


def test_a_program_whose_cgroup_is_frozen_is_stopped_so_long(
    freezer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_stopped_by(freezer, tmp_path, monkeypatch)


def is_stopped_by(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPS", script)
    told = run(folder, "stopped", VERSIONS[-1])
    states = told.process()["states"]
    assert states["stopped"] <= told.figures["gap"]
    assert states["stopped"] + states["no_cpu"] >= told.figures["gap"] * (1 - NEAR)
    assert states["stopped"] > told.figures["gap"] / 2
    assert states["fault"] < told.figures["gap"] * NEAR


@pytest.mark.parametrize("version", VERSIONS)
def test_ps_are_taken_from_calls_that_do_not_block(version: str, tmp_path: Path) -> None:
    told = run(tmp_path, "long-calls", version)
    taken = told.process()["taken"]
    # The first read is not among those that the program counts.
    took = taken["on_cpu"] + taken["preempted"] + taken["unknown"]
    assert told.figures["taken"] <= took
    assert taken["blocked"] <= 1


@pytest.mark.usefixtures("ahead_of_others")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("case", "of", "what"),
    [
        ("stops", "function", "runtime.memclrNoHeapPointers"),
        ("raw-stops", "syscall", "read"),
    ],
)
def test_a_stop_takes_as_long_as_who_asked_for_it_waited(
    case: str, of: str, what: str, version: str, tmp_path: Path
) -> None:
    told = run(tmp_path, case, version)
    found = run_pass(told.trace)
    stops = columns(found.stops, "begin_ns", "stand_ns", "end_ns")
    # One that stood when it was seen first has no known length.
    assert all(begin < stands <= end for begin, stands, end in stops if stands != UNKNOWN)
    shares = []
    for begin, end in told.calls:
        stopped = sum(max(min(e, end) - max(b, begin), 0) for b, _, e in stops)
        shares.append(stopped / (end - begin))
    # Who asks may lose its CPU to another virtual machine between its clock and the stop, which no
    # kernel in here sees: so most calls are as long as their stops, and none is shorter.
    assert max(shares) <= 1 + NEAR, shares
    assert median(shares) >= 1 - NEAR, shares
    waited_for = told.process()["stops"]["waited_for"]
    assert waited_for[0][of] == what
    # Of most of it, who is known: a thread tells where it is when it is asked to stop.
    nameless = sum(row["ns"] for row in waited_for if row["function"] is None)
    assert nameless <= NEAR * sum(row["ns"] for row in waited_for)


def test_a_p_that_a_returning_thread_takes_runs_on_at_once(tmp_path: Path) -> None:
    told = run(tmp_path, "takebacks", VERSIONS[-1])
    process = told.process()
    latency = process["without_goroutine_ns"]
    # Between two looks an M may take a P that was on its way: then nobody knows when.
    assert latency["unknown"] < latency["count"] / 2
    assert process["holds"]["count"] >= len(told.calls) / 2


@pytest.mark.parametrize("case", ["procs", "fewer-procs"])
def test_ps_are_as_many_as_the_program_asked_for_at_each_time(case: str, tmp_path: Path) -> None:
    told = run(tmp_path, case, VERSIONS[-1])
    p_ns, least, most = (
        told.process()["p_ns"],
        told.figures["least_p_ns"],
        told.figures["most_p_ns"],
    )
    # Beside it the time before and after what the program measured, with its other Ps.
    assert (1 - NEAR) * least <= p_ns <= (1 + NEAR) * most


def test_a_child_has_its_own_ps_and_its_own_time(tmp_path: Path) -> None:
    told = run(tmp_path, "child", VERSIONS[-1])
    process = told.process()
    # The headline is the child's: the other one only sleeps.
    assert process["pid"] == told.figures["inner"]
    own, most = told.figures["inner_p_ns"], told.figures["most_p_ns"]
    assert own <= process["p_ns"] <= most


def test_latency_is_how_long_nobody_ran_after_a_block(tmp_path: Path) -> None:
    """By the goroutine that runs next: it sees that another began to block, and since when."""
    told = run(tmp_path, "stalls", VERSIONS[-1])
    found = run_pass(told.trace)
    ran = [
        (s, u) for s, u, end in columns(found.latencies, "since_ns", "until_ns", "end") if end == 1
    ]
    seen = 0
    for since, until in ran:
        # The program's two clocks lie around: it told of the block before, and ran after.
        around = [w for w in told.waits if w[0] <= since and until <= w[1]]
        seen += len(around)
        assert len(around) <= 1
    assert seen >= len(ran) * (1 - NEAR)
