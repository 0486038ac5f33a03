"""The reference runtime's list of Ps, read in the kernel, and what a wrong way there finds."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from reference_runtime.current import COMPILED
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.targets.layout import RuntimeLayout
from tracer.trace.reader import Trace

pytestmark = [
    pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe"),
]

FIELDS = ("sched_allp", "m_sched")
PROCS = 7
ECHO = [sys.executable, "-m", "pretake", "run", "echo", "--procs", str(PROCS), "--rounds", "200"]


def seen(path: Path) -> tuple[set[int], set[int]]:
    """How many Ps the looks told that there are, and the numbers of those that they read."""
    trace = Trace(record(ECHO, output=path, options=CaptureOptions(runtime="reference")))
    assert trace.manifest.target.runtime == "reference"
    waiting, states = trace.frame("waiting"), trace.frame("pstate")
    return set(waiting["gomaxprocs"].dropna()), set(states["p"].dropna())


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_offset_finds_other_ps(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {PROCS}, set(range(PROCS))
    assert seen(tmp_path / "right") == right
    # The layout of all processes and that of one may be told: whichever is, is wrong.
    pack = RuntimeLayout.pack
    for wrong in (8, -8):

        def misread(layout: RuntimeLayout, by: int = wrong) -> np.ndarray:
            return pack(dataclasses.replace(layout, **{field: getattr(layout, field) + by}))

        monkeypatch.setattr(RuntimeLayout, "pack", misread)
        assert seen(tmp_path / f"wrong{wrong}") != right
