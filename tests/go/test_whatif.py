"""What-if of a real Go program: its calls become scripts, and the scripts can be played."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import load
from pretake.commands.whatif import play
from tests.go.capture import capture


def test_a_go_program_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One goroutine blocks in read 100 times while another, that Go does not name, computes."""
    monkeypatch.setenv("GOMAXPROCS", "1")
    trace = capture(tmp_path / "t", "blockread", ["100"])
    table = load(trace.path).whatif(["sysmon", "block"], play)
    assert table["policy"].tolist() == ["sysmon", "sysmon", "block"]
    assert table["used"].tolist() == [True, True, False]
    calls = table["calls"].tolist()
    assert calls[0] == calls[1] == calls[2]
    assert calls[0] >= 45
    # Each of its calls is handed off before it blocks, so no harm is left but while P is handed
    # on, which a host that took a CPU meanwhile made long here and there.
    assert table["handoffs"].tolist()[2] == calls[0]
    harm_ns = table["harm_ns"].tolist()
    assert 0 <= harm_ns[2] < harm_ns[1] / 100
    assert table["error_percent"].notna().tolist() == [False, True, True]
