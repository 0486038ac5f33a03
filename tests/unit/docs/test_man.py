"""The manual page, from a command made by hand; and that the shell completes by the same tree."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from tools.man import man_page


@click.group()
@click.option("--level", help="How far - or not.")
def tool(level: str) -> None:
    """Do things.

    \b
    Examples:
      tool sub .x

    .Begins with a dot.
    """


@tool.command()
@click.argument("file")
def sub(file: str) -> None:
    """Do one."""


def test_every_command_and_option_is_there_and_no_text_is_a_macro() -> None:
    assert man_page(tool, "tool", "does things").splitlines() == [
        '.\\" Made by `make docs`; edit the code instead.',
        ".TH TOOL 1",
        ".SH NAME",
        "tool \\- does things",
        ".SH SYNOPSIS",
        "\\fBtool\\fR [OPTIONS] COMMAND [ARGS]...",
        ".SH DESCRIPTION",
        ".PP",
        "Do things.",
        ".PP",
        ".nf",
        "Examples:",
        "  tool sub .x",
        ".fi",
        ".PP",
        "\\&.Begins with a dot.",
        ".SH OPTIONS",
        ".TP",
        "\\fB\\-\\-level TEXT\\fR",
        "How far \\- or not.",
        ".TP",
        "\\fB\\-\\-help\\fR",
        "Show this message and exit.",
        ".SH COMMANDS",
        ".SS tool sub",
        "\\fBtool sub\\fR [OPTIONS] FILE",
        ".PP",
        "Do one.",
        ".TP",
        "\\fB\\-\\-help\\fR",
        "Show this message and exit.",
    ]


def test_the_shell_completes_a_subcommand_and_its_options() -> None:
    def completed(words: str, number: int) -> list[str]:
        env = {"COMP_WORDS": words, "COMP_CWORD": str(number)}
        env["_PRETAKE_COMPLETE"] = "bash_complete"
        command = [sys.executable, "-m", "pretake"]
        told = subprocess.check_output(command, env=os.environ | env, text=True)
        return [line.partition(",")[2] for line in told.splitlines()]

    assert completed("pretake rec", 1) == ["record"]
    assert "--pid" in completed("pretake record --p", 2)
