"""Boots each kernel and tries every mode of the command on it: ``make test-kernels`` (as root).

Needs Debian's qemu-system-x86, qemu-system-arm, busybox-static, kmod and zstd. The table goes to
``bench/results/kernels.json`` and into ``docs/where-it-runs.md``; the exit status is 1 where a
mode does not work that should. ``own`` is this machine's own kernel, without an emulator.
"""

from __future__ import annotations

import argparse
import compileall
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench import results
from tests.go import toolchains
from tests.kernels.foreign import TREE, foreign_root
from tests.kernels.guest import COMES, COMES_HOST, COMES_PERF, FLAG, MANY, MANY_PERF, MODES
from tests.kernels.images import KERNELS, Kernel, fetch
from tests.kernels.machine import ONE_MAY_COME
from tests.kernels.prepared import prepare, use
from tests.kernels.vm import Outcome, run
from tracer.arch import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
FIGURES = results.FOLDER / "kernels.json"
PAGE = ROOT / "docs/where-it-runs.md"
BEGIN, END = "<!-- table: make test-kernels -->", "<!-- end of table -->"
OWN = "own"
REFERENCE = "record, reference runtime"
PERF = "record --backend perf"
WITHOUT_BPF = (PERF, COMES_PERF, COMES_HOST)
"""The modes that are to work where the kernel is refused for its BPF."""
WITH_MANY = (MANY, MANY_PERF)
"""The modes that have a machine of their own: with many possible CPUs."""
BOOT_S: Final = 300
"""Until the guest says something, on a busy machine; 7 s on a quiet one."""
PARTS: Final = ("modes", "seconds", "verified", "figures")
"""What is known of a kernel, each a dict; see tests/kernels/guest.py."""
_FATAL: Final = re.compile(r"BUG: |Oops: |Kernel panic")
Seen = Callable[[dict[str, Any]], None]

# An emulated CPU is some thirty times slower, and what the parser of strangers' files may take is
# time. Its limits are changed in the guest's own copy, an overlay that goes with it.
SLOW = (
    "sed -i -e 's/^CPU_S: Final = .*/CPU_S: Final = 120/'"
    " -e 's/^WALL_S: Final = .*/WALL_S: Final = 120.0/'"
    " tracer/targets/jail/confine.py"
    " && sed -i 's/^_START_S: Final = .*/_START_S: Final = 300.0/' tracer/targets/jail/client.py"
)


def tried(kernel: Kernel, modes: Sequence[str], seconds: int, seen: Seen) -> None:
    """Try modes on one kernel, and tell what was seen as soon as it was.

    Args:
        kernel: which.
        modes: names of what is to be tried.
        seconds: for each.
        seen: is called with what is known so far; the last call has all.
    """
    image = fetch(kernel)
    machine = next(arch.name for arch in ARCHITECTURES if arch.goarch == kernel.arch)
    inputs = None if kernel.refused else prepare(machine)
    if machine == platform.machine():
        program = toolchains.build("sleeps", linkage="stripped")
        root, tree, python = Path("/"), str(ROOT), sys.executable
    else:
        root, tree, python = foreign_root(kernel.arch), TREE, "PRETAKE_NO_COMPILE=1 python3"
        program = Path(TREE) / "sleeps.of.go"
        built = toolchains.build("sleeps", linkage=f"{kernel.arch}-no-symbols")
        shutil.copy(built, root / str(program).strip("/"))
    told: dict[str, Any] = {"kernel": image.version, "arch": machine}
    told |= {part: {} for part in PARTS}
    left = list(modes)

    def heard(text: str) -> None:
        for part, more in (_told(text) or {}).items():
            told[part] = told[part] | more if part in PARTS else more
        seen(told)

    of_many = [mode for mode in modes if mode in WITH_MANY]
    boots = [(ONE_MAY_COME, [mode for mode in modes if mode not in WITH_MANY])]
    if kernel.many_cpus is not None:
        boots.append((kernel.many_cpus, of_many))
    # A mode that ends the machine does not end the others: it is booted again for those.
    for emulated, left in boots:
        while left:
            words = [program, "/tmp/pretake-guest", f"--seconds={seconds}", *left]
            if FLAG in left:
                words.append(f"--flag={kernel.return_flag}")
            command = (
                f"{use(tree)}; cd {tree} && {SLOW}"
                f" && {python} -m tests.kernels.guest {shlex.join(map(str, words))}"
            )
            outcome = run(
                image,
                command,
                root=root,
                inputs=inputs,
                machine=emulated,
                quiet_s=seconds + BOOT_S,
                seen=heard,
            )
            heard(outcome.stdout)
            booted = _told(outcome.stdout) is not None
            left = [mode for mode in left if mode not in told["modes"]]
            if left:
                why = f"the guest ended in it with {outcome.status}: {_last_words(outcome)}"
                told["modes"] |= dict.fromkeys(left if not booted else left[:1], why)
                left = left[1:] if booted else []
                seen(told)


def _last_words(outcome: Outcome) -> str:
    """What tells most of why a machine ended."""
    fatal = [line for line in outcome.console.splitlines() if _FATAL.search(line)]
    said = (outcome.stderr or outcome.console).strip().splitlines()
    return (fatal[:1] or said[-1:] or ["nothing"])[0].strip()[:300]


