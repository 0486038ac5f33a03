"""Each policy shows in a captured trace with its own reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_runtime.current import COMPILED
from tests.kernel.test_end_to_end import capture
from tests.kernel.test_upcall import HAS_UPCALL
from tracer.trace.reader import Trace

pytestmark = [
    pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe"),
]


def reasons(trace: Path, kind: str) -> dict[str, int]:
    """How often each reason of a kind of transition stands in the trace."""
    runtime = Trace(trace).frame("runtime")
    counts = runtime.loc[runtime["kind"] == kind, "reason"].value_counts()
    return {str(reason): int(count) for reason, count in counts.items() if count}


@pytest.mark.parametrize(
    "policy", ["sched_out", "thread_state", "integrated", pytest.param("upcall", marks=HAS_UPCALL)]
)
def test_23_calls_are_retaken_for_the_policys_reason(tmp_path: Path, policy: str) -> None:
    trace = tmp_path / "x.pretake"
    witness = capture(trace, "prime", policy, "--rounds", 23)
    assert len(witness.read_text().splitlines()) == 23
    told = reasons(trace, "retake")
    if policy == "thread_state":
        # A probe may hold a call up on its way to the block until the second sighting.
        assert set(told) <= {"thread_state", "sysmon"}
        assert sum(told.values()) == 23
        assert told["thread_state"] > 0
    else:
        assert told == {policy: 23}
        # On a slow machine a goroutine may have its time slice taken besides.
        assert reasons(trace, "handoff")[policy] == 23


def test_a_site_that_learns_tells_each_change(tmp_path: Path) -> None:
    trace = tmp_path / "x.pretake"
    capture(
        *(trace, "calls", "adaptive", "--rounds", 4007, "--set", "long_share=0.5"),
        *("--set", "workers=2", "--set", "cpu_goroutines=0"),
    )
    told = reasons(trace, "site_mode")
    assert told["block"] >= 1
    assert told["raw"] >= 1
