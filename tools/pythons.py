"""The Pythons that ``make wheels`` compiles for: one CPython of each version from 3.11 to 3.14.

They are looked for among those that are named, then on PATH, then among pyenv's where pyenv is on
PATH. A version that is not there is taken from Debian's packages (:mod:`tools.debian_python`).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tools.debian_python import unpacked_python
from tracer.errors import PretakeError

__all__ = ["VERSIONS", "pythons"]

VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Of CPython, which wheels are compiled for."""
# The build without a global lock has another ABI, which mypyc does not compile for.
_ASK: Final = """
import sys, sysconfig
usual = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print("%d.%d" % sys.version_info[:2] if usual else "another")
"""


def pythons(named: Sequence[str] = ()) -> dict[str, Path]:
    """An interpreter of each version that there is one of, by version, the oldest first.

    The Python that runs this is the first choice for its version, after those that are named.

    Args:
        named: programs that go before all others.

    Raises:
        PretakeError: one that is named is no CPython of these versions.
    """
    found: dict[str, Path] = {}
    for name in named:
        path = shutil.which(name)
        version = _version(Path(path)) if path else None
        if path is None or version not in VERSIONS:
            raise PretakeError(f"{name} is no CPython from {VERSIONS[0]} to {VERSIONS[-1]}")
        found.setdefault(version, Path(path).absolute())
    for program in (Path(sys.executable), *_on_path(), *_of_pyenv()):
        version = _version(program)
        if version in VERSIONS:
            found.setdefault(version, program)
    for version in VERSIONS:
        if version not in found:
            try:
                found[version] = unpacked_python(version)
            except PretakeError as error:
                print(f"no wheel for Python {version}: {error}", file=sys.stderr, flush=True)
    return {version: found[version] for version in VERSIONS if version in found}


@functools.cache
def _version(program: Path) -> str | None:
    """As ``3.12``; None where the program does not run, as a shim of a version not chosen."""
    try:
        done = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _on_path() -> Iterator[Path]:
    for folder in os.get_exec_path():
        yield from _there(Path(folder) / f"python{version}" for version in VERSIONS)


def _of_pyenv() -> Iterator[Path]:
    if shutil.which("pyenv") is None:
        return
    told = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
    if told.returncode == 0:
        folders = sorted(Path(told.stdout.strip(), "versions").glob("3.*/bin"), reverse=True)
        for folder in folders:
            yield from _there(folder / f"python{version}" for version in VERSIONS)


def _there(programs: Iterable[Path]) -> Iterator[Path]:
    return (program for program in programs if os.access(program, os.X_OK))
