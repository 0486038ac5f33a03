"""Building for another architecture than this machine's: byte code, and compiled modules.

The headers come from Debian's packages, which are unpacked and never installed.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from typing import Final

from tools.debian import cache_folder, unpack_headers, unpack_packages
from tools.debian_python import DEBIAN_NAMES
from tracer.errors import PretakeError

__all__ = ["PYTHON", "bcc_environment", "compile_environment"]

PYTHON: Final = "3.11"
"""Whose headers Debian's suite has."""
_SUITE: Final = "bookworm"
_BCC_NAMES: Final = {"x86_64": "x86", "aarch64": "arm64"}


def bcc_environment(machine: str) -> dict[str, str]:
    """What bcc is told, to compile BPF programs for an architecture; nothing for this one.

    Any kernel's headers will do, since the programs read no kernel struct through them.

    Args:
        machine: as ``uname -m`` calls it.

    Raises:
        PretakeError: there are no headers, and Debian's packages cannot be had.
    """
    if machine == platform.machine():
        return {}
    arch = DEBIAN_NAMES[machine]
    folder = cache_folder() / f"headers-{arch}"
    try:
        headers = unpack_headers(_SUITE, arch, folder)
    except (OSError, LookupError, subprocess.CalledProcessError) as error:
        raise PretakeError(
            f"Debian's kernel headers for {arch} cannot be had ({error})"
        ) from error
    return {"ARCH": _BCC_NAMES[machine], "BCC_KERNEL_SOURCE": str(headers)}


def compile_environment(machine: str) -> dict[str, str]:
    """What setuptools is told, to compile C for Python :data:`PYTHON` of another architecture.

    Args:
        machine: as ``uname -m`` calls it.

    Raises:
        PretakeError: there is no such compiler, or Debian's packages cannot be had.
    """
    triplet = f"{machine}-linux-gnu"
    compiler = f"{triplet}-gcc"
    if shutil.which(compiler) is None:
        raise PretakeError(f"{compiler} is not installed", "tools/setup.sh packages cross")
    root = cache_folder() / f"python{PYTHON}-{DEBIAN_NAMES[machine]}"
    config = root / "config"
    if not config.exists():
        shutil.rmtree(root, ignore_errors=True)
        packages = (f"libpython{PYTHON}-dev",)
        try:
            unpack_packages(_SUITE, DEBIAN_NAMES[machine], packages, root)
        except (OSError, subprocess.CalledProcessError) as error:
            raise PretakeError(
                f"Python's headers for {machine} cannot be had ({error})"
            ) from error
        # In a folder of its own: beside it are that Python's modules, which this one must not
        # load.
        aside = root / ".config"
        aside.mkdir()
        shutil.copy(root / f"usr/lib/python{PYTHON}/_sysconfigdata__{triplet}.py", aside)
        aside.rename(config)
    include = root / "usr/include"
    return {
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",
        # The C library's headers are the compiler's own, which come first.
        "CPPFLAGS": f"-I{include / f'python{PYTHON}'} -idirafter {include}",
        # How a Python is told that it builds for another: of that are its tags and suffixes.
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        "_PYTHON_SYSCONFIGDATA_NAME": f"_sysconfigdata__{triplet}",
        "PYTHONPATH": str(config),
    }
