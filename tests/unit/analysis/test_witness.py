"""A trace against the reference runtime's own record, both made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.trust import witness
from analysis.trust.witness import Check, check
from tests.unit.analysis.scene import FUTEX, US, Scene


def scene() -> Scene:
    """P 0 is taken from a read of thread 11, and from a call of thread 12 that lost its CPU."""
    made = Scene()
    made.block(100, 11, 90, 0)
    made.switch(100, 11, 12)
    made.runtime(140, "retake", 19, 0, reason="sysmon", target_tid=11)
    made.runtime(141, "acquirep", 12, 0)
    made.exit(180, 11, 90)
    made.switch(220, 12, 19, "preempted")
    made.runtime(250, "retake", 19, 0, reason="sysmon", target_tid=12)
    made.switch(251, 19, 12)
    # Thread 13's goroutine is stopped by a signal, and P given on while the thread still waits.
    made.block(300, 13, 300, 0, p_use="raw", nr=FUTEX)
    made.switch(300, 13, 19)
    made.runtime(310, "handoff", 19, 0, reason="async")
    made.exit(390, 13, 300, nr=FUTEX)
    return made


def compared(folder: Path, *rows: dict[str, int]) -> Check:
    folder.mkdir(exist_ok=True)
    record = folder / "record.jsonl"
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check(scene().write(folder), record)


TAKEN = {"ts_ns": 139 * US, "enter_ns": 89 * US, "tid": 11, "p": 0}
WITHOUT_CPU = {"ts_ns": 249 * US, "enter_ns": 215 * US, "tid": 12, "p": 0}


def test_what_one_side_alone_can_tell_is_not_compared(tmp_path: Path) -> None:
    told = compared(tmp_path, TAKEN, WITHOUT_CPU)
    assert (told["records"], told["unblocked"], told["episodes"]) == (1, 1, 1)
    assert (told["recall"], told["precision"]) == (1, 1)
    assert not told["missed"]
    assert not told["extra"]


def test_a_thread_that_blocked_before_its_call_did_not_block_in_it(tmp_path: Path) -> None:
    told = compared(tmp_path, TAKEN, {**WITHOUT_CPU, "tid": 11, "enter_ns": 101 * US})
    assert (told["unblocked"], told["recall"]) == (1, 1)
    told = compared(tmp_path / "earlier", TAKEN, {**WITHOUT_CPU, "tid": 11, "enter_ns": 99 * US})
    assert (told["unblocked"], told["recall"]) == (0, 0.5)


def taken_on_its_way(folder: Path, at_us: int) -> Check:
    """Thread 11 finds its P gone as it blocks at 100; 19, who took it, is seen at 104."""
    folder.mkdir()
    made = Scene()
    made.block(100, 11, 90, 0, p_use="handed_off")
    made.switch(100, 11, 12)
    made.runtime(104, "retake", 19, 0, reason="sysmon", target_tid=11)
    made.exit(180, 11, 90)
    record = folder / "record.jsonl"
    record.write_text(json.dumps({"ts_ns": at_us * US, "enter_ns": 95 * US, "tid": 11, "p": 0}))
    return check(made.write(folder), record)


def test_a_p_taken_on_the_way_to_the_block_counts_where_the_record_tells_it(
    tmp_path: Path,
) -> None:
    # By the record's clock it had blocked, or had not.
    told = taken_on_its_way(tmp_path / "blocked", 101)
    assert (told["records"], told["episodes"], told["matched"]) == (1, 1, 1)
    told = taken_on_its_way(tmp_path / "yet", 99)
    assert (told["unblocked"], told["episodes"], told["matched"]) == (1, 0, 0)


@pytest.mark.parametrize("row", [TAKEN, {**TAKEN, "p": 1}])
def test_a_record_without_entries_is_compared_whole(tmp_path: Path, row: dict[str, int]) -> None:
    rows = [{name: each[name] for name in ("ts_ns", "tid", "p")} for each in (row, WITHOUT_CPU)]
    told = compared(tmp_path, *rows)
    assert (told["records"], told["unblocked"]) == (2, 0)
    assert told["recall"] == (0.5 if row["p"] == 0 else 0)


ENTERED = 'M=11 P=0 G=1 StateTransition Time=89000 GoID=1 Running->Syscall Reason=""\n'
STOLEN = """\
M=12 P=-1 G=-1 StateTransition Time=100000 GoID=2 Waiting->Runnable Reason=""
M=19 P=-1 G=-1 StateTransition Time=139000 ProcID=0 Running->Idle Reason=""
"""
BACK = 'M=11 P=-1 G=1 StateTransition Time=181000 GoID=1 Syscall->Runnable Reason=""\n'


@pytest.mark.parametrize(
    ("parsed", "records", "episodes", "matched"),
    [
        (ENTERED + STOLEN + BACK, 1, 1, 1),
        # It ends within the call, before P is taken.
        (ENTERED + STOLEN.splitlines()[0], 0, 0, 0),
        # It begins within the call: a Go trace does not tell whose P that was.
        (STOLEN + BACK, 0, 0, 0),
    ],
)
def test_an_episode_counts_if_all_of_it_is_in_the_record_of_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parsed: str,
    records: int,
    episodes: int,
    matched: int,
) -> None:
    monkeypatch.setattr(witness, "_parsed_go_trace", lambda _: parsed)
    told = check(scene().write(tmp_path), tmp_path / "go.trace")
    assert (told["records"], told["episodes"], told["matched"]) == (records, episodes, matched)
