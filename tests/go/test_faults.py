"""A goroutine that blocks in a page fault holds its P: told as a block, with the address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.go.capture import capture

PAGES = 12
PAGE = 4096


@pytest.mark.parametrize("version", ["1.19.8", "1.25.5", "1.27.3"])
def test_each_fault_that_blocked_is_told(
    version: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = capture(tmp_path / "t", "faults", [str(PAGES)], version=version, probes="none")
    base = int(capfd.readouterr().out.split("base=")[1])
    # A part has the rows of one CPU after the other.
    blocks = trace.frame("block").sort_values("ts_ns")
    faults = blocks[blocks["why"] == "fault"]
    ours = faults[faults["address"].between(base, base + PAGES * PAGE)]
    # A signal, as Go's for preemption, ends the wait, and the page is touched again. A thread that
    # is preempted before it can sleep, and finds the page when it goes on, did not block.
    touched = [base + i * PAGE for i in range(PAGES)]
    blocked = list(dict.fromkeys(ours["address"]))
    assert blocked == sorted(set(blocked) & set(touched))
    assert len(blocked) > PAGES // 2
    assert ours["nr"].isna().all()
    assert ours["arg0"].isna().all()
    assert ours["enter_ns"].isna().all()
    # The goroutine and the P that it was on, which nobody takes from it.
    assert ours["goid"].nunique() == 1
    assert set(ours["p_use"]) == {"raw"}
    assert ours["p"].notna().all()
    # A call between two faults is still a call.
    calls = blocks[blocks["why"] == "syscall"]
    assert calls["nr"].notna().all()
    assert calls["address"].isna().all()
    # The place of the fault is the innermost frame.
    where = trace.frame("address").set_index("pc")["function"]
    frames = trace.frame("stack")
    innermost = frames[frames["depth"] == 0].set_index("stack_id")["pc"]
    assert {where[innermost[stack]] for stack in ours["stack_id"]} == {"main.touch"}
