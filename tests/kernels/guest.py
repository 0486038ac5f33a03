"""Runs on the kernel under test: every mode of the command, each against a known count.

Prints a JSON object after each, of which the last counts: ``kernel``, ``arch`` and ``modes``, by
name ``true`` or why it does not work, in one line.

Usage: guest.py GO_PROGRAM FOLDER [FLAG] (the program is tests/go/sleeps, built for this machine;
FLAG is the flag that the BPF programs in the cache were compiled with)
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tracer.kernel import compiler

MOST_INSTRUCTIONS = 100_000
"""That the verifier may go through for one program: a tenth of its limit."""
PRIME = 23
"""Blocking reads of the reference runtime's workload ``prime``."""


class WrongError(Exception):
    """What a mode answered, and what it should have."""


def pretake(*arguments: str) -> str:
    """Run the command; what it printed. Raises WrongError with its last line of error."""
    done = subprocess.run(
        [sys.executable, "-m", "pretake", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise WrongError(f"exit {done.returncode}: {lines[-1].strip()[:300]}")
    return done.stdout


def episodes(trace: str) -> list[dict[str, Any]]:
    """The rows of ``pretake episodes``."""
    return [json.loads(line) for line in pretake("episodes", trace, "--json").splitlines()]


def expect(what: str, got: object, wanted: object) -> None:
    """Raise WrongError where two are not the same."""
    if got != wanted:
        raise WrongError(f"{what}: {got}, not {wanted}")


def doctor(_program: str, _folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pretake", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    checks = json.loads(done.stdout)
    for check in checks:
        print("   ", check["name"], check["ok"], check["detail"], file=sys.stderr, flush=True)
    lacking = [check for check in checks if not check["ok"] and check["needed"]]
    if lacking:
        raise WrongError(f"exit {done.returncode}: {lacking[0]['detail']}: {lacking[0]['mend']}")
    modes = [check for check in checks if check["name"].startswith("pretake ")]
    expect("modes that are refused", [mode["name"] for mode in modes if not mode["ok"]], [])
    for mode in modes:
        told = re.search(r"at most (\d+) instructions verified", mode["detail"])
        if not told or not 0 < int(told[1]) <= MOST_INSTRUCTIONS:
            raise WrongError(f"{mode['name']}: {mode['detail']}")


def return_flag(compiled_with: int) -> None:
    expect("the flag", compiler.return_flag(), compiled_with)


def reference(_program: str, folder: Path) -> None:
    trace = str(folder / "reference.pretake")
    pretake("record", "-q", "-o", trace, "--", sys.executable, "-m", "pretake", "run", "prime")
    rows = episodes(trace)
    reads = [row for row in rows if row["syscall"] == "read" and row["outcome"] is not None]
    expect("blocking reads", len(reads), PRIME)


def _go(program: str, folder: Path, name: str, *options: str) -> str:
    trace = str(folder / f"{name}.pretake")
    said = folder / f"{name}.said"
    command = ["sh", "-c", f'exec "$0" >{said}', program]
    if name == "go":
        # Known before it runs, as most targets are.
        command = [program]
    done = subprocess.run(
        [sys.executable, "-m", "pretake", "record", "-q", *options, "-o", trace, "--", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise WrongError(f"exit {done.returncode}: {lines[-1].strip()[:300]}")
    calls = int(said.read_text() if name != "go" else done.stdout)
    rows = episodes(trace)
    sleeps = [row for row in rows if row["syscall"] == "nanosleep"]
    expect("blocking nanosleeps", len(sleeps), calls)
    return trace


def go(program: str, folder: Path) -> None:
    _go(program, folder, "go")


def go_exact(program: str, folder: Path) -> None:
    _go(program, folder, "go", "--force", "--probes", "exact")


def check(program: str, folder: Path) -> None:
    trace = folder / "go.pretake"
    pretake("check", str(trace if trace.exists() else _go(program, folder, "go")))


def budget(program: str, folder: Path) -> None:
    trace = folder / "go.pretake"
    told = json.loads(
        pretake("budget", "--json", str(trace if trace.exists() else _go(program, folder, "go")))
    )
    for process in told["processes"]:
        expect("sum of states", sum(process["states"].values()), process["p_ns"])


def live(program: str, _folder: Path) -> None:
    told = pretake("live", "--json", "--period", "1", "--", program)
    rows = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    if not any(row.get("runtime") == "go" for row in rows):
        raise WrongError("live does not see the Go runtime")


def perf(_program: str, folder: Path) -> None:
    trace = str(folder / "perf.pretake")
    command = [sys.executable, "-m", "pretake", "run", "prime"]
    pretake("record", "-q", "--backend", "perf", "-o", trace, "--", *command)
    pretake("summary", trace, "--json")


MODES: dict[str, Callable[[str, Path], None]] = {
    "doctor": doctor,
    "record, reference runtime": reference,
    "record, Go": go,
    "record, Go, probes exact": go_exact,
    "budget": budget,
    "check": check,
    "live": live,
    "record --backend perf": perf,
}


def main(argv: Sequence[str]) -> None:
    """Try every mode."""
    program, folder, *flag = argv[0], Path(argv[1]), *map(int, argv[2:])
    folder.mkdir(parents=True, exist_ok=True)
    modes: dict[str, bool | str] = {}
    tried: dict[str, Callable[[str, Path], None]] = dict(MODES)
    if flag:
        tried["a call's return, by a thread's flag"] = lambda *_: return_flag(flag[0])
    for name, mode in tried.items():
        try:
            mode(program, folder)
            modes[name] = True
        except WrongError as wrong:
            modes[name] = str(wrong)
        except Exception:
            modes[name] = traceback.format_exc().splitlines()[-1][:300]
        print(name, modes[name], file=sys.stderr, flush=True)
        # After each, for the machine may be ended before the last.
        told = {"kernel": platform.release(), "arch": os.uname().machine, "modes": modes}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
