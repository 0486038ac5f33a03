"""How a tool ends that could not do its work: one line on stderr, and a status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tracer.errors import EXIT_STATUS, PretakeError

__all__ = ["ended"]


def ended(
    tool: str, error: PretakeError | subprocess.CalledProcessError, told: str = "above"
) -> int:
    """Say why a tool could not do its work.

    Args:
        tool: its name.
        error: of ours, or of a program that it ran.
        told: where to read what that program said.

    Returns:
        The exit status: 2 for what the user can mend, 1 for a step that failed.
    """
    if isinstance(error, PretakeError):
        print(f"{tool}: {error}", file=sys.stderr)
        return EXIT_STATUS
    program = Path(str(error.cmd[0])).name
    print(f"{tool}: {program} failed with {error.returncode}, see {told}", file=sys.stderr)
    return 1
