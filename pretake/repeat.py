"""Captures one after the other, each in a process of its own: a capture gives up its rights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from pretake.types import refuse_existing
from tracer.errors import PretakeError

__all__ = ["capture", "given_options", "numbered"]

_STDERR = 2


def given_options(ctx: click.Context, leave_out: Collection[str]) -> list[str]:
    """The options of this command as they were given, for another one of its kind."""
    words: list[str] = []
    for option in ctx.command.params:
        name = option.name
        if not isinstance(option, click.Option) or name is None or name in leave_out:
            continue
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if option.is_flag and isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            words += [option.opts[0], str(value)]
    return words


def numbered(output: Path, repeat: int, force: bool) -> list[Path]:
    """``server-1.pretake`` … for ``server.pretake``; none may exist, unless ``force``.

    Raises:
        click.UsageError: one exists.
    """
    width = len(str(repeat))
    paths = [
        output.with_name(f"{output.stem}-{number:0{width}}{output.suffix}")
        for number in range(1, repeat + 1)
    ]
    for path in paths:
        refuse_existing(path, force, in_folder=False)
    return paths


def capture(output: Path, options: Sequence[str], command: Sequence[str]) -> None:
    """Record one run; what the command prints goes to stderr, so that stdout stays the result.

    Raises:
        PretakeError: the capture failed; it has said why.
    """
    words = [sys.executable, "-m", "pretake", "record", "--quiet", "-o", str(output), *options]
    done = subprocess.run([*words, "--", *command], stdout=_STDERR, check=False)
    if done.returncode:
        raise PretakeError(
            f"the capture into {output} failed with status {done.returncode}",
            "see what it said above",
        )
