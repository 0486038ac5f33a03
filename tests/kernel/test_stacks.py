"""Stacks of blocks, left out on request: they are a good part of what a block costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

pytestmark = pytest.mark.go


@pytest.mark.parametrize("stacks", [True, False])
def test_stacks_are_taken_unless_they_are_not_wanted(tmp_path: Path, stacks: bool) -> None:
    binary = toolchains.build("blockread")
    options = CaptureOptions(stacks=stacks)
    trace = Trace(record([str(binary), "50"], output=tmp_path / "x.pretake", options=options))
    blocks = trace.frame("block")
    assert len(blocks) > 20
    assert blocks["stack_id"].notna().any() == stacks
    assert (trace.arrow("stack").num_rows > 0) == stacks
