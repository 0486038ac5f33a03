"""``pretake diff``: two runs, and whether they differ by more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pretake.views import cells, console, duration, interval, table, write_rows


@click.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit with status 1 if this is true of the summary of TRACE.",
)
def command(baseline: Path, trace: Path, as_json: bool, conditions: tuple[str, ...]) -> int:
    """Compare TRACE with BASELINE: latency, hold and harm, with 95 % intervals.

    \b
    Examples:
      pretake diff before.pretake after.pretake
      pretake diff before.pretake after.pretake --fail-if 'harm_ns.p99 > 1.1 * baseline'

    A difference is called "same" if its interval contains zero. At the end stand the system
    calls, signals and transitions of the runtime of which one trace has more a second.
    """
    from analysis import load
    from analysis.stats.diff import parse_condition

    asked = [(text, parse_condition(text)) for text in conditions]
    before, after = load(baseline), load(trace)
    differences, rates = before.diff(after), before.rates(after)
    if as_json:
        write_rows(differences)
        write_rows(rates)
    else:
        rows = [
            (
                row["figure"],
                row["verdict"],
                duration(row["a"]),
                duration(row["b"]),
                _factor_text(row["ratio"]),
                interval(row["ratio_low"], row["ratio_high"], _factor_text),
            )
            for row in cells(differences)
        ]
        head = ("figure", "", "baseline", "trace", "ratio", "95 %")
        console().print(table(f"{trace} against {baseline}", head, rows, left=2))
        different = rates[rates["verdict"].isin(["lower", "higher"])]
        events = [
            (
                row["figure"],
                _only(row) or row["verdict"],
                _rate_text(row["a"]),
                _rate_text(row["b"]),
                _factor_text(row["ratio"]),
                interval(row["ratio_low"], row["ratio_high"], _factor_text),
            )
            for row in cells(different)
        ]
        console().print(table("Events a second that differ", head, events, left=2))
    if not asked:
        return 0
    old, new = before.summary(), after.summary()
    failed = [text for text, condition in asked if condition.holds(new, old)]
    for text in failed:
        click.echo(f"it holds that {text}", err=True)
    return int(bool(failed))


def _only(row: Mapping[str, Any]) -> str | None:
    """Which of the two has it at all, where the other has none."""
    if row["a"] == 0:
        return "new"
    return "gone" if row["b"] == 0 else None


def _rate_text(value: float) -> str:
    return f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"


def _factor_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
