"""``pretake factors``: what the P-retake latency consists of, and what it goes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pretake.views import cells, console, duration, interval, table, write_rows

_SITES = 3
"""Sites and reasons whose parts are shown, beside those of all calls."""


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(trace: Path, as_json: bool) -> None:
    """Show what the P-retake latency in TRACE consists of, and what it goes with.

    \b
    Example:
      pretake factors server.pretake

    The first table has the parts of the mean latency, which add up to it. The second one has what
    was so before the block, such as the length of a run queue or how long sysmon had slept, and
    its effect: a rank correlation, where 1 means that the latency always grows with it, -1 that
    it always falls, and 0 that there is no relation. Only effects that are more than chance are
    shown. --json prints the parts first, then every factor.
    """
    from analysis import load

    loaded = load(trace)
    parts, factors = loaded.latency(), loaded.factors()
    if as_json:
        write_rows(parts)
        write_rows(factors)
        return
    from analysis.answers.factors import SHOWN

    terminal = console()
    told = cells(parts)
    if not told:
        terminal.print("No P-retake latency is known in this trace.")
        return
    terminal.print(
        table(
            f"The mean P-retake latency of {told[0]['episodes']:,} calls, and its parts",
            ("site", "reason", "part", "mean", "share"),
            list(_parts(told)),
            left=3,
        )
    )
    rows = cells(factors)
    shown = [row for row in rows if row["p_holm"] is not None and row["p_holm"] < SHOWN]
    head = ("site", "reason", "factor", "effect", "95 %", "p50 if low", "if high")
    if shown:
        terminal.print(
            table(
                "What the latency goes with, of what was so before the block",
                head,
                [
                    (
                        *(row[name] for name in ("site", "reason", "meaning")),
                        _number(row["effect"]),
                        interval(row["effect_low"], row["effect_high"], _number),
                        duration(row["low_p50_ns"]),
                        duration(row["high_p50_ns"]),
                    )
                    for row in shown
                ],
                left=3,
            )
        )
    for words, some in (
        ("no more than chance", [r for r in rows if r["effect"] is not None and r not in shown]),
        ("too few calls, or always the same", [r for r in rows if r["effect"] is None]),
    ):
        if some:
            terminal.print(f"{words}: {'; '.join(_by_site(some))}", markup=False)


def _parts(told: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """The parts of all calls and of the first sites; a site's name stands beside its mean."""
    groups: dict[tuple[str | None, str | None], list[dict[str, Any]]] = {}
    for row in told:
        groups.setdefault((row["site"], row["reason"]), []).append(row)
    keys = list(groups)
    # The only site and reason is all of it.
    keys = keys[1:] if len(keys) == 2 else keys[: 1 + _SITES]
    rows: list[tuple[object, ...]] = []
    for site, reason in keys:
        own = groups[site, reason]
        head = ("all calls", "") if site is None else (site, reason)
        rows.append((*head, "all parts", duration(sum(row["mean_ns"] for row in own)), "100 %"))
        rows += [
            ("", "", row["meaning"], duration(row["mean_ns"]), f"{100 * row['share']:.1f} %")
            for row in own
            if row["sum_ns"]
        ]
    return rows


def _by_site(rows: list[dict[str, Any]]) -> list[str]:
    """``runq, npidle (read, sysmon)``, a text for each site and reason."""
    names: dict[str, list[str]] = {}
    for row in rows:
        site = row["site"] if row["reason"] is None else f"{row['site']}, {row['reason']}"
        names.setdefault(site, []).append(row["factor"])
    return [f"{', '.join(factors)} ({site})" for site, factors in names.items()]


def _number(value: float | None) -> str:
    return f"{value:+.2f}"
