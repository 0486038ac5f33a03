"""Boots each kernel and tries every mode of the command on it: ``make test-kernels`` (as root).

Needs Debian's qemu-system-x86, busybox-static, kmod and zstd. The table goes to
``bench/results/kernels.json`` and into ``docs/where-it-runs.md``; the exit status is 1 where a
mode does not work that should. ``own`` is this machine's own kernel, without an emulator.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import results
from tests.go import toolchains
from tests.kernels.guest import MODES
from tests.kernels.images import KERNELS, Kernel, fetch
from tests.kernels.prepared import prepare
from tests.kernels.vm import run

ROOT = Path(__file__).resolve().parents[2]
FIGURES = results.FOLDER / "kernels.json"
PAGE = ROOT / "docs/where-it-runs.md"
BEGIN, END = "<!-- table: make test-kernels -->", "<!-- end of table -->"
OWN = "own"
WITHOUT_BPF = "record --backend perf"
"""The mode that is to work where the kernel is refused for its BPF."""

# An emulated CPU is some thirty times slower, and what the parser of strangers' files may take is
# time. Its limits are changed in the guest's own copy, an overlay that goes with it.
_SLOW = (
    "sed -i -e 's/^CPU_S: Final = .*/CPU_S: Final = 120/'"
    " -e 's/^WALL_S: Final = .*/WALL_S: Final = 120.0/'"
    " tracer/targets/jail/confine.py"
    " && sed -i 's/^_START_S: Final = .*/_START_S: Final = 300.0/' tracer/targets/jail/client.py"
)


def tried(kernel: Kernel, seconds: float) -> dict[str, Any]:
    """What works on one kernel."""
    image = fetch(kernel)
    program = toolchains.build("sleeps", linkage="stripped")
    command = (
        "mkdir -p /var/cache/pretake && rm -f /var/cache/pretake/programs-*"
        " && cp /out/inputs/* /var/cache/pretake/;"
        f" cd {ROOT} && {_SLOW}"
        f" && {sys.executable} -m tests.kernels.guest {program} /tmp/pretake-guest"
        f" {'' if kernel.refused else kernel.return_flag}"
    )
    inputs = None if kernel.refused else prepare(image)
    outcome = run(image, command, inputs=inputs, seconds=seconds)
    told = _told(outcome.stdout)
    if told is None:
        said = (outcome.stderr or outcome.console).strip().splitlines() or ["nothing"]
        why = f"the guest ended with {outcome.status}: {said[-1]}"
        told = {"kernel": image.version, "arch": image.arch, "modes": {"boot": why}}
    late = f"not tried: the emulated machine was ended after {seconds:g} s"
    return told | {"modes": dict.fromkeys(MODES, late) | told["modes"]}


def tried_here() -> dict[str, Any]:
    """What works on this machine's own kernel."""
    program = toolchains.build("sleeps", linkage="stripped")
    with tempfile.TemporaryDirectory(prefix="pretake-kernels-") as folder:
        # The target and what is left by it are to be seen by whoever the tracer becomes.
        Path(folder).chmod(0o755)
        command = [sys.executable, "-m", "tests.kernels.guest", str(program), folder]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told = _told(done.stdout)
    assert told is not None
    return told


def _told(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return told
    return None


def wrong(kernel: Kernel | None, modes: dict[str, bool | str]) -> list[str]:
    """The modes that do otherwise than they should on a kernel."""
    refused = kernel.refused if kernel is not None else ""
    return [
        mode
        for mode, works in modes.items()
        if (works is not True) is not (bool(refused) and mode != WITHOUT_BPF)
        or (isinstance(works, str) and refused not in works)
    ]


def table(figures: dict[str, Any]) -> str:
    """The figures as a table of Markdown: one row a mode, one column a kernel."""
    names = list(figures)
    modes = dict.fromkeys(mode for row in figures.values() for mode in row["modes"])
    heads = [f"{row['kernel']}, {row['arch']}" for row in figures.values()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(names) + 1) + "|"]
    notes: dict[str, int] = {}
    for mode in modes:
        cells = []
        for name in names:
            works = figures[name]["modes"].get(mode, "not tried")
            cell = "works"
            if works is not True:
                cell = f"no ({notes.setdefault(str(works), len(notes) + 1)})"
            cells.append(cell)
        lines.append(f"| `{mode}` | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in notes.items())]
    return "\n".join(lines).rstrip()


def write(figures: dict[str, Any]) -> None:
    """Leave the figures beside those of kernels that were not asked for; make the table."""
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    known |= figures
    known = {name: known[name] for name in [k.name for k in KERNELS] + [OWN] if name in known}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(known, indent=1) + "\n")
    new = f"{BEGIN}\n\n{table(known)}\n\n{END}"
    old = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(old.sub(lambda _: new, PAGE.read_text()))


def main() -> int:
    """Try the kernels that are asked for."""
    names = {kernel.name: kernel for kernel in KERNELS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="*", default=[*names, OWN])
    parser.add_argument("--seconds", type=float, default=1800, help="for each kernel")
    asked = parser.parse_args()
    failed = False
    for name in asked.kernels:
        kernel = None if name == OWN else names[name]
        told = tried_here() if kernel is None else tried(kernel, asked.seconds)
        for mode, works in told["modes"].items():
            print(f"{name:6} {mode:28} {'works' if works is True else works}", flush=True)
        unexpected = wrong(kernel, told["modes"])
        failed |= bool(unexpected)
        if unexpected:
            print(f"{name:6} not as it should be: {', '.join(unexpected)}", flush=True)
        write({name: told})
    print(f"written: {FIGURES}, {PAGE}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
