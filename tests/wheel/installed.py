"""A wheel, installed in an environment of its own, on a machine without a compiler.

The machine is this one, with bcc, the kernel's headers, the cache and the clone hidden in a mount
namespace.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "Run", "environment", "installed_in", "open_to_all", "pip"]

ROOT: Final = Path(__file__).resolve().parents[2]
HIDDEN: Final = (
    *("/usr/lib/python3/dist-packages/bcc", "/usr/src", "/lib/modules", "/var/cache/pretake"),
    *(str(ROOT / name) for name in ("analysis", "pretake", "reference_runtime", "tracer")),
)
# A child of the shell, so that the first process of the namespace is not the command itself.
_HIDE: Final = "".join(
    f"if [ -d {path} ]; then mount -t tmpfs -o mode=755 none {path} || exit 9; fi\n"
    for path in HIDDEN
)

Run = Callable[..., str]
"""Runs the command in an empty folder, and tells what it printed; it has to work."""


def open_to_all(folder: Path) -> None:
    """Whoever the tracer becomes has to get to the environment."""
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)


def environment(program: str | Path, venv: Path) -> Path:
    """The Python of a new and empty environment."""
    subprocess.run([program, "-m", "venv", "--without-pip", venv], check=True)
    return venv / "bin/python"


def pip(python: Path, *arguments: str | Path) -> None:
    """Install into an environment, by this one's pip."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*command, "--disable-pip-version-check", *arguments], check=True)


def installed_in(venv: Path, empty: Path) -> Run:
    """What runs the command of an environment.

    Args:
        venv: the environment.
        empty: a folder, made here.
    """
    empty.mkdir()

    def run(*arguments: str, env: dict[str, str] | None = None) -> str:
        script = f'{_HIDE}"$@"; exit $?'
        shell = ["unshare", "--mount", "sh", "-c", script, "sh", str(venv / "bin/pretake")]
        done = subprocess.run(
            [*shell, *arguments],
            cwd=empty,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    return run
