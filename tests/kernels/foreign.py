"""A machine of another architecture than this one, to be emulated: its files, and its programs.

The root file system is Debian's packages, unpacked and never configured, with wheels of the same
versions as here. The project's own files are copied into it, without what was compiled for this
machine: so the runtime and the pass are interpreted there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Final

from tools.debian import cache_folder, unpack_packages

__all__ = ["TREE", "foreign_root"]

TREE: Final = "/pretake"
"""Where the project's files are there."""
_ROOT: Final = Path(__file__).resolve().parents[2]
_FOLDERS: Final = ("analysis", "bench", "pretake", "reference_runtime", "tests", "tracer")
_SUITE: Final = "bookworm"
_PYTHON: Final = "3.11"
"""Of that suite."""
_PACKAGES: Final = (
    *("bash", "busybox-static", "coreutils", "dash", "grep", "iproute2", "libstdc++6"),
    *("python3", "sed"),
)
_WHEELS_FOR: Final = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in (17, 24, 27, 28)))
_NO_WHEELS: Final = ("hdrhistogram",)
"""Of the reference runtime's workloads, which do not run there."""
_MACHINES: Final = {"arm64": "aarch64"}
_USERS: Final = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
_GROUPS: Final = "root:x:0:\nnogroup:x:65534:\n"


def foreign_root(arch: str) -> Path:
    """The root of a machine of an architecture: made once, with the project as it is now.

    Args:
        arch: Debian's name of it.
    """
    root = cache_folder() / f"root-{arch}"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        unpack_packages(_SUITE, arch, _PACKAGES, root)
        (root / "etc/passwd").write_text(_USERS)
        (root / "etc/group").write_text(_GROUPS)
        for name in ("out", "var/cache"):
            (root / name).mkdir(parents=True, exist_ok=True)
        _add_wheels(arch, root)
        (root / "complete").touch()
    tree = root / TREE.strip("/")
    shutil.rmtree(tree, ignore_errors=True)
    skipped = shutil.ignore_patterns("*.so", "__pycache__")
    for name in _FOLDERS:
        shutil.copytree(_ROOT / name, tree / name, ignore=skipped)
    subprocess.run([f"python{_PYTHON}", "-m", "compileall", "-q", tree], check=False)
    return root


def _add_wheels(arch: str, root: Path) -> None:
    wheels = root / "var/cache/wheels"
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    platforms = [f"--platform={kind}_{_MACHINES[arch]}" for kind in _WHEELS_FOR]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:"),
            *("--python-version", _PYTHON, "--dest", wheels, "-c", _ROOT / "constraints.txt"),
            *platforms,
            *(name for name in project["dependencies"] if not name.startswith(_NO_WHEELS)),
        ],
        check=True,
    )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as files:
            files.extractall(root / "usr/lib/python3/dist-packages")
    subprocess.run(
        [f"python{_PYTHON}", "-m", "compileall", "-q", root / "usr/lib/python3/dist-packages"],
        check=False,
    )
