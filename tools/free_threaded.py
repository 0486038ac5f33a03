"""The reference runtime on a Python without a GIL: ``make test-free-threaded``, from nothing.

Neither Debian nor PyPI has a free-threaded CPython, so it is built from Debian's sources, once,
and kept beside the kernels (tools/debian.py). mypy has no wheel for it: a Python of the same
version with a GIL translates the runtime to C, told that it builds for the other one, as for
another architecture (tools/cross.py). All of it happens in a copy of the project in ``build/``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.copies import ROOT, compile_in, refresh
from tools.debian import cache_folder, unpack_sources
from tools.debian_python import DEBIAN_NAMES
from tools.ends import ended
from tools.pythons import pythons
from tools.wheels import builder
from tracer.errors import PretakeError

__all__ = ["FreeThreaded", "free_threaded_python", "prepare"]

_SUITES: Final = (("3.14", "sid"), ("3.13", "forky"))
"""Versions that have such a build, the best first, and where Debian has their sources. A mirror
need not have all of them."""
_CONFIGURE: Final = ("--disable-gil", "--disable-test-modules", "--with-ensurepip=install")
# mypyc's library is for 3.14 and later, and asks for this where a module that was imported is
# replaced in sys.modules: the old one is kept for ever then.
_FOR_3_13: Final = "'-D_PyObject_XDecRefDelayed(object)=((void)(object))'"
_TESTED_WITH: Final = (
    "pytest",
    "pytest-timeout",
    "click",
    "rich",
    "numpy",
    # Newer ones are partly Rust, and have no wheel for it.
    "hypothesis<6.150",
    # Newer ones are for 3.14 and later. It says that it needs the GIL, so PYTHON_GIL=0 is set: all
    # of a simulated machine's threads are one thread.
    "greenlet<3.3",
    "hdrhistogram",
    "librt",
    "mypy-extensions",
    "pyelftools",
)
_HOME: Final = ROOT / "build" / "free-threaded"


class FreeThreaded:
    """A free-threaded CPython.

    Args:
        version: as ``3.13``.
        root: where it is installed.
    """

    def __init__(self, version: str, root: Path) -> None:
        self.version = version
        self.root = root
        self.program = root / "bin" / f"python{version}t"

    def compile_environment(self, folder: Path) -> dict[str, str]:
        """What a Python with a GIL is told, to translate and compile for this one.

        Args:
            folder: for a copy of this one's configuration, apart from its modules.
        """
        [data] = (self.root / "lib" / f"python{self.version}t").glob("_sysconfigdata_t_*.py")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(data, folder)
        flags = f"-I{self.root}/include/python{self.version}t"
        if self.version == "3.13":
            flags += f" {_FOR_3_13}"
        return {
            "CC": "gcc",
            "LDSHARED": "gcc -shared",
            "CPPFLAGS": flags,
            "_PYTHON_SYSCONFIGDATA_NAME": data.stem,
            "PYTHONPATH": str(folder),
            "PRETAKE_BUILD": "runtime",
        }


def free_threaded_python() -> FreeThreaded:
    """The newest that was built; if there is none, the newest whose sources can be had is built.

    That takes some four minutes of CPU time.

    Raises:
        PretakeError: Debian's sources cannot be had, or cannot be built here.
    """
    arch = DEBIAN_NAMES.get(platform.machine(), platform.machine())
    kept = [FreeThreaded(v, cache_folder() / f"python{v}t-{arch}") for v, _ in _SUITES]
    for made in kept:
        if (made.root / "complete").exists():
            return made
    failed: Exception = LookupError("no version")
    for made, (_, suite) in zip(kept, _SUITES, strict=True):
        try:
            _build(made, suite)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            failed = error
            continue
        (made.root / "complete").touch()
        return made
    raise PretakeError(
        f"no free-threaded Python can be built ({failed})",
        "see build/free-threaded/python.log, and run tools/setup.sh packages free-threaded",
    )


def _build(python: FreeThreaded, suite: str) -> None:
    sources = _HOME / f"python{python.version}"
    for folder in (sources, python.root):
        shutil.rmtree(folder, ignore_errors=True)
    _HOME.mkdir(parents=True, exist_ok=True)
    unpack_sources(suite, f"python{python.version}", sources)
    print(f"building CPython {python.version} without a GIL (once)", flush=True)
    steps = (
        ["./configure", f"--prefix={python.root}", *_CONFIGURE],
        # Without debugging information and the last step of optimization: in half of the time.
        ["make", "-s", f"-j{os.cpu_count()}", "OPT=-DNDEBUG -O2"],
        ["make", "-s", "install"],
    )
    with (_HOME / "python.log").open("w", encoding="utf-8") as log:
        for step in steps:
            subprocess.run(step, cwd=sources, stdout=log, stderr=log, check=True)
    subprocess.run([python.program, "-c", "import ctypes, ssl, zlib"], check=True)
    shutil.rmtree(sources)


def prepare() -> tuple[Path, Path]:
    """Compile the runtime as it is now; what was compiled from the same sources is kept.

    Returns:
        The Python, with what the tests need, and the project's copy to run it in.

    Raises:
        PretakeError: there is no such Python.
        CalledProcessError: a step failed, and said why.
    """
    python = free_threaded_python()
    venv = _HOME / f"venv{python.version}"
    program = venv / "bin" / "python"
    if not (venv / "complete").exists():
        subprocess.run([python.program, "-m", "venv", "--clear", venv], check=True)
        pip = [program, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *_TESTED_WITH], check=True)
        (venv / "complete").touch()
    clone = _HOME / "clone"
    refresh(clone)
    found = pythons().get(python.version)
    if found is None:
        raise PretakeError(f"no Python {python.version} with a GIL is here")
    with_gil = _HOME / f"builder{python.version}" / "bin" / "python"
    if not with_gil.with_name("complete").exists():
        builder(found, with_gil.parent.parent)
        with_gil.with_name("complete").touch()
    env = python.compile_environment(_HOME / "config")
    compile_in(clone, [with_gil], env, _HOME / "compile.log")
    return program, clone


def main() -> int:
    """Run a Python program or module there; the arguments are the interpreter's."""
    try:
        program, clone = prepare()
    except (PretakeError, subprocess.CalledProcessError) as error:
        return ended("free_threaded", error, f"{_HOME.relative_to(ROOT)}/*.log")
    env = {**os.environ, "PYTHON_GIL": "0", "PRETAKE_BUILD": "runtime"}
    return subprocess.run([program, *sys.argv[1:]], cwd=clone, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
