"""``make wheels``: what pip installs, into ``dist/`` (as root: bcc makes maps as it compiles).

Three files: the sources, a wheel for this Python with the compiled modules, and a wheel for every
other Python, interpreted. All have the BPF programs as byte code (tracer/kernel/shipped.py), so
that the machine where they are installed needs no compiler. Both wheels are built from the
sources' file and from nothing else, so whoever has that file can build them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tracer.kernel.compiler import compiler_version, sources_digest
from tracer.kernel.shipped import archive_name, ship

__all__ = ["MACHINES", "build", "byte_code"]

ROOT: Final = Path(__file__).resolve().parent.parent
DIST: Final = ROOT / "dist"
MACHINES: Final[dict[str, dict[str, str]]] = {"x86_64": {}}
"""The architectures that byte code is shipped for, and what bcc is told to compile for them.

With ``{"ARCH": "arm64", "BCC_KERNEL_SOURCE": folder}`` bcc compiles for ``aarch64`` on x86-64; the
folder has Debian's arm64 headers over the common ones
(:func:`~tracer.kernel.bcc_loader.merge_headers`).
"""
_INTERPRETED: Final = {"PRETAKE_NO_COMPILE": "1", "PRETAKE_NO_NATIVE": "1"}
_SDIST: Final = """
import sys
from setuptools.build_meta import build_sdist
build_sdist(sys.argv[1])
"""


def byte_code(machine: str, bcc_env: Mapping[str, str] | None = None) -> Path:
    """The byte code of these sources, compiled if it was not before.

    Args:
        machine: an architecture, as ``uname -m`` calls it.
        bcc_env: what bcc is told, to compile for another than this machine's.
    """
    made_of = hashlib.sha256(f"{sources_digest()} {compiler_version()}".encode()).hexdigest()[:16]
    path = ROOT / "build" / "byte-code" / made_of / archive_name(machine)
    if not path.exists():
        print("compiling the BPF programs of every mode (some minutes)", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{os.getpid()}")
        ship(aside, bcc_env)
        aside.rename(path)
    return path


def build(into: Path) -> list[Path]:
    """Make the three files.

    Args:
        into: the folder.

    Returns:
        The sources, the compiled wheel, the interpreted one.

    Raises:
        PretakeError: the BPF programs cannot be compiled.
        CalledProcessError: another step failed, and said why.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pretake-wheels-") as folder:
        work = Path(folder)
        # Not in the clone: what other builds left there would get into the wheel.
        _stage(work / "clone")
        _run(["-c", _SDIST, str(into.resolve())], cwd=work / "clone", env=_INTERPRETED)
        sources = max(into.glob("pretake-*.tar.gz"), key=lambda path: path.stat().st_mtime)
        wheels = [
            _wheel(sources, work / "compiled", {}),
            _wheel(sources, work / "interpreted", _INTERPRETED),
        ]
        return [sources, *(Path(shutil.move(wheel, into / wheel.name)) for wheel in wheels)]


def _stage(folder: Path) -> None:
    """A copy of what belongs to the project, with the byte code in its place."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for machine, bcc_env in MACHINES.items():
        shutil.copy(byte_code(machine, bcc_env), folder / "tracer" / "bpf")


def _wheel(sources: Path, into: Path, env: Mapping[str, str]) -> Path:
    # What builds it is in this environment already: no index is asked.
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "-q"]
    _run(["-m", "pip", "wheel", *options, "-w", str(into), str(sources)], cwd=into.parent, env=env)
    [wheel] = into.iterdir()
    return wheel


def _run(arguments: list[str], cwd: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        done.check_returncode()


if __name__ == "__main__":
    for made in build(DIST):
        print(f"{made.relative_to(ROOT)}  {made.stat().st_size / 1e6:.1f} MB")
