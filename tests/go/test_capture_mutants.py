"""Mutants of the capture: each reads one thing wrongly, or misses it, and each is found.

``looked`` tells what its own scheduler was at each call, in numbers that all differ. A capture
that reads a field at another offset, takes the other model of a P in a system call, or goes
without a tracepoint tells something else; :func:`faults_of` has to see that, whatever the
mutation is.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.go.looked import built
from tests.go.looking import LOOK_COLUMNS, build_looked
from tests.go.toolchains import minor
from tests.kernel.watched import Watched
from tracer.capture.layouts import FileIdentity
from tracer.capture.programs import Programs
from tracer.targets import go
from tracer.targets.layout import RuntimeLayout
from tracer.trace.schema import UNKNOWN

VERSIONS = ("1.19.8", "1.24.11", "1.26.6", "1.27.3")
COUNT = 3
NR_READ, NR_WRITE = 0, 1

FIELDS = ("g_tls", "g_m", "g_goid", "g_status", "m_id", "m_procid", "m_curg", "m_p", "p_id")
QUEUES = ("p_runqhead", "p_runqtail", "p_runnext")
SCHED = ("sched", "sched_npidle", "sched_nmspinning", "sched_runqsize")
TO_1_25 = ("m_oldp", "m_syscalltick", "p_status", "p_syscalltick")
"""What only tells whether P is still there where a P in a system call has a status of its own."""

FOUR_BYTES = (
    *("g_status", "p_id", "p_status", "p_runqhead", "p_runqtail"),
    *("m_syscalltick", "p_syscalltick"),
    *("sched_npidle", "sched_nmspinning", "sched_runqsize"),
)

TRACEPOINTS = (
    *("sched_process_fork", "sched_process_exec", "sched_process_exit"),
    *("sched_switch", "sched_waking", "sys_enter", "sys_exit"),
)


LOST_EARLY = "the write had lost its P before it first blocked"
"""So it is told by most mutants, and is true where a busy machine keeps the write off its CPU."""
PLAYS = 20
RUNS = 4
"""A thread that loses its CPU between its look at the scheduler and its block may be preempted
there, or lose its P: then it is told otherwise than it was at the look. So one of so many plays
has to be told as it was."""


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    made = Programs(1 << 20, defines={"DETAIL_FULL": 1})
    yield made
    made.close()


def inspect(version: str) -> go.GoBinary:
    binary = go.inspect(built(build_looked, version))
    assert binary is not None
    return binary


def watch(
    programs: Programs, path: Path, layout: RuntimeLayout, leave_out: tuple[str, ...] = ()
) -> tuple[dict[str, pd.DataFrame], list[list[int]]]:
    """What was captured, and what the program told of itself."""
    programs.layouts.set_binary(FileIdentity.of(path.stat()), layout)
    command = ["env", "GODEBUG=asyncpreemptoff=1", str(path), str(COUNT)]
    with Watched(command, programs=programs, leave_out=leave_out) as watched:
        told = [json.loads(watched.hear()) for _ in range(2 * COUNT + 1)]
    return watched.tables, told


def played(programs: Programs, path: Path, layout: RuntimeLayout) -> list[str]:
    """The faults of a play, in which the program met more than one P, by its own word.

    It met them in calls of one kind: in a raw call P has another status, and a status is a number
    that a P can have.
    """
    tables, told = watch(programs, path, layout)
    assert len({look[LOOK_COLUMNS.index("p")] for look in told[:-1]}) > 1
    return faults_of(tables, told)


def faults_of(tables: dict[str, pd.DataFrame], told: list[list[int]]) -> list[str]:
    """What the capture says that the program does not."""
    faults = []
    blocks, calls, tasks = tables["block"], tables["syscall"], tables["task"]
    tids = {look[LOOK_COLUMNS.index("tid")] for look in told}
    # Behind those that it told of come the pauses of who reads from the pipe.
    reads = blocks[blocks["nr"] == NR_READ].sort_values("ts_ns")[: len(told)]
    seen = reads[list(LOOK_COLUMNS)].astype("Int64").fillna(UNKNOWN).to_numpy().tolist()
    if seen != told:
        faults.append(f"it was {told}, and told as {seen}")
    if reads["p_use"].tolist() != ["syscall"] * 2 * COUNT + ["raw"]:
        faults.append(f"a P that was held is told as {reads['p_use'].tolist()}")

    writes = blocks[blocks["nr"] == NR_WRITE].sort_values("ts_ns")
    # The last call of all that blocked in a write.
    writes = writes[writes["enter_ns"] == writes["enter_ns"].max()] if len(writes) else writes
    uses = writes["p_use"].astype(object).where(writes["p_use"].notna(), None).tolist()
    # sysmon takes P when it comes by, for good: between the first block and the last, as a rule.
    held = uses.count("syscall")
    lost = ["handed_off"] * (len(uses) - held)
    if len(uses) >= 5 and uses == lost:
        faults.append(LOST_EARLY)
    elif len(uses) < 5 or not lost or uses != ["syscall"] * held + lost:
        faults.append(f"the write lost its P in one of its blocks, and it is told as {uses}")

    for number, block in enumerate(reads.itertuples()):
        own = calls[(calls["tid"] == block.tid) & (calls["enter_ns"] == block.enter_ns)]
        if own["blocks"].tolist() != [1]:
            faults.append(f"call {number} blocked once, and is told as {own['blocks'].tolist()}")
    wakes, switches = tables["sched_wakeup"], tables["sched_switch"]
    if wakes["tid"].isin(tids).sum() < len(told):
        faults.append("it was not woken as often as it slept")
    left = switches[switches["prev_tid"].isin(tids) & (switches["prev_state"] == "blocked")]
    if not set(reads["ts_ns"]) <= set(left["ts_ns"]) or not tids <= set(switches["next_tid"]):
        faults.append("it did not leave its CPU when it blocked")
    kinds = {kind: set(rows["tid"]) for kind, rows in tasks.groupby("kind", observed=True)}
    if not tids <= kinds.get("fork", set()) & kinds.get("exit", set()):
        faults.append("its thread did not begin or not end")
    if "exec" not in kinds:
        faults.append("the program did not begin")
    return faults


@pytest.mark.parametrize("version", VERSIONS)
def test_each_wrong_offset_is_found(programs: Programs, version: str) -> None:
    binary = inspect(version)
    layout = binary.layout
    plays = (played(programs, binary.path, layout) for _ in range(PLAYS))
    told = list(itertools.islice((faults for faults in plays if faults != [LOST_EARLY]), RUNS))
    assert [] in told, told
    fields = (*FIELDS, *QUEUES, *SCHED, *(TO_1_25 if minor(version) <= 25 else ()))
    unfound = []
    for field in fields:
        right = getattr(layout, field)
        assert right != UNKNOWN
        # A field further, one before, and none.
        step = 4 if field in FOUR_BYTES else 8
        for offset in (right + step, right - step, UNKNOWN):
            if offset in (-4, -8) or (field, offset) == ("m_procid", UNKNOWN):
                continue  # no offset, or one without which the right thread's M is still its own
            mutant = dataclasses.replace(layout, **{field: offset})
            if not played(programs, binary.path, mutant):
                unfound.append(f"{field} {right} as {offset}")
    models = {"psyscall": "prunning", "prunning": "psyscall"}
    mutant = dataclasses.replace(layout, model=models[layout.model])
    if not played(programs, binary.path, mutant):
        unfound.append("the other model")
    assert unfound == []


@pytest.mark.parametrize("tracepoint", TRACEPOINTS)
def test_a_tracepoint_that_is_left_out_is_missed(programs: Programs, tracepoint: str) -> None:
    binary = inspect(VERSIONS[-1])
    assert faults_of(*watch(programs, binary.path, binary.layout, (tracepoint,)))
