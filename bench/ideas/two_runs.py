"""One program twice, as the article ran it under perf: stopped by signals, and not."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from analysis import load
from analysis.names import syscall_names
from bench.captured import record
from bench.ideas.pictures import draw_bars
from bench.ideas.row import GoTimes, Row
from tests.go import toolchains

RUNS: Final = {"asyncpreemptoff=1, as Go 1.13": "asyncpreemptoff=1", "as Go 1.14 and later": ""}
SECONDS: Final = "1"
PICTURE: Final = "two-runs.svg"


def two_runs(_: GoTimes) -> Iterator[Row]:
    """System calls of the article's loop, with and without signals; and a picture of both."""
    try:
        program = str(toolchains.build("preempt"))
    except LookupError:
        return
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for run, debug in RUNS.items():
            trace = record(
                Path(folder, "run.pretake"),
                (program, "loop"),
                environment={"GOMAXPROCS": "1", "GODEBUG": debug},
                options=("--detail", "full", "--seconds", SECONDS),
            )
            counts[run] = calls_by_name(trace)
    what = f"calls, to the end of the program or for {SECONDS} s, of those whose numbers differ"
    without, with_signals = counts.values()
    yield Row(
        "Two runs of one program compared by their system calls",
        "(the article) `tgkill` with SIGURG is there in Go 1.14 and not in 1.13",
        "–",
        f"`tgkill` {without.get('tgkill', 0)} → {with_signals.get('tgkill', 0)}",
        "an endless loop with one P, for which the main goroutine waits; without signals it is "
        f"ended after {SECONDS} s: ![system calls of both runs](images/{PICTURE})",
        partial(draw_bars, PICTURE, counts, what),
    )


def calls_by_name(trace: Path) -> dict[str, int]:
    """How often each system call was made."""
    loaded = load(trace)
    numbers = loaded.frame("syscall")["nr"]
    return dict(Counter(map(str, syscall_names(numbers, loaded.manifest.arch))))
