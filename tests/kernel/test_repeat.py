"""Captures one after the other, of one command and of two in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tracer.trace.reader import Trace

PRETAKE = (sys.executable, "-m", "pretake")


def test_record_repeats_with_the_options_that_were_given(tmp_path: Path) -> None:
    out = tmp_path / "t.pretake"
    options = ("--repeat", "2", "--no-stacks", "--detail", "full", "-o", str(out))
    subprocess.run([*PRETAKE, "record", *options, "--", "true"], check=True)
    assert not out.exists()
    for number in (1, 2):
        manifest = Trace(tmp_path / f"t-{number}.pretake").manifest
        assert (manifest.asked["stacks"], manifest.asked["detail"]) == (False, "full")
        assert manifest.exit_status == 0
        assert manifest.machine.load_end is not None
    again = subprocess.run(
        [*PRETAKE, "record", *options, "--", "true"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_bench_records_both_in_turns_and_gives_a_verdict(tmp_path: Path) -> None:
    sides = [word for side in ("a", "b") for word in (f"--{side}", f"sh -c 'echo {side}'")]
    folder = tmp_path / "bench"
    done = subprocess.run(
        [*PRETAKE, "bench", *sides, "--repeat", "3", "-o", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert [run["trace"] for run in told["runs"]] == [f"{s}-{n}" for s in "ab" for n in (1, 2, 3)]
    lines = done.stderr.split()
    assert [word for word in lines if word in ("a", "b")] == list("aabbbbaaaabb")
    begins = {path.name: Trace(path).manifest.begin_ns for path in folder.iterdir()}
    order = sorted(begins, key=lambda name: begins[name] or 0)
    assert [name[:3] for name in order] == ["a-1", "b-1", "b-2", "a-2", "a-3", "b-3"]


def test_a_command_that_cannot_be_captured_ends_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PRETAKE, "bench", "--a", "/no/such", "--b", "true", "-o", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
