"""Values that several subcommands take: sizes, files to write."""

from __future__ import annotations

import re
from pathlib import Path

import click

from tracer.errors import PretakeError

__all__ = ["SIZE", "WHERE", "Number", "refuse_existing", "tell_process"]

_MOST = 1e9
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
        match = re.fullmatch(r"(\d{1,18})([kmg]?)(i?b)?", str(value).strip().lower())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no size, say for example 16M", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


class _Where(click.ParamType[int | Path]):
    """A port of loopback, or a socket in the file system.

    ``9100``, ``127.0.0.1:9100``, ``unix:/run/pretake.sock``.
    """

    name = "port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Path:
        """The port, or the socket's path; a usage error for anything else."""
        text = str(value)
        if text.startswith("unix:/"):
            return Path(text.removeprefix("unix:"))
        port = text.removeprefix("127.0.0.1:").removeprefix("localhost:")
        if not port.isdecimal() or len(port) > 5 or not 1 <= int(port) <= 65535:
            self.fail(f"{text!r} is neither a port (1 to 65535) nor unix:/PATH", param, ctx)
        return int(port)


class Number(click.FloatRange):
    """A number of the size that times and factors have: neither NaN, nor infinite, nor 1e308."""

    name = "float"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; a usage error for anything else."""
        number = float(super().convert(value, param, ctx))  # type: ignore[arg-type]
        if not abs(number) < _MOST:  # NaN is not
            self.fail(f"{value} is no number below {_MOST:.0e}", param, ctx)
        return number

    def _describe_range(self) -> str:
        # A number without limits has none to show in the help.
        return "" if self.min is None and self.max is None else super()._describe_range()


SIZE = _Size()
WHERE = _Where()


def tell_process(pid: int) -> None:
    """Say which process is looked at, before the second in which libraries are loaded."""
    try:
        program = str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        # What is wrong with it is told by who looks at it.
        return
    name = "".join(c if c.isprintable() else "?" for c in program)
    click.echo(f"pretake: looking at process {pid}, {name}", err=True)


def refuse_existing(path: Path, force: bool, *, in_folder: bool = True) -> None:
    """Refuse to replace a file that is there, unless ``force``.

    Args:
        path: what will be written.
        force: whether it may be replaced.
        in_folder: whether its folder must be there: nobody makes it.
    """
    if in_folder and not path.parent.is_dir():
        raise PretakeError(f"there is no folder {path.parent}", "make it, or choose another")
    if path.exists() and not force:
        raise PretakeError(f"{path} exists", "choose another output or give --force")
