"""Copies of the project, in which another Python compiles and tests it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "compile_in", "refresh", "stage"]

ROOT: Final = Path(__file__).resolve().parent.parent
_COMPILED_FROM: Final = {".py", ".c", ".h"}
_FOLDERS: Final = ("reference_runtime", "analysis/ptime/engine", "tracer/trace")


def stage(folder: Path) -> None:
    """Make a copy of what belongs to the project, and of nothing that was built in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def refresh(folder: Path) -> None:
    """As :func:`stage`, into a copy that may be there already, with what was compiled in it."""
    stage(folder)
    for path in folder.rglob("*.py"):
        if not (ROOT / path.relative_to(folder)).exists():
            path.unlink()


def compile_in(
    copy: Path, command: Sequence[str | Path], env: Mapping[str, str], log: Path
) -> None:
    """Compile a copy's modules in place, unless they were, from the same sources.

    Args:
        copy: made by :func:`refresh`.
        command: a Python that has mypyc.
        env: what setuptools is told.
        log: where the compilers' output goes.

    Raises:
        CalledProcessError: they failed.
    """
    # One where only the C modules were compiled says nothing of the others.
    stamp = copy / ("interpreted" if os.environ.get("PRETAKE_NO_COMPILE") == "1" else "compiled")
    sources = [path for name in _FOLDERS for path in (copy / name).rglob("*.*")]
    times = [path.stat().st_mtime for path in sources if path.suffix in _COMPILED_FROM]
    newest = max([*times, (copy / "setup.py").stat().st_mtime])
    if stamp.exists() and stamp.stat().st_mtime >= newest:
        return
    for old in (*copy.rglob("*.so"), copy / "interpreted", copy / "compiled"):
        old.unlink(missing_ok=True)
    build = [*command, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    with log.open("w", encoding="utf-8") as output:
        subprocess.run(
            build, cwd=copy, env={**os.environ, **env}, stdout=output, stderr=output, check=True
        )
    stamp.touch()
    os.utime(stamp, (newest, newest))
