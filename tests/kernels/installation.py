"""A newcomer on Debian 12 and its own kernel, under qemu: ``make test-debian`` (as root).

debootstrap installs Debian's smallest system, and Debian's own kernel boots it. In it,

- ``make demo`` runs in a fresh clone, and installs all that it needs from Debian's and Python's
  registries;
- in a second boot, ``pip install`` takes a wheel of ``make wheels``, and a stripped Go program is
  captured: there is no compiler, no bcc and no header in it.

The machine is emulated, some thirty times slower than a real one, so this takes two hours. Times
and sizes go to ``bench/results/installation.json``. The exit status is 1 where a step failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import results
from tests.go import toolchains
from tests.kernels.images import KERNELS, fetch
from tests.kernels.machine import Machine
from tests.kernels.run import SLOW
from tests.kernels.vm import Outcome, run
from tools.debian import mirror

ROOT: Final = Path(__file__).resolve().parents[2]
FIGURES: Final = results.FOLDER / "installation.json"
SUITE, KERNEL = "bookworm", "6.1"
MACHINE: Final = Machine("1", memory="10G", network=True)
"""What is installed there lies in its memory."""
QUIET_S: Final = 4 * 3_600
"""``make demo`` prints nothing while it installs and compiles, for an hour or more."""
CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"

# A mirror may be a snapshot, of any age.
_APT: Final = 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\n'
_STEPS: Final = f"""
export HOME=/root DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PIP_CERT=/{CERTIFICATES}
export PIP_DEFAULT_TIMEOUT=600 PIP_ROOT_USER_ACTION=ignore
cd /root
begin() {{ step=$1 at=$(date +%s) used=$(df --output=used -m / | tail -n 1); }}
end() {{
    now=$(date +%s)
    echo "$step: $((now - at)) s, $(($(df --output=used -m / | tail -n 1) - used)) MB"
}}
set -e
"""
_TOOLS: Final = """
begin 'apt-get install {packages}'
apt-get update -qq
apt-get install -y -qq --no-install-recommends {packages} >/dev/null
end
"""
_DEMO: Final = f"""
git clone -q file:///srv/pretake pretake
cd pretake
{SLOW}
begin 'make demo'
make demo
end
test -s demo/report.html
"""
_WHEEL: Final = f"""
for compiler in cc gcc clang; do test -z "$(command -v $compiler)"; done
test -z "$(find / -xdev -path '*/bcc/__init__.py' -o -xdev -path '/usr/src/linux-*')"
begin 'pip install of the wheel'
python3 -m venv venv
venv/bin/pip install -q /srv/wheels/pretake-*.whl
end
(cd venv/lib/python3*/site-packages && {SLOW})
begin 'record of a stripped Go program'
calls=$(venv/bin/pretake record -q -o made.pretake -- /srv/program)
end
echo "calls: $calls"
venv/bin/pretake episodes made.pretake --json
"""


def installed(folder: Path) -> Path:
    """A root with Debian's smallest system, that trusts whom this machine trusts.

    Raises:
        CalledProcessError: debootstrap failed, and said why.
    """
    root = folder / "root"
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates"]
    with (folder / "debootstrap.log").open("wb") as log:
        subprocess.run([*command, SUITE, root, mirror()], check=True, stdout=log)
    shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    (root / "etc/apt/apt.conf.d/90mirror").write_text(_APT)
    (root / "srv").mkdir(exist_ok=True)
    (root / "out").mkdir()
    return root


def boot(root: Path, script: str) -> Outcome:
    """Run a script in it; nothing that it does is left behind."""
    kernel = next(kernel for kernel in KERNELS if kernel.name == KERNEL)
    said = ""

    def seen(text: str) -> None:
        nonlocal said
        print(text[len(said) :], end="", flush=True)
        said = text

    return run(
        fetch(kernel), _STEPS + script, root=root, machine=MACHINE, quiet_s=QUIET_S, seen=seen
    )


def told(outcome: Outcome) -> dict[str, dict[str, int]]:
    """What each step took, in seconds and megabytes, by its name."""
    found = re.findall(r"^(.+): (\d+) s, (\d+) MB$", outcome.stdout, re.MULTILINE)
    return {name: {"seconds": int(took), "megabytes": int(used)} for name, took, used in found}


def demo(root: Path) -> tuple[Outcome, bool]:
    """``make demo`` in a fresh clone of what is committed here."""
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, root / "srv/pretake"], check=True)
    outcome = boot(root, _TOOLS.format(packages="ca-certificates git make") + _DEMO)
    return outcome, outcome.status == 0


def wheel(root: Path) -> tuple[Outcome, bool]:
    """A capture by a wheel of ``make wheels``, without a compiler, bcc or headers."""
    wheels = sorted((ROOT / "dist").glob("pretake-*-cp311-cp311-*x86_64.whl"))
    if not wheels:
        sys.exit("no wheel for CPython 3.11 is in dist/: run make wheels")
    (root / "srv/wheels").mkdir()
    shutil.copy(wheels[-1], root / "srv/wheels")
    shutil.copy(toolchains.build("sleeps", linkage="stripped"), root / "srv/program")
    outcome = boot(root, _TOOLS.format(packages="python3-venv") + _WHEEL)
    if outcome.status != 0:
        return outcome, False
    [made] = re.findall(r"^calls: (\d+)$", outcome.stdout, re.MULTILINE)
    rows = [json.loads(row) for row in outcome.stdout.splitlines() if row.startswith("{")]
    seen = [row for row in rows if row["syscall"] == "nanosleep"]
    print(f"{made} calls made, {len(seen)} told")
    return outcome, len(seen) == int(made)


TRIED: Final = {"make demo": demo, "wheel": wheel}


def main() -> None:
    """Try what is asked for, print what it takes, and write it to :data:`FIGURES`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=TRIED, help="one of the two")
    only = parser.parse_args().only
    failed = []
    for name, tried in TRIED.items():
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="pretake-installation-") as folder:
            outcome, works = tried(installed(Path(folder)))
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        results.write(FIGURES.stem, known | {name: {"works": works, "steps": told(outcome)}})
        if not works:
            failed.append(name)
            print(outcome.stderr[-2_000:] or outcome.console[-2_000:], file=sys.stderr)
        print(f"{name}: {'works' if works else 'failed'}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
