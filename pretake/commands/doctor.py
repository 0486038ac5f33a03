"""``pretake doctor``: what this machine can and cannot capture, and what to do about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pretake.views import console, note, print_json, table


@click.command()
@click.option(
    "--binary",
    type=click.Path(path_type=Path),
    metavar="PROGRAM",
    help="Also say what can be read of the runtime of this program.",
)
@click.option("--fix", is_flag=True, help="First repair what this command can repair itself.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def command(binary: Path | None, fix: bool, as_json: bool) -> int:
    """Say what this machine can capture, and what to do about what is missing.

    \b
    Examples:
      pretake doctor
      pretake doctor --binary ./server

    The exit status is 1 if a capture is not possible here.
    """
    from tracer.capture import doctor

    if fix:
        for done in doctor.fix():
            note(done)
    checks = doctor.diagnose(binary)
    lacking = [check for check in checks if not check.ok]
    status = int(any(check.needed for check in lacking))
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
        return status
    rows = [(c.name, "yes" if c.ok else "NO" if c.needed else "no", c.detail) for c in checks]
    console().print(table("This machine", ("for a capture", "", "found"), rows, left=3))
    for check in lacking:
        needed = "" if check.needed else " (not needed for a capture)"
        if check.mend:
            click.echo(f"{check.name}{needed}: {check.mend}")
    return status
