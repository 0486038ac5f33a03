"""Two sides of several runs each: how a command line names them, and how their verdict looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pretake.views import cells, console, duration, interval, note, print_json, table

if TYPE_CHECKING:
    import pandas as pd

    from analysis.answers.runs import Run
    from tracer.trace.reader import Trace

__all__ = ["SidesCommand", "condition_option", "sides_options", "tell_difference", "their_traces"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SIDES = ("--a", "--b")
_MUCH = 10.0
"""A change above this factor is told as one, and not in percent."""


class SidesCommand(click.Command):
    """Takes ``--a T1 T2 --b T3`` like ``--a T1 --a T2 --b T3``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each trace that follows the first."""
        spread: list[str] = []
        side = None
        for word in args:
            if word.startswith("-"):
                side = word if word in _SIDES else None
                if side is None:
                    spread.append(word)
                continue
            if side is not None:
                spread.append(side)
            spread.append(word)
        if args and args[-1] in _SIDES:
            # Nothing follows: click tells so.
            spread.append(args[-1])
        return super().parse_args(ctx, spread)


def sides_options(function: _Function) -> _Function:
    """The options ``--a`` and ``--b``."""
    for name, what in (("b", "compare"), ("a", "compare with")):
        function = click.option(
            f"--{name}",
            f"{name}_side",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="TRACE",
            help=f"A run to {what}. Several: --{name} T1 --{name} T2, or --{name} T1 T2.",
        )(function)
    return function


def condition_option(what: str) -> Callable[[_Function], _Function]:
    """The option ``--fail-if``."""
    return click.option(
        "--fail-if",
        "conditions",
        multiple=True,
        metavar="CONDITION",
        help=f"Exit with status 1 if this is true of the summary of {what}.",
    )


def their_traces(
    positional: Sequence[Path], a: Sequence[Path], b: Sequence[Path]
) -> tuple[list[Path], list[Path]]:
    """The runs of both sides, named in one way or the other."""
    if a or b:
        if positional or not (a and b):
            raise click.UsageError("name both sides: --a TRACE... --b TRACE..., and nothing else")
        return list(a), list(b)
    if len(positional) != 2:
        raise click.UsageError("name two traces, or --a TRACE... --b TRACE...")
    return [positional[0]], [positional[1]]


def tell_difference(
    a: Sequence[Trace], b: Sequence[Trace], as_json: bool, conditions: Sequence[str] = ()
) -> int:
    """Print the verdict on two sides; the exit status, which is 1 where a condition holds."""
    from analysis.answers.runs import FIGURES, PRIMARY, run_of, would_show
    from analysis.stats.condition import outcomes, parse_condition
    from analysis.stats.rates import rates
    from analysis.stats.verdict import judge

    asked = [parse_condition(text) for text in conditions]
    sides = {"a": [run_of(trace) for trace in a], "b": [run_of(trace) for trace in b]}
    values = {side: [run.values for run in its] for side, its in sides.items()}
    figures = judge(values["a"], values["b"], FIGURES)
    events = rates(a, b)
    runs = [row for side, its in sides.items() for row in _run_rows(side, its, PRIMARY)]
    said = would_show(sides["a"], sides["b"])
    found = outcomes(asked, *([run.told for run in sides[side]] for side in ("b", "a")))
    if as_json:
        told = {"figures": cells(figures), "rates": cells(events), "runs": runs, "note": said}
        told["conditions"] = [
            {"condition": text, "met": outcome.met, "p_holm": outcome.p}
            for text, outcome in zip(conditions, found, strict=True)
        ]
        print_json(told)
    else:
        _show(figures, events, runs, said)
    status = 0
    for text, outcome in zip(conditions, found, strict=True):
        if outcome.met is None:
            note(f"no verdict on {text}: {said or 'too few runs have the figure'}")
        elif outcome.met:
            note(f"it holds that {text}")
            status = 1
    return status


def _run_rows(side: str, runs: Sequence[Run], primary: str) -> list[dict[str, Any]]:
    from analysis.stats.verdict import apart

    odd = apart([run.values[primary] for run in runs])
    return [
        {
            "side": side,
            "trace": run.label,
            **run.values,
            "load": run.machine.load_end,
            "busy_share": run.machine.busy_share,
            "steal_share": run.machine.steal_share,
            "mhz": run.machine.mhz,
            "apart": alone,
        }
        for run, alone in zip(runs, odd, strict=True)
    ]


def _show(
    figures: pd.DataFrame, events: pd.DataFrame, runs: list[dict[str, Any]], said: str
) -> None:
    terminal = console()
    rows = [
        (row["figure"], row["verdict"], *_sides(row["figure"], row), *_certainty(row))
        for row in cells(figures)
        if row["a_runs"] or row["b_runs"]
    ]
    head = ("figure", "verdict", "a", "b", "ratio", "95 %", "shows from")
    counts = " against ".join(
        f"{sum(run['side'] == side for run in runs)} of {side}" for side in ("b", "a")
    )
    terminal.print(table(f"Runs: {counts}", head, rows, left=2))
    different = [row for row in cells(events) if row["verdict"] in ("lower", "higher")]
    if different:
        rates = [
            (row["figure"], row["verdict"], _rate(row["a"]), _rate(row["b"]), _ratio(row["ratio"]))
            for row in different
        ]
        terminal.print(
            table(
                "Events a second that differ",
                ("figure", "verdict", "a", "b", "ratio"),
                rates,
                left=2,
            )
        )
    machines = [
        (
            f"{run['side']}: {run['trace']}",
            _value("lost_p.share", run["lost_p.share"]),
            _plain(run["load"]),
            _share(run["busy_share"]),
            _share(run["steal_share"]),
            _plain(run["mhz"]),
            "stands apart" if run["apart"] else "",
        )
        for run in runs
    ]
    head = ("run", "lost P time", "load", "busy", "steal", "MHz", "note")
    terminal.print(table("The machine meanwhile", head, machines))
    if said:
        note(said)


def _sides(figure: str, row: dict[str, Any]) -> tuple[str, str]:
    return _value(figure, row["a"]), _value(figure, row["b"])


def _certainty(row: dict[str, Any]) -> tuple[str, str, str]:
    return (
        _ratio(row["ratio"]),
        interval(row["ratio_low"], row["ratio_high"], _ratio),
        _least(row["detectable"]),
    )


def _least(change: float | None) -> str:
    if change is None:
        return "–"
    return _share(change) if change < _MUCH else f"{change + 1:,.0f} times"


def _value(figure: str, value: float | None) -> str:
    if value is None:
        return "–"
    if figure.split(".")[0].endswith("_ns"):
        return duration(value)
    return _share(value) if figure.endswith(".share") else _rate(value)


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1_000 else f"{value:.0f}"


def _share(value: float | None) -> str:
    from analysis.units import percent_text

    return percent_text(None if value is None else 100 * value)


def _rate(value: float) -> str:
    return f"{value:,.3g}" if value < 999.5 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else _rate(value)
