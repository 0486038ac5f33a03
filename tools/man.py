"""The manual page ``docs/pretake.1``, made from the commands themselves; a wheel installs it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

__all__ = ["man_page"]

_AS_IT_STANDS = "\b\n"
"""What begins a paragraph whose lines click leaves as they are."""


def man_page(top: click.Command, name: str, summary: str) -> str:
    """The page of a command and all that are below it.

    Args:
        top: the command.
        name: how it is called.
        summary: what it is, in a few words.

    Returns:
        It, in the macros of man(7).
    """

    def lines() -> Iterator[str]:
        context = click.Context(top, info_name=name, **top.context_settings)
        yield '.\\" Made by `make docs`; edit the code instead.'
        yield f".TH {name.upper()} 1"
        yield f".SH NAME\n{name} \\- {_text(summary)}"
        yield f".SH SYNOPSIS\n{_usage(top, context)}"
        yield ".SH DESCRIPTION"
        yield from _paragraphs(top.help or "")
        yield ".SH OPTIONS"
        yield from _options(top, context)
        if isinstance(top, click.Group):
            yield ".SH COMMANDS"
            for word in top.list_commands(context):
                child = top.get_command(context, word)
                if child is not None:
                    below = click.Context(child, info_name=word, parent=context)
                    yield f".SS {_text(below.command_path)}\n{_usage(child, below)}"
                    yield from _paragraphs(child.help or "")
                    yield from _options(child, below)

    return "\n".join(lines()) + "\n"


def _usage(command: click.Command, context: click.Context) -> str:
    pieces = " ".join(command.collect_usage_pieces(context))
    return f"\\fB{_text(context.command_path)}\\fR {_text(pieces)}"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        # Arguments are in the usage, and have no help.
        told = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if told is not None:
            yield f".TP\n\\fB{_text(told[0])}\\fR\n{_text(told[1])}"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.removeprefix(_AS_IT_STANDS).splitlines()
        body = "\n".join(map(_text, lines))
        as_it_stands = paragraph.startswith(_AS_IT_STANDS)
        yield f".PP\n.nf\n{body}\n.fi" if as_it_stands else f".PP\n{body}"


def _text(line: str) -> str:
    """A line as roff takes it for text: a hyphen can be copied, and no dot begins a macro."""
    line = " ".join(line.split("\n")).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line
