"""The newest Go, with all its symbols: who loses a P in a system call, how, and who does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.go.capture import capture
from tracer.trace.reader import Trace

NR_READ = 0
NR_NANOSLEEP = 35
NR_FUTEX = 202


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """300 reads of a goroutine that blocks in read while another waits for its P."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMAXPROCS", "1")
        return capture(tmp_path_factory.mktemp("go") / "t", "blockread", ["300"])


@pytest.fixture(scope="module")
def blocks(trace: Trace) -> pd.DataFrame:
    rows = trace.frame("block")
    # A page that is not there yet is another matter.
    return rows[rows["why"] == "syscall"]


def test_what_blocked_is_told_with_p_and_goroutine(blocks: pd.DataFrame) -> None:
    assert len(blocks) > 250
    # A thread that is kept off its CPU before it blocks may have lost its P by then.
    assert "syscall" in set(blocks["p_use"]) <= {"syscall", "handed_off"}
    assert set(blocks["goid"]) == {1}
    held = blocks[blocks["p_use"] == "syscall"]
    assert set(held["p"]) == {0}
    told = held[["m", "runq", "global_runq", "npidle", "nmspinning", "enter_ns"]]
    assert not told.isna().any(axis=None)


def test_the_other_goroutine_is_seen_to_wait(blocks: pd.DataFrame) -> None:
    # It is on P's queue or on the global one, or the only other place: an M that is in the
    # middle of taking it.
    waiting = blocks["runq"] + blocks["global_runq"] > 0
    assert waiting.mean() > 0.5
    assert (blocks.loc[waiting, "npidle"] == 0).all()


def test_the_runtimes_own_threads_make_no_block(trace: Trace, blocks: pd.DataFrame) -> None:
    calls = trace.frame("syscall")
    # sysmon naps and Ms park all the time ...
    assert {NR_READ, NR_NANOSLEEP, NR_FUTEX} <= set(calls.loc[calls["blocks"] > 0, "nr"])
    # ... and each block is a read, and each read that blocked is there.
    reads = calls[(calls["nr"] == NR_READ) & (calls["blocks"] > 0)]
    key = ["tid", "enter_ns"]
    told = blocks.groupby(key).size()
    assert told.to_dict() == reads.set_index(key)["blocks"].to_dict()


def test_a_retake_is_in_a_call_that_blocked(trace: Trace, blocks: pd.DataFrame) -> None:
    runtime, calls = trace.frame("runtime"), trace.frame("syscall")
    retakes = runtime[runtime["kind"] == "retake"].sort_values("ts_ns")
    assert len(retakes) > 10
    assert set(retakes["p"]) == {0}
    assert set(retakes["reason"]) == {"sysmon"}
    assert not retakes[["runq", "global_runq", "npidle", "nmspinning"]].isna().any(axis=None)
    reads = calls.loc[calls["nr"] == NR_READ, ["tid", "enter_ns", "exit_ns"]]
    joined = pd.merge_asof(
        retakes,
        reads.assign(ts_ns=reads["enter_ns"].astype("int64")).sort_values("ts_ns"),
        on="ts_ns",
        suffixes=("", "_read"),
    )
    # It may come behind the kernel's exit, for the runtime's own is later: then from this thread.
    in_call = (joined["ts_ns"] < joined["exit_ns"]).fillna(False)
    behind = (joined["target_tid"] == joined["tid_read"]).fillna(False)
    # A thread that loses its CPU on its way to the block may lose its P there, before the kernel
    # is entered or in a read that need not block any more: few of them.
    assert (in_call | behind).mean() > 0.9
    # From none but those that block, by sysmon, which has no P to block with.
    assert set(retakes["target_tid"].dropna()) <= set(blocks["tid"])
    assert retakes["tid"].nunique() == 1
    assert not set(retakes["tid"]) & set(blocks["tid"])


def test_the_p_that_was_taken_finds_another_thread(trace: Trace, blocks: pd.DataFrame) -> None:
    runtime = trace.frame("runtime").sort_values("ts_ns")
    handed = runtime[(runtime["kind"] == "handoff") & (runtime["reason"] == "sysmon")]
    retakes = runtime[runtime["kind"] == "retake"]
    assert handed["ts_ns"].tolist() == retakes["ts_ns"].tolist()
    # While the program starts there may be no work: then P goes idle, where its thread finds it.
    ways = runtime.loc[runtime["kind"].isin(["startm", "pidle"]), ["ts_ns", "p", "kind"]]
    way = pd.merge_asof(handed[["ts_ns", "p"]], ways, on="ts_ns", by="p", direction="forward")
    idle = (way["kind"] == "pidle").to_numpy()
    assert idle.mean() < 0.5
    ts_ns = handed["ts_ns"].to_numpy()
    for kind in ("startm", "acquirep"):
        follows = pd.merge_asof(
            handed[["ts_ns", "p"]],
            runtime.loc[runtime["kind"] == kind, ["ts_ns", "p"]].assign(
                at_ns=lambda rows: rows["ts_ns"]
            ),
            on="ts_ns",
            by="p",
            direction="forward",
        )
        # Before it is handed off the next time; the program may end before the last one follows.
        in_time = follows["at_ns"].to_numpy()[:-1] < ts_ns[1:]
        late = np.flatnonzero(~in_time & ~idle[:-1])
        if kind == "startm":
            assert not late.size
            continue
        # An M that is about to park when it is given P is still on its CPU, and is not told to
        # have come on one with it (docs/limits.md). So sysmon woke nobody, unless an interrupt on
        # its CPU woke who blocked last, or the switch to it is hidden (docs/analysis.md).
        wakeups = trace.frame("sched_wakeup").query("waker_tid in @retakes.tid")
        switches = trace.frame("sched_switch")
        for number in late:
            until_ns = ts_ns[number + 1]
            woken = wakeups[wakeups["ts_ns"].between(ts_ns[number], until_ns)]
            for wakeup in woken.itertuples():
                last = blocks.loc[blocks["ts_ns"] < wakeup.ts_ns, "tid"].tail(1)
                came = switches["ts_ns"].between(wakeup.ts_ns, until_ns)
                came &= switches["next_tid"] == wakeup.tid
                assert wakeup.tid in set(last) or not came.any()


def test_handoffs_are_told_apart_by_their_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A signal that meets the thread on its way to its block has it come back at once.
    monkeypatch.setenv("GODEBUG", "asyncpreemptoff=1")
    trace = capture(tmp_path / "t", "handoff", ["23"])
    runtime, blocks = trace.frame("runtime"), trace.frame("block")
    handoffs = runtime[runtime["kind"] == "handoff"]
    before = handoffs[handoffs["reason"] == "syscall_block"]
    assert len(before) == 23
    assert set(before["goid"]) == {1}
    # runtime.main is locked to its thread while it starts, and gives P to what it waits for.
    assert set(handoffs["reason"]) - {"sysmon"} == {"syscall_block", "locked"}

    # The runtime's own goroutines block in raw calls too, for a lock or on the way to more memory.
    naps = blocks[(blocks["nr"] == NR_NANOSLEEP) & (blocks["goid"] == 1)]
    uses = naps.groupby("p_use", observed=True)
    assert uses["enter_ns"].nunique().to_dict() == {"handed_off": 23, "raw": 23}
    assert set(blocks.loc[blocks["p_use"] == "raw", "p"]) == {0}
