"""Numbers that are none, or far too large: a line at the start, and never a run that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pretake.cli import SUBCOMMANDS, group, main
from pretake.prometheus import Server
from pretake.types import Number
from tracer.errors import PretakeError


def _options() -> Iterator[tuple[str, str]]:
    """Each option of each command that takes a number with a fraction."""
    context = click.Context(group)
    for name in SUBCOMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.types.FloatParamType):
                assert isinstance(option.type, Number), f"{name} {option.opts}"
                yield name, option.opts[-1]


@pytest.mark.parametrize(("command", "option"), list(_options()))
@pytest.mark.parametrize("number", ["nan", "inf", "1e308"])
def test_a_number_that_is_none_is_refused(
    command: str, option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, option, number])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line


def test_more_ps_than_memory_holds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "echo", "--rounds", "1", "--procs", "999999999"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "999999999 is no number of Ps" in line


def test_a_socket_whose_path_is_too_long_says_so() -> None:
    with pytest.raises(PretakeError, match=r"cannot be served: .*too long"):
        Server(Path("/tmp") / ("s" * 150))
