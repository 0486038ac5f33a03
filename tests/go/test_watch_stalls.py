"""A stall that is no system call is dumped as well, and the dump names it: fault and quota."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from analysis.answers.budget import budget
from tests.go import toolchains
from tests.go.test_advice import of, verdict
from tests.go.test_watch import line_with, watching
from tests.kernel.started import Started, assert_all_accounted_for
from tracer.trace.reader import Trace


def dumped(tmp_path: Path, program: str, command: Sequence[str], rule: str) -> list[Trace]:
    """The dumps of a watch that finds a program by name; it runs once, and no longer than
    until a dump is written."""
    # A name that nobody else here has.
    own = tmp_path / f"{program[:4]}-{os.getpid()}"
    shutil.copy(toolchains.build(program), own)
    folder = tmp_path / "dumps"
    options = ["-o", folder, "--when", rule, "--seconds", 60, "--after", 2]
    with watching("--name", own.name, *options) as watch:
        inside = [text.replace("PROGRAM", str(own)) for text in command]
        with Started(inside, stdout=subprocess.DEVNULL) as running:
            line_with(watch, f"watching {own.name} (")
            line_with(watch, f".pretake: {rule} (")
            running.kill()
    return [Trace(path) for path in sorted(folder.iterdir())]


def test_a_page_that_comes_late_is_named(tmp_path: Path) -> None:
    command = ["env", "GOMAXPROCS=1", "PROGRAM", "1000"]
    traces = dumped(tmp_path, "faults", command, "hold_ns > 1 ms")
    source = (Path(__file__).parent / "faults/main.go").read_text().splitlines()
    line = next(n for n, text in enumerate(source, 1) if "return memory[0]" in text)
    named = set()
    for trace in traces:
        assert_all_accounted_for(trace)
        named |= {one.what for one in of(verdict(trace), "fault")}
    assert f"at main.go:{line} (a page fault)" in named


def test_a_quota_that_bites_is_named(tmp_path: Path, five_percent: Path) -> None:
    inside = f"echo $$ > {five_percent}/cgroup.procs; exec PROGRAM eight-ps {tmp_path}/told"
    trace, *_ = dumped(tmp_path, "truth", ["bash", "-c", inside], "lost_p > 5 % for 1 s")
    assert_all_accounted_for(trace)
    (process,) = (p for p in budget(trace)["processes"] if p["procs"] == 8)
    assert process["of_which"]["throttled"]
    told = [f.today for f in of(verdict(trace), "no_cpu")]
    assert any("CPU quota (cpu.max) larger by" in text for text in told)
