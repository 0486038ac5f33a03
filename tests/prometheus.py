"""Debian's Prometheus and its ``promtool``: installed, or unpacked into the cache of the tests.

The package is not installed for a test, since that begins a service on the user's machine.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.forced import lacking

__all__ = ["prometheus_tool"]

_FORCE = "PRETAKE_FORCE_PROMETHEUS"
_DOWNLOAD = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus")


def prometheus_tool(name: str) -> Path:
    """``prometheus`` or ``promtool``; the test is skipped where neither can be had."""
    installed = shutil.which(name)
    if installed is not None:
        return Path(installed)
    folder, problem = _unpacked()
    if problem:
        lacking(f"{name} is not installed (apt-get install prometheus): {problem}", _FORCE)
    return folder / "usr/bin" / name


@functools.cache
def _unpacked() -> tuple[Path, str]:
    """The folder that Debian's package is unpacked in, or why it is not."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "pretake" / "prometheus"
    if folder.exists():
        return folder, ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        aside = Path(temporary)
        try:
            try:
                _run(*_DOWNLOAD, at=aside)
            except subprocess.CalledProcessError:
                # A machine that was never asked for a package has no lists of them.
                _run("apt-get", "-qq", "update", at=aside)
                _run(*_DOWNLOAD, at=aside)
            (package,) = aside.glob("prometheus_*.deb")
            _run("dpkg-deb", "-x", str(package), str(aside / "root"), at=aside)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            return folder, str(getattr(error, "stderr", None) or error).strip()
        (aside / "root").rename(folder)
    return folder, ""


def _run(*command: str, at: Path) -> None:
    subprocess.run(command, cwd=at, check=True, capture_output=True, text=True)
