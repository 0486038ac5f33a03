"""``go build`` under a capture: a compiler for each package, and every one of them is told.

``make test-unharmed`` builds all of Go's own library so (``PRETAKE_BUILD=std``).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.go import toolchains
from tests.kernel.families import Families
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

PACKAGES = os.environ.get("PRETAKE_BUILD", "strconv sort path")
KINDS = ("fork", "exec", "exit")


@pytest.mark.timeout(7200)
def test_every_process_of_a_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = toolchains.VERSIONS[-1]
    environment = toolchains.environment(version) | {"GOCACHE": str(tmp_path / "cache")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    go = toolchains.goroot(version) / "bin" / "go"
    command = [str(go), "build", "-a", *PACKAGES.split()]
    with Families() as families:
        record(command, output=tmp_path / "t", options=CaptureOptions())
    trace = Trace(tmp_path / "t")
    manifest = trace.manifest
    assert manifest.exit_status == 0
    assert not any(manifest.lost.values())
    tasks = trace.frame("task", ["kind", "tid", "pid", "comm"])
    tasks = tasks[tasks["kind"].isin(KINDS)]
    told = Counter(zip(tasks["kind"].astype(str), tasks["tid"].astype(int), strict=True))
    # The shell that waited at the gate was made, and began, before it was a target.
    gate = Counter({(kind, manifest.pid): 1 for kind in ("fork", "exec")})
    assert told == families.of(manifest.pid) - gate
    # What each of them ran is known: those of Go by their version, however short they were.
    reach = trace.frame("reach")
    assert len(reach) == (tasks["kind"] == "exec").sum() > 20
    own = reach[reach["comm"].isin(["go", "compile", "asm", "link", "cgo"])]
    assert {"go", "compile", "asm"} <= set(own["comm"])
    assert set(own["version"]) == {f"go{version}"}
    assert set(reach.loc[~reach.index.isin(own.index), "runtime"]) <= {"none"}
