"""Boots each kernel and tries every mode of the command on it: ``make test-kernels`` (as root).

Needs Debian's qemu-system-x86, busybox-static and kmod. The table goes to
``bench/results/kernels.json``; the exit status is 1 where a mode does not work.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench import results
from tests.go import toolchains
from tests.kernels.images import KERNELS, fetch
from tests.kernels.vm import run

ROOT = Path(__file__).resolve().parents[2]


def tried(name: str, seconds: float) -> dict[str, Any]:
    """What works on one kernel."""
    image = fetch(next(kernel for kernel in KERNELS if kernel.name == name))
    program = toolchains.build("sleeps", linkage="stripped")
    command = f"cd {ROOT} && {sys.executable} -m tests.kernels.guest {program} /tmp/pretake-guest"
    outcome = run(image, command, seconds=seconds)
    for line in reversed(outcome.stdout.splitlines()):
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return told
    said = (outcome.stderr or outcome.console).strip().splitlines() or ["nothing"]
    why = f"the guest ended with {outcome.status}: {said[-1]}"
    return {"kernel": image.version, "arch": image.arch, "modes": {"boot": why}}


def main() -> int:
    """Try the kernels that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="*", default=[kernel.name for kernel in KERNELS])
    parser.add_argument("--seconds", type=float, default=900, help="for each kernel")
    asked = parser.parse_args()
    told = {}
    for name in asked.kernels:
        told[name] = tried(name, asked.seconds)
        for mode, works in told[name]["modes"].items():
            print(f"{name:6} {mode:28} {'works' if works is True else works}", flush=True)
    print(f"written: {results.write('kernels', told)}")
    return int(any(works is not True for row in told.values() for works in row["modes"].values()))


if __name__ == "__main__":
    sys.exit(main())