def tried_here(modes: Sequence[str], seen: Seen) -> None:
    """Try modes on this machine's own kernel."""
    program = toolchains.build("sleeps", linkage="stripped")
    with tempfile.TemporaryDirectory(prefix="pretake-kernels-") as folder:
        # The target and what is left by it are to be seen by whoever the tracer becomes.
        Path(folder).chmod(0o755)
        command = [sys.executable, "-m", "tests.kernels.guest", str(program), folder, *modes]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told = _told(done.stdout)
    assert told is not None
    seen(told)


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
        if (works is not True) is not (bool(refused) and mode not in WITHOUT_BPF)
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
            works = figures[name]["modes"].get(mode)
            cell = "–" if works is None else "works"
            if isinstance(works, str):
                cell = f"no ({notes.setdefault(works, len(notes) + 1)})"
            cells.append(cell)
        lines.append(f"| `{mode}` | " + " | ".join(cells) + " |")
    measured = [row.get("figures", {}) for row in figures.values()]
    for what in dict.fromkeys(what for told in measured for what in told):
        lines.append(f"| {what} | " + " | ".join(told.get(what, "–") for told in measured) + " |")
    verified = [row.get("verified", {}) for row in figures.values()]
    for mode in dict.fromkeys(mode for told in verified for mode in told):
        most_of = [told.get(mode) for told in verified]
        cells = [f"{most[0]:,}" if most else "–" for most in most_of]
        lines.append(f"| instructions verified, `{mode}` | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in notes.items())]
    return "\n".join(lines).rstrip()


def write(figures: dict[str, Any]) -> bool:
    """Leave the figures beside those of kernels that were not asked for; make the table.

    Returns:
        Whether the page has it. It keeps its own where that tells of more kernels than are known
        here: in another checkout.
    """
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    known |= figures
    known = {name: known[name] for name in [k.name for k in KERNELS] + [OWN] if name in known}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(known, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(f"{BEGIN}\n\n")
    old, _, behind = rest.partition(f"\n\n{END}")
    new = table(known)
    if _columns(new) < _columns(old):
        return False
    PAGE.write_text(f"{before}{BEGIN}\n\n{new}\n\n{END}{behind}")
    return True


def _columns(told: str) -> int:
    return told.partition("\n")[0].count("|")


def _modes(kernel: Kernel | None) -> list[str]:
    """What there is to try on a kernel; None is this machine's own."""
    without = set()
    if kernel is None or kernel.refused or kernel.arch != "amd64":
        without.add(FLAG)
    if kernel is None:
        # It would take a CPU from everybody.
        without |= {COMES, COMES_PERF, COMES_HOST}
    if kernel is None or kernel.many_cpus is None:
        without.update(WITH_MANY)
    if kernel is not None and kernel.arch != "amd64":
        # It is interpreted there, and an interpreted function has no address to probe; and what
        # its workloads count with has no wheel.
        without |= {REFERENCE, PERF}
    return [mode for mode in MODES if mode not in without]


def try_kernel(
    name: str, kernel: Kernel | None, only: Sequence[str] | None, seconds: int
) -> list[str]:
    """Try modes on a kernel; prints and writes each result as soon as it is known.

    Args:
        name: as it is asked for.
        kernel: which; None is this machine's own.
        only: the modes, besides which what is known of others is kept; None is all, anew.
        seconds: for each mode.

    Returns:
        The modes that do otherwise than they should.
    """
    modes = only or _modes(kernel)
    known: dict[str, Any] = {part: {} for part in PARTS}
    if only and FIGURES.exists():
        known |= json.loads(FIGURES.read_text()).get(name, {})
    printed: set[str] = set()

    def seen(told: dict[str, Any]) -> None:
        for mode, works in told["modes"].items():
            if mode not in printed:
                took, said = told["seconds"].get(mode, "?"), "works" if works is True else works
                print(f"{name:9} {mode:50} {took:>7} s  {said}", flush=True)
        printed.update(told["modes"])
        known.update(told | {part: known[part] | told[part] for part in PARTS})
        write({name: known})

    if kernel is None:
        tried_here(modes, seen)
    else:
        tried(kernel, modes, seconds, seen)
    return wrong(kernel, known["modes"])


def main() -> int:
    """Try the kernels that are asked for."""
    names = {kernel.name: kernel for kernel in KERNELS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="*", default=[*names, OWN])
    parser.add_argument("--seconds", type=int, default=900, help="for each mode")
    parser.add_argument(
        "--only", action="append", choices=MODES, help="a mode; what is known of others is kept"
    )
    asked = parser.parse_args()
    for package in ("analysis", "pretake", "reference_runtime", "tests/kernels", "tracer"):
        # Or the guest compiles each for itself.
        compileall.compile_dir(ROOT / package, quiet=1)
    unexpected = [
        f"{name}: {mode}"
        for name in asked.kernels
        for mode in try_kernel(name, names.get(name), asked.only, asked.seconds)
    ]
    print(f"written: {FIGURES}")
    if write({}):
        print(f"written: {PAGE}")
    else:
        print(f"left as it is: {PAGE}, which tells of kernels that were not tried here")
    if unexpected:
        print("not as it should be:", "; ".join(unexpected))
    return int(bool(unexpected))


if __name__ == "__main__":
    sys.exit(main())
