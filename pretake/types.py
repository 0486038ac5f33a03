"""Values that several subcommands take: sizes, existing programs."""

from __future__ import annotations

import re

import click

__all__ = ["SIZE"]

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
