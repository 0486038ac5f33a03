"""``pretake bench``: two commands recorded in turns, and whether they differ."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pretake.repeat import capture, numbered
from pretake.sides import condition_option, tell_difference
from pretake.types import Number
from pretake.views import note


@click.command()
@click.option(
    "--a", "a_command", required=True, metavar="COMMAND", help="The command to compare with."
)
@click.option("--b", "b_command", required=True, metavar="COMMAND", help="The command to compare.")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Number of runs of each.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pretake-bench"),
    show_default=True,
    metavar="FOLDER",
    help="Folder for the traces: a-1.pretake, b-1.pretake and so on.",
)
@click.option("--seconds", type=Number(0), metavar="S", help="End each run after S seconds.")
@click.option("--force", is_flag=True, help="Replace traces that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
@condition_option("the runs of b")
def command(
    a_command: str,
    b_command: str,
    repeat: int,
    output: Path,
    seconds: float | None,
    force: bool,
    as_json: bool,
    conditions: tuple[str, ...],
) -> int:
    """Record the commands a and b in turns, and say whether b differs from a.

    \b
    Examples:
      pretake bench --a './server-old -n 1000' --b './server-new -n 1000'
      pretake bench --a 'pretake run mix' --b 'pretake run mix --retake block' --repeat 5

    A command is split into words as a shell would do it, and run without a shell. The runs go
    a b, b a, a b …, so that a change of the machine's load affects both. The verdict is that of
    'pretake diff', which gives it again from the traces.
    """
    from analysis import load
    from analysis.stats.condition import parse_condition

    for text in conditions:
        # What is no condition is told before an hour of runs, and not after it.
        parse_condition(text)
    words = {"a": _words(a_command, "--a"), "b": _words(b_command, "--b")}
    paths = {side: numbered(output / f"{side}.pretake", repeat, force) for side in words}
    output.mkdir(parents=True, exist_ok=True)
    options = ["--force"] if force else []
    if seconds is not None:
        options += ["--seconds", str(seconds)]
    for turn in range(repeat):
        for side in ("ab", "ba")[turn % 2]:
            note(f"run {turn + 1} of {repeat}: {side}")
            capture(paths[side][turn], options, words[side])
    traces = {side: [load(path).trace for path in its] for side, its in paths.items()}
    return tell_difference(traces["a"], traces["b"], as_json, conditions)


def _words(text: str, option: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint=option) from None
    if not words:
        raise click.BadParameter("it is empty", param_hint=option)
    return words
