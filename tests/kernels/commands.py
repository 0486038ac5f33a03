"""What the modes of tests/kernels/guest.py share: the command, as forks, and what is expected."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from pretake import cli

__all__ = [
    "Command",
    "Trial",
    "WrongError",
    "episodes",
    "expect",
    "pretake",
    "run",
    "started",
    "well",
]


class WrongError(Exception):
    """What a mode answered, and what it should have."""


@dataclass
class Trial:
    """What a mode is tried on.

    Args:
        program: in Go, which prints how many calls of nanosleep it made.
        folder: for traces.
        flag: see FLAG; None where it is not known.
        verified: is filled by ``doctor``.
        figures: are filled by modes, by what they are of: for the table.
    """

    program: str
    folder: Path
    flag: int | None = None
    verified: dict[str, tuple[int, str]] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)


@dataclass
class Command:
    """A command that was begun.

    Args:
        pid: its process.
        out: what it printed.
        said: what it said on stderr.
    """

    pid: int
    out: IO[str]
    said: IO[str]

    def end(self) -> tuple[int, str, str]:
        """Wait for it; its exit status, and what it printed and said on stderr."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self.out.seek(0)
        self.said.seek(0)
        return os.waitstatus_to_exitcode(status), self.out.read(), self.said.read()


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[Command]:
    """The command, which goes on beside; it is killed where nobody waited for its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if not pid:
            _become(arguments, out.fileno(), said.fileno())
        command = Command(pid, out, said)
        try:
            yield command
        finally:
            if command.pid:
                os.kill(command.pid, signal.SIGKILL)
                os.waitpid(command.pid, 0)


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command; its exit status, and what it printed and said on stderr."""
    with started(*arguments) as command:
        return command.end()


def _become(arguments: Sequence[str], out: int, said: int) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(said, 2)
    status = 1
    try:
        cli.main(list(arguments))
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def pretake(*arguments: str) -> str:
    """Run the command; what it printed. Raises WrongError with its last line of error."""
    return well(*run(*arguments))


def well(status: int, out: str, said: str) -> str:
    """What a command printed, if it ended well. Raises WrongError with its last line of error."""
    if status:
        lines = [line for line in said.splitlines() if line.strip()] or ["no message"]
        raise WrongError(f"exit {status}: {lines[-1].strip()[:300]}")
    return out


def episodes(trace: str) -> list[dict[str, Any]]:
    """The rows of ``pretake episodes``."""
    return [json.loads(line) for line in pretake("episodes", trace, "--json").splitlines()]


def expect(what: str, got: object, wanted: object) -> None:
    """Raise WrongError where two are not the same."""
    if got != wanted:
        raise WrongError(f"{what}: {got}, not {wanted}")
