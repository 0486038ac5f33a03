"""The help of each command: an example before the options, and a text for each of them."""

from __future__ import annotations

import click
import pytest

from pretake.cli import SUBCOMMANDS, group


def _help(name: str) -> tuple[click.Command, str]:
    context = click.Context(group, info_name="pretake")
    command = group.get_command(context, name)
    assert command is not None
    return command, command.get_help(click.Context(command, info_name=name, parent=context))


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_an_example_comes_before_the_options(name: str) -> None:
    _, text = _help(name)
    before, _, _ = text.partition("Options:")
    _, _, examples = before.partition("Example")
    lines = [line.strip() for line in examples.splitlines()]
    assert any(line.startswith(f"pretake {name}") for line in lines), before


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_option_says_what_it_does(name: str) -> None:
    command, _ = _help(name)
    options = [o for o in command.params if isinstance(o, click.Option)]
    assert [o.name for o in options if not (o.help or "").endswith(".")] == []
