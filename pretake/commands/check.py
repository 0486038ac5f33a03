"""``pretake check``: a trace against the rules of the model, and against a second witness."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.views import console, duration, print_json, table


@click.command(epilog="Example: pretake check echo.pretake --witness echo.jsonl")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--witness",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The runtime's own record of its retakes ('pretake run --witness').",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def command(trace: Path, witness: Path | None, as_json: bool) -> int:
    """Tell what in TRACE breaks the model's rules, and how it agrees with the runtime's record.

    Exit status 1 if a rule is broken.
    """
    from analysis import load
    from analysis.validate import validate
    from analysis.witness import check

    loaded = load(trace)
    broken = validate(loaded.trace)
    agreement = check(loaded.trace, witness) if witness is not None else None
    violations = sum(broken.values())
    if as_json:
        print_json({"violations": broken, "witness": agreement})
        return int(violations > 0)
    terminal = console()
    rows = [(rule, f"{count:,}") for rule, count in broken.items()]
    terminal.print(table(f"{violations:,} broken rules", ("rule", "broken"), rows))
    if agreement is not None:
        rows = [
            (name.removesuffix("_ns").replace("_", " "), _cell(name, value))
            for name, value in agreement.items()
        ]
        terminal.print(table(f"Against {witness}", ("", "value"), rows))
    return int(violations > 0)


def _cell(name: str, value: object) -> object:
    if isinstance(value, int | float) and name.endswith("_ns"):
        return duration(value)
    return f"{value:.4f}" if isinstance(value, float) else value
