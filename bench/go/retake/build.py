"""Builds a Go program with the overlay: the one command for a server of your own.

``python -m bench.go.retake.build --goroot "$(go env GOROOT)" -- ./cmd/server`` builds the package
and leaves the program in the folder; everything behind ``--`` goes to ``go build``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.go.retake.overlay import default_folder, make_overlay
from tracer.errors import PretakeError

__all__ = ["build", "main"]


def build(
    goroot: Path,
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overlay: Path | None = None,
) -> None:
    """Run ``go build`` with the overlay.

    Args:
        goroot: the toolchain.
        arguments: of go build, the package last.
        folder: to run it in.
        environment: for it; this process's own if not given.
        overlay: a file for ``-overlay`` that has the runtime's and more; the runtime's alone if
            not given.

    Raises:
        PretakeError: the toolchain is refused, or the build fails (its own words are above).
    """
    overlay = overlay or make_overlay(goroot, default_folder(goroot))
    command = [str(goroot / "bin" / "go"), "build", "-overlay", str(overlay), *arguments]
    env = dict(os.environ if environment is None else environment)
    env |= {"GOROOT": str(goroot), "GOTOOLCHAIN": "local"}
    if subprocess.run(command, cwd=folder, env=env, check=False).returncode:
        raise PretakeError("go build failed", "its own message is above")


def main(argv: Sequence[str] | None = None) -> int:
    """Build; 2 where it does not work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goroot", type=Path, required=True, help="what 'go env GOROOT' prints")
    parser.add_argument("arguments", nargs="+", help="of go build")
    asked = parser.parse_args(argv)
    try:
        build(asked.goroot.resolve(), asked.arguments)
    except PretakeError as error:
        print(f"build: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
