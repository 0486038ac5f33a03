"""Values that several subcommands take: sizes, files to write."""

from __future__ import annotations

import re
from pathlib import Path

import click

from tracer.errors import PretakeError

__all__ = ["SIZE", "refuse_existing"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class _Size(click.ParamType[int]):
    """A number of bytes: ``65536``, ``64K``, ``16M``."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes; a usage error for anything else."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([kmg]?)(i?b)?", str(value).strip().lower())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no size, say for example 16M", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


SIZE = _Size()


def refuse_existing(path: Path, force: bool) -> None:
    """Refuse to replace a file that is there, unless ``force``."""
    if path.exists() and not force:
        raise PretakeError(f"{path} exists", "choose another output or give --force")
