"""Go's own tests, built with the overlay and run under each value of the switch.

``python -m bench.go.retake.gotests`` runs those of the standard library that the scheduler, system
calls, signals, children and the network concern, for each tested Go version and each way, and
prints one line for each of them: passed, failed or out of time, and how long it took. What failed
is told by go test's own words above the line. With ``--race`` the toolchain's race detector is
built in. With ``--loop 600`` the tests of package runtime are repeated for ten minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.go.retake.overlay import default_folder, make_overlay
from tests.go import toolchains

__all__ = ["PACKAGES", "VERSIONS", "WAYS", "Run", "main", "run"]

VERSIONS = ("1.25.5", "1.27.3")
WAYS = ("sysmon", "schedout", "schedrun", "threadstate")
PACKAGES = {
    "runtime": "Sched|Syscall|Preempt|Stop|Lock|GC",
    "os": ".",
    "os/exec": ".",
    "os/signal": ".",
    "net": ".",
    "net/http": ".",
}
"""What is run of each package."""


@dataclass(frozen=True)
class Run:
    """How one package's tests ended.

    Args:
        what: version, way and package.
        ended: ``passed``, ``failed`` or ``out of time``.
        seconds: what it took.
        output: of go test.
    """

    what: str
    ended: str
    seconds: float
    output: str


def run(version: str, way: str, package: str, *, race: bool = False, limit_s: float = 1800) -> Run:
    """Run one package's tests.

    Args:
        version: of Go.
        way: what ``GODEBUG=retake=`` gets.
        package: one of :data:`PACKAGES`.
        race: build the race detector in; needs cgo.
        limit_s: after how long to give up.

    Raises:
        LookupError: the toolchain cannot be had.
        PretakeError: the overlay does not fit it.
    """
    goroot = toolchains.goroot(version)
    overlay = make_overlay(goroot, default_folder(goroot))
    words = [str(goroot / "bin/go"), "test", "-overlay", str(overlay), "-short", "-count=1"]
    words += ["-vet=off", "-ldflags=-checklinkname=0", f"-timeout={limit_s:.0f}s"]
    words += [*(["-race"] if race else []), f"-run={PACKAGES[package]}", package]
    environment = toolchains.environment(version) | {
        "GODEBUG": f"retake={way}",
        "CGO_ENABLED": "1",
    }
    begin = time.monotonic()
    what = f"{version} {way} {package}" + (" -race" if race else "")
    try:
        done = subprocess.run(
            words,
            cwd=goroot / "src",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s + 300,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return Run(what, "out of time", time.monotonic() - begin, str(late.output or ""))
    ended = "passed" if done.returncode == 0 else "failed"
    if "panic: test timed out" in done.stdout:
        ended = "out of time"
    return Run(what, ended, time.monotonic() - begin, done.stdout)


def _runs(asked: argparse.Namespace) -> Iterator[Run]:
    end = time.monotonic() + asked.loop
    while True:
        for version in asked.versions:
            for way in asked.ways:
                for package in asked.packages:
                    yield run(version, way, package, race=asked.race)
        if time.monotonic() >= end:
            return


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 where something did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", nargs="*", default=VERSIONS)
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--packages", nargs="*", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--race", action="store_true", help="with the race detector")
    parser.add_argument("--loop", type=float, default=0, help="seconds to go on for")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="each run's output")
    asked = parser.parse_args(argv)
    bad = 0
    with asked.log.open("a") as log:
        for ran in _runs(asked):
            log.write(f"--- {ran.what}\n{ran.output}")
            log.flush()
            if ran.ended != "passed":
                bad += 1
                print(ran.output[-4000:])
            print(f"{ran.ended:12} {ran.what:40} {ran.seconds:7.1f} s", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
