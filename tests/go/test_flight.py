"""Go's own flight recorder beside ours, in one dump, on one clock."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from analysis.loaded import load
from tests.go import toolchains
from tests.go.test_watch import line_with, wait_for_switches, watching
from tests.kernel.started import PRETAKE, Started

VERSION = "1.27.3"
"""Go has a FlightRecorder from 1.25 on."""
WHAT = "the window of Go's own flight recorder"


@contextlib.contextmanager
def flown() -> Iterator[tuple[int, str]]:
    """The program, and where it serves."""
    command = [toolchains.build("flown", VERSION)]
    with Started(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running.pid, f"http://127.0.0.1:{int(running.stdout.readline())}"
        running.kill()


def dump_of(watch: subprocess.Popen[str], folder: Path) -> Path:
    watch.send_signal(signal.SIGUSR1)
    line = line_with(watch, ".pretake: SIGUSR1, ")
    return folder / Path(line.removeprefix("pretake: ").partition(": ")[0]).name


def test_the_dump_has_its_window_and_check_and_report_show_both(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    with flown() as (pid, url):
        options = ["--pid", pid, "-o", folder, "--seconds", 30, "--after", 0]
        with watching(*options, "--flight", f"{url}/flight") as watch:
            wait_for_switches(pid, 2000)
            path = dump_of(watch, folder)
    whole = load(path)
    assert WHAT not in [missing.what for missing in whole.manifest.missing]
    done = subprocess.run(
        [*PRETAKE, "check", "--json", path], check=False, capture_output=True, text=True
    )
    told = json.loads(done.stdout)["witness"]
    # By another clock no retake would have a pair.
    assert told["matched"] > 20
    assert told["matched"] >= 0.9 * told["records"]
    # Go's window may begin before ours: both are of the same time.
    begin_ns, end_ns = whole.manifest.begin_ns, whole.manifest.end_ns
    assert begin_ns is not None
    assert end_ns is not None
    rows = {(row["p"], row["state"]): row["go_ns"] for row in told["p_time"]}
    assert rows
    for p in {p for p, _ in rows}:
        whole_ns = sum(rows[p, state] for state in ("with_m", "idle", "stw"))
        assert 0 < whole_ns <= end_ns - begin_ns
    report = tmp_path / "report.html"
    subprocess.run([*PRETAKE, "report", path, "-o", report], check=True, capture_output=True)
    shown = f"tells {told['records']:,} retakes of the same time, {told['matched']:,} of them"
    assert shown in report.read_text()


def test_one_that_is_dead_or_hangs_or_never_ends_is_a_line_in_the_dump(tmp_path: Path) -> None:
    with flown() as (pid, url):
        for path, why in (
            ("hang", "had not answered whole after 5 s"),
            ("endless", "gave more than 64 MiB"),
            ("nothing", "answered 404"),
        ):
            folder = tmp_path / path
            options = ["--pid", pid, "-o", folder, "--seconds", 5, "--after", 0]
            with watching(*options, "--flight", f"{url}/{path}") as watch:
                dump = dump_of(watch, folder)
            whole = load(dump)
            assert whole.trace.go_trace is None
            assert whole.manifest.complete
            (missing,) = [m for m in whole.manifest.missing if m.what == WHAT]
            # A busy machine may not give 64 MiB in 5 s.
            assert missing.why in (
                f"{url}/{path} {why}",
                f"{url}/{path} had not answered whole after 5 s",
            )
