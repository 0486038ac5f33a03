"""Runs on the kernel under test: every mode of the command, each against a known count.

Prints a JSON object at the start and after each mode, of which the last counts: ``kernel``,
``arch``, ``modes`` (by name ``true`` or why it does not work, in one line), ``seconds`` (that each
took), ``verified`` (by what is run, the most instructions that the verifier went through for one
program, and which) and ``figures`` (that modes measured, by what they are of).

Usage: guest.py GO_PROGRAM FOLDER [--flag N] [--seconds N] MODE... (the program is tests/go/sleeps,
built for this machine; the flag is the one that the BPF programs in the cache were compiled with)
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.kernels.commands import Trial, WrongError, episodes, expect, pretake, run
from tests.kernels.hotplug import (
    cpu_comes,
    cpu_comes_host,
    cpu_comes_perf,
    many_cpus,
    many_cpus_perf,
)
from tracer.kernel import fitting

__all__ = ["COMES", "COMES_HOST", "COMES_PERF", "FLAG", "MANY", "MANY_PERF", "MODES"]

MOST_INSTRUCTIONS: Final = 100_000
"""That the verifier may go through for one program: a tenth of its limit."""
PRIME: Final = 23
"""Blocking reads of the reference runtime's workload ``prime``."""
FLAG: Final = "a call's return, by a thread's flag"
COMES: Final = "record, a CPU comes up and goes"
COMES_PERF: Final = "record --backend perf, a CPU comes up and goes"
COMES_HOST: Final = "record --backend perf --host, a CPU comes up and goes"
MANY: Final = "record, many possible CPUs"
MANY_PERF: Final = "record --backend perf, many possible CPUs"

_IMPORTED: Final = (
    "analysis.answers.budget",
    "analysis.answers.live",
    "analysis.formats.export",
    "analysis.trust.validate",
    "pretake.views",
    "tracer.capture.doctor",
    "tracer.capture.live",
    "tracer.capture.perf_record",
    "tracer.capture.record",
)
"""What the commands import when they run. Here it is once, and each is a fork, for that takes 15 s
on an emulated CPU."""


def doctor(trial: Trial) -> None:
    status, out, _ = run("doctor", "--json")
    checks = json.loads(out)
    for check in checks:
        print("   ", check["name"], check["ok"], check["detail"], file=sys.stderr, flush=True)
        told = re.search(r"at most (\d+) instructions verified \((\w+)\)", check["detail"])
        if told:
            trial.verified[check["name"]] = int(told[1]), told[2]
    lacking = [check for check in checks if not check["ok"] and check["needed"]]
    if lacking:
        raise WrongError(f"exit {status}: {lacking[0]['detail']}: {lacking[0]['mend']}")
    modes = [check["name"] for check in checks if check["name"].startswith("pretake ")]
    refused = [check["name"] for check in checks if check["name"] in modes and not check["ok"]]
    expect("modes that are refused", refused, [])
    expect("modes whose instructions are told", list(trial.verified), modes)
    for mode, (most, program) in trial.verified.items():
        if not 0 < most <= MOST_INSTRUCTIONS:
            raise WrongError(f"{mode}: {program} takes {most} instructions to verify")


def return_flag(trial: Trial) -> None:
    expect("the flag", fitting.return_flag(), trial.flag)


def _prime(trial: Trial, name: str, *options: str) -> tuple[str, dict[str, Any]]:
    """A capture of ``prime``: the trace, and what the runtime itself told."""
    trace = str(trial.folder / f"{name}.pretake")
    target = [sys.executable, "-m", "pretake", "run", "prime", "--json"]
    told = json.loads(pretake("record", "-q", *options, "-o", trace, "--", *target))
    summary = json.loads(pretake("summary", trace, "--json"))
    # With one P each read is one; it is retaken from other calls too.
    retakes = summary["retakes"]["sysmon"]
    expect("retakes", retakes, told["runtime"]["retakes"])
    if retakes < PRIME:
        raise WrongError(f"retakes: {retakes}, not {PRIME} or more")
    return trace, told


