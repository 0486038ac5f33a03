"""Damage Go programs by the thousand and have each read as a stranger's file is.

    python -m tools.fuzz_targets --inputs 1000000 --state build/fuzz.json

Each number of an input stands for one damaged file (:mod:`tests.unit.targets.damage`), of one of
three versions of Go in turn. The file is inspected with its debug information, the answer is
packed and checked as the tracer does it, and addresses are looked up in its function table. These
are faults: any exception but PretakeError (a traceback); an answer that the tracer would refuse;
more than 2 s of CPU time (a hang); more than 512 MB of memory.

The state file has what was done, and the next run continues from it. The parser runs in this
process, without its jail, so that faults which the jail would end are seen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.go import toolchains
from tests.unit.targets.damage import Damaged, Program, damaged, laid_open
from tracer.errors import PretakeError
from tracer.targets import NoRuntime
from tracer.targets.elf import Elf
from tracer.targets.inspect import inspect
from tracer.targets.jail.answers import layout_from_bytes, layout_to_bytes
from tracer.targets.jail.confine import ADDRESS_SPACE_BYTES, CPU_S
from tracer.targets.jail.server import sites_of
from tracer.targets.pclntab import Pclntab

__all__ = ["PROGRAMS", "HangError", "clocked", "read"]

PROGRAMS = (
    # Three versions of Go, and three ways to link: with everything, position-independent with
    # C in it, stripped; and one for another architecture.
    ("blockread", "1.19.8", "static"),
    ("blockread", "1.24.11", "cgo-pie"),
    ("blockread", "1.27.3", "static"),
    ("blockread", "1.27.3", "stripped"),
    ("sleeps", "1.27.3", "arm64"),
)
_SAVE_PERIOD = 2000
_ADDRESSES = 6


class HangError(BaseException):
    """An input took more CPU time than the parser may have; no Exception, so nobody catches it."""


def read(file: Damaged, draw: random.Random) -> str:
    """Read one damaged file.

    Returns:
        How it came out: ``refused``, ``too large``, ``no runtime``, ``partly`` or ``whole``.

    Raises:
        Exception: any but PretakeError is a fault of the parser.
    """
    path = Path("stranger")
    try:
        found = inspect(path, file, deep=True)
        checked = layout_from_bytes(layout_to_bytes(found), path, file.size)
        assert checked == found or isinstance(found, NoRuntime)
        if isinstance(checked, NoRuntime):
            return "no runtime"
        checked.layout.pack()
        with Elf(path, file) as elf:
            table = Pclntab(elf)
            begins = [probe.begin for probe in table.functions("runtime.main")]
            around = [begin + draw.randint(-64, 4096) for begin in begins]
            anywhere = [table.text + draw.randint(0, 1 << 20) for _ in range(_ADDRESSES)]
            sites_of(table, np.array(around + anywhere, "<i8"))
    except PretakeError:
        return "refused"
    except MemoryError:
        return "too large"
    return "partly" if checked.missing else "whole"


@contextlib.contextmanager
def clocked() -> Iterator[None]:
    """Raise HangError once more CPU time is taken than the parser may have."""

    def too_long(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _fuzz(programs: list[Program], inputs: int, state: dict[str, Any], save: Path) -> None:
    outcomes = Counter(state["outcomes"])
    while state["inputs"] < inputs:
        number = state["inputs"]
        draw = random.Random(number)
        file = damaged(programs[number % len(programs)], draw)
        began_s = time.process_time()
        try:
            with clocked():
                outcomes[read(file, draw)] += 1
        except HangError:
            state["hangs"].append(number)
        except Exception:
            state["tracebacks"].append(number)
            print(f"input {number}: {file.told}\n{traceback.format_exc()}", flush=True)
        took_s = time.process_time() - began_s
        if took_s > state["longest_s"]:
            state["longest_s"], state["longest_input"] = took_s, number
        state["inputs"] = number + 1
        state["cpu_s"] += took_s
        if state["inputs"] % _SAVE_PERIOD == 0 or state["inputs"] == inputs:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            state["peak_mb"] = max(state["peak_mb"], peak >> 10)
            state["outcomes"] = dict(outcomes)
            aside = save.with_suffix(".new")
            aside.write_text(json.dumps(state, indent=1) + "\n")
            aside.replace(save)
            print(_line(state), flush=True)


def _line(state: dict[str, Any]) -> str:
    told = ", ".join(f"{count} {name}" for name, count in sorted(state["outcomes"].items()))
    return (
        f"{state['inputs']} inputs: {len(state['tracebacks'])} tracebacks,"
        f" {len(state['hangs'])} hangs above {CPU_S} s, at most {state['longest_s']:.2f} s"
        f" (input {state['longest_input']}) and {state['peak_mb']} MB; {told}"
    )


def main() -> int:
    """Go on until so many inputs were read; exit status 1 if one of them was a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--state", type=Path, default=Path("build/fuzz.json"))
    asked = parser.parse_args()
    asked.state.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {
        "inputs": 0,
        "tracebacks": [],
        "hangs": [],
        "longest_s": 0.0,
        "longest_input": 0,
        "peak_mb": 0,
        "cpu_s": 0.0,
        "outcomes": {},
    }
    if asked.state.exists():
        state |= json.loads(asked.state.read_text())
    # The compiler takes more than the parser may.
    programs = [laid_open(toolchains.build(*program)) for program in PROGRAMS]
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    _fuzz(programs, asked.inputs, state, asked.state)
    print(_line(state))
    return 1 if state["tracebacks"] or state["hangs"] else 0


if __name__ == "__main__":
    sys.exit(main())
