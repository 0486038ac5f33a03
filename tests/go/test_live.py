"""What ``pretake live`` counts of a Go program, without probes and with them."""

from __future__ import annotations

import pytest

from tests.go import toolchains
from tracer.capture.live import OTHERS, WHATS, live

READS = 100


@pytest.mark.parametrize("probes", ["none", "exact"])
@pytest.mark.parametrize("version", ["1.19.8", "1.27.3"])
def test_each_retake_is_counted_with_its_call(
    version: str, probes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one P, which another goroutine wants, reads of 3 ms lose it."""
    monkeypatch.setenv("GOMAXPROCS", "1")
    binary = toolchains.build("blockread", version)
    with live([str(binary), str(READS)], probes=probes) as watched:
        while not watched.wait(0.1):
            pass
        counts = watched.counts()
    retakes = {
        number: int(rows[WHATS.index("retake")].sum()) for (number, _), rows in counts.items()
    }
    assert set(retakes) == {0}
    assert 10 < retakes[0] <= READS
    assert all(stack != OTHERS for _, stack in counts)
