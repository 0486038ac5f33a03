"""``pretake factors``: what the P-retake latency is correlated with."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.views import cells, console, duration, table, write_rows


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(trace: Path, as_json: bool) -> None:
    """Show what the P-retake latency in TRACE is correlated with.

    \b
    Example:
      pretake factors server.pretake

    A factor is a number of each episode, such as the length of a run queue or the time that a
    woken thread waited for a CPU. The effect is a rank correlation: 1 means that the latency
    always grows with the factor, -1 that it always falls, and 0 that there is no relation.
    """
    from analysis import load

    factors = load(trace).factors()
    if as_json:
        write_rows(factors)
        return
    rows = [
        (
            row["meaning"],
            _number(row["effect"]),
            f"{_number(row['effect_low'])} to {_number(row['effect_high'])}",
            duration(row["low_p50_ns"]),
            duration(row["high_p50_ns"]),
        )
        for row in cells(factors)
        if row["effect"] is not None
    ]
    head = ("factor", "effect", "95 %", "p50 if low", "if high")
    terminal = console()
    terminal.print(table("What the P-retake latency is correlated with", head, rows))
    constant = [row["meaning"] for row in cells(factors) if row["effect"] is None]
    if constant:
        same = "; ".join(constant)
        terminal.print(f"Always the same in this trace, so without a correlation: {same}.")


def _number(value: float) -> str:
    return f"{value:+.2f}"
