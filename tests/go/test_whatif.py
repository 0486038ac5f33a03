"""What-if of a real Go program: its calls become scripts, and the scripts can be played."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import load
from tests.go.capture import capture
from tests.replays import Kept

RUNS = 4
"""Where the host took a CPU while P was handed on, that is harm, which the replay has too. So it
is little in each of so many runs, and none in one."""


def test_a_go_program_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One goroutine blocks in read 100 times while another, that Go does not name, computes."""
    monkeypatch.setenv("GOMAXPROCS", "1")
    left_ns = []
    for run in range(RUNS):
        trace = capture(tmp_path / f"{run}", "blockread", ["100"])
        simulator = Kept()
        table = load(trace.path).whatif(["sysmon", "block"], simulator)
        assert table["policy"].tolist() == ["sysmon", "sysmon", "block"]
        assert table["used"].tolist() == [True, True, False]
        calls = table["calls"].tolist()
        assert calls[0] == calls[1] == calls[2]
        assert calls[0] >= 45
        # Each of its calls is handed off before it blocks, so no harm is left.
        assert table["handoffs"].tolist()[2] == calls[0]
        harm_ns = [simulator.last[policy].harm_ns for policy in ("sysmon", "block")]
        assert 0 <= harm_ns[1] < harm_ns[0] / 100
        assert table["retake_p50_error_percent"].notna().tolist() == [False, True, True]
        left_ns.append(harm_ns[1])
        if left_ns[-1] == 0:
            return
    pytest.fail(f"harm is left in each run: {left_ns}")
