"""Mutants of the looks: each reads one field of M, P or the slice of Ps elsewhere, and is found.

``taken`` tells of each of its calls whether it lost its P, by what another goroutine did
meanwhile, and when its only timer is due.
"""

from __future__ import annotations

import pytest

from tests.go.looked import inspected, looked
from tracer.capture.programs import Programs
from tracer.targets.go import GoBinary
from tracer.trace.schema import UNKNOWN

VERSIONS = ("1.19.8", "1.24.11", "1.26.6", "1.27.3")
COUNT = 40
RUNS = 4
"""What the program knows of its reads, and the looks, may differ where a CPU is taken away: a P
that was taken goes back before the other goroutine had a turn; one goes in the moment in which the
call returns, or before the call begins. So one of so many runs has to be told as it was."""
ONE_P = {"GOMAXPROCS": "1", "GODEBUG": "asyncpreemptoff=1"}
SECOND_NS = 10**9
FOR_EVER_NS = 1 << 62
NR_READ = 0

EIGHT_BYTES = ("m_oldp", "m_nextp", "p_m", "p_timer_modified", "allp")
FOUR_BYTES = ("m_syscalltick", "p_syscalltick")


def faults_of(
    kernel: Programs, binary: GoBinary, capfd: pytest.CaptureFixture[str], **wrong: int
) -> list[str]:
    """What the looks say that the program does not."""
    tables = looked(kernel, binary, str(COUNT), ONE_P, **wrong)
    *calls, due = capfd.readouterr().out.splitlines()
    begins_ns, told = zip(*(map(int, call.split()) for call in calls), strict=True)
    assert any(told[::2]), "the program does not end its long reads before one has lost its P"
    blocks, runtime = (tables[name].sort_values("ts_ns") for name in ("block", "runtime"))
    reads = blocks[(blocks["nr"] == NR_READ) & (blocks["goid"] == 1)]
    retakes = runtime[runtime["kind"] == "retake"]
    faults = []
    seen = []
    for begin_ns, end_ns in zip(begins_ns, [*begins_ns[1:], FOR_EVER_NS], strict=True):
        own = retakes[retakes["ts_ns"].between(begin_ns, end_ns)]
        # A read that is over before it sleeps has no block.
        tids = reads.loc[reads["ts_ns"].between(begin_ns, end_ns), "tid"]
        right = (own["p"] == 0) & (own["goid"] == 1) & own["target_tid"].isin(tids)
        seen.append(len(own) if right.all() else UNKNOWN)
    # Not of the short ones: those return in the very moment in which sysmon may take their P.
    if seen[::2] != list(told[::2]):
        faults.append(f"of the reads lost their P {told}, and told is {seen}")
    kinds = runtime["kind"].value_counts()
    # Each P that is taken is given to an M, by its nextp, and none is put away.
    lost = sum(told[::2])
    if kinds["startm"] < lost or kinds["acquirep"] < lost:
        faults.append(f"P was given on {lost} times, and told are {dict(kinds)}")
    if set(runtime.loc[runtime["kind"] == "acquirep", "p"]) - {0}:
        faults.append("there is one P, and another one was acquired")
    states = tables["pstate"].sort_values("ts_ns")
    running = states[states["status"] == "running"]
    threads = set(tables["task"]["tid"])
    # From Go 1.26 on, P in a call is running too, and may name the M that it was taken from last.
    if not len(running) or not set(running["tid"]) <= threads:
        faults.append("a P that runs is no thread's of the program")
    ticks = states["syscalltick"]
    if not ticks.is_monotonic_increasing or not COUNT <= ticks.max() <= 10 * COUNT:
        faults.append(f"{COUNT} calls moved the tick to {ticks.max()}")
    timers = tables["waiting"]["timer_ns"]
    if not (timers - int(due)).between(0, SECOND_NS).any():
        faults.append("the timer is not due when it was moved to")
    return faults


@pytest.mark.parametrize("version", VERSIONS)
def test_each_wrong_offset_is_found(
    kernel: Programs, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    binary = inspected("taken", version)
    faults = []
    for _ in range(RUNS):
        faults.append(faults_of(kernel, binary, capfd))
        if not faults[-1]:
            break
    assert faults[-1] == [], faults
    unfound = []
    for field in (*EIGHT_BYTES, *FOUR_BYTES):
        right = getattr(binary.layout, field)
        assert right != UNKNOWN
        step = 4 if field in FOUR_BYTES else 8
        for offset in (right + step, right - step, UNKNOWN):
            if not faults_of(kernel, binary, capfd, **{field: offset}):
                unfound.append(f"{field} {right} as {offset}")
    assert unfound == []