def reference(trial: Trial) -> None:
    trace, told = _prime(trial, "reference")
    rows = [row for row in episodes(trace) if row["syscall"] == "read" and row["outcome"]]
    # A look into /proc, by which the writer sees that the reader is blocked, may block itself.
    of_pipe = [row for row in rows if row["arg0"] == told["read_fd"]]
    expect("blocking reads", len(of_pipe), PRIME)
    (process,) = json.loads(pretake("budget", "--json", trace))["processes"]
    if not process["states"]["running"]:
        raise WrongError("no P of it is known to have run")


def _go(trial: Trial, name: str, *options: str) -> str:
    """The trace of the Go program, made once."""
    trace = trial.folder / f"{name}.pretake"
    if not trace.exists():
        calls = int(pretake("record", "-q", *options, "-o", str(trace), "--", trial.program))
        sleeps = [row for row in episodes(str(trace)) if row["syscall"] == "nanosleep"]
        expect("blocking nanosleeps", len(sleeps), calls)
    return str(trace)


def go(trial: Trial) -> None:
    _go(trial, "go")


def go_exact(trial: Trial) -> None:
    _go(trial, "go-exact", "--probes", "exact")


def check(trial: Trial) -> None:
    pretake("check", _go(trial, "go"))


def budget(trial: Trial) -> None:
    told = json.loads(pretake("budget", "--json", _go(trial, "go")))
    for process in told["processes"]:
        expect("sum of states", sum(process["states"].values()), process["p_ns"])


def live(trial: Trial) -> None:
    told = pretake("live", "--json", "--period", "1", "--", trial.program)
    rows = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    if not any(row.get("runtime") == "go" for row in rows):
        raise WrongError("live does not see the Go runtime")


def perf(trial: Trial) -> None:
    _prime(trial, "perf", "--backend", "perf")


MODES: Final[dict[str, Callable[[Trial], None]]] = {
    "doctor": doctor,
    "record, reference runtime": reference,
    "record, Go": go,
    "record, Go, probes exact": go_exact,
    "budget": budget,
    "check": check,
    "live": live,
    "record --backend perf": perf,
    FLAG: return_flag,
    COMES: cpu_comes,
    COMES_PERF: cpu_comes_perf,
    COMES_HOST: cpu_comes_host,
    MANY: many_cpus,
    MANY_PERF: many_cpus_perf,
}


def _too_long(*_: object) -> None:
    raise WrongError("not done in its time")


def main() -> None:
    """Try the modes that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("modes", nargs="+")
    parser.add_argument("--flag", type=int)
    parser.add_argument("--seconds", type=int, default=0, help="for each mode; 0: no limit")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    trial = Trial(asked.program, asked.folder, asked.flag)
    trial.figures["page of memory"] = f"{mmap.PAGESIZE >> 10} KiB"
    modes: dict[str, bool | str] = {}
    seconds: dict[str, float] = {}
    told = {
        "kernel": platform.release(),
        "arch": os.uname().machine,
        "modes": modes,
        "seconds": seconds,
        "verified": trial.verified,
        "figures": trial.figures,
    }
    for module in _IMPORTED:
        importlib.import_module(module)
    print(json.dumps(told), flush=True)
    signal.signal(signal.SIGALRM, _too_long)
    for name in asked.modes:
        since_s = time.monotonic()
        signal.alarm(asked.seconds)
        try:
            MODES[name](trial)
            modes[name] = True
        except WrongError as wrong:
            modes[name] = str(wrong)
        except Exception:
            modes[name] = traceback.format_exc().splitlines()[-1][:300]
        finally:
            signal.alarm(0)
        seconds[name] = round(time.monotonic() - since_s, 1)
        print(name, modes[name], seconds[name], file=sys.stderr, flush=True)
        # After each, for the machine may be ended before the last.
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
