"""Each policy shows in a captured trace with its own reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from reference_runtime.current import COMPILED
from tests.kernel.test_end_to_end import capture, pretake
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


LEARNS = """
import json, sys
from pathlib import Path
from reference_runtime.goroutines import Site, current_host, nanosleep, write
from reference_runtime.policies.adaptive import AdaptivePolicy
from reference_runtime.policies.base import BLOCK, NORMAL, RAW
from reference_runtime.runtime import Runtime

NAMES = {RAW: "raw", NORMAL: "normal", BLOCK: "block"}
policy = AdaptivePolicy()
site = Site("learns.one")
changes = []

async def main():
    end = current_host().pipe()[1]
    memory = policy.memory(site)
    for wanted in (RAW, BLOCK, RAW):
        while (before := memory.mode) != wanted:
            await (nanosleep(1_000_000, site) if wanted == BLOCK else write(end, b"", site))
            if memory.mode != before:
                changes.append(NAMES[memory.mode])

Runtime(procs=1, policy=policy).run(main)
Path(sys.argv[1]).write_text(json.dumps(changes))
"""
"""A site with short calls until it makes them raw, long ones until it hands off, and short ones
again; and each change of its mode, seen after the call that made it."""


def test_a_site_that_learns_tells_each_change(tmp_path: Path) -> None:
    trace, witness = tmp_path / "x.pretake", tmp_path / "changes.json"
    program = tmp_path / "learns.py"
    program.write_text(LEARNS)
    pretake("record", "-q", "-o", trace, "--", sys.executable, program, witness)
    runtime = Trace(trace).frame("runtime").sort_values("ts_ns")
    changes = json.loads(witness.read_text())
    assert runtime.loc[runtime["kind"] == "site_mode", "reason"].tolist() == changes
    assert {"raw", "normal", "block"} <= set(changes)
