"""``pretake advise``: raw, normal or block, for each call site of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.views import cells, console, duration, interval, no_episodes, table, write_rows

if TYPE_CHECKING:
    import pandas as pd

_LEGEND = (
    "raw: the scheduler is not told; normal: entersyscall; block: entersyscallblock, P is handed "
    "off before the call; – in 'best': not known. gain: P time that each call would save if made "
    "in the best way, as a 95 % interval; of who waits: for how much less all goroutines together "
    "would wait that were queued at the block. pays from, to: block pays for calls that block for "
    "a time between the two. For shorter calls the handoff costs more than it saves, and for "
    "longer ones less than 1 % is lost until the retake."
)
_GO_HAS_NO_BLOCK = (
    "A Go program cannot make its own calls with entersyscallblock. Where block is best, these "
    "help: fewer of these calls at a time, a descriptor that the network poller waits for, or a "
    "larger GOMAXPROCS (docs/your-go-server.md)."
)


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(trace: Path, as_json: bool) -> None:
    """Show for each call site of TRACE which way of making the call costs least P time.

    \b
    Example:
      pretake advise server.pretake

    The ways are raw (the scheduler is not told), normal (entersyscall) and block (the P is handed
    off before the call). The gain is P time for each call, with a 95 % interval. A way whose
    gain may be a loss is not advised.
    """
    from analysis import load
    from analysis.answers.summary import tells_of_ps

    loaded = load(trace)
    advice = loaded.advise()
    if as_json:
        write_rows(advice)
        return
    terminal = console()
    if advice.empty:
        terminal.print(no_episodes(tells_of_ps(loaded.manifest)))
        return
    shown = advice[advice["way_best"].notna()]
    shown = shown if len(shown) else advice
    head = (
        "site",
        "now",
        "best",
        "calls",
        "blocked p50",
        "gain a call",
        "of who waits",
        "pays from",
        "to",
    )
    rows = [
        (
            *(row[name] for name in ("site", "way_now", "way_best")),
            f"{row['calls']:,}",
            duration(row["blocked_p50_ns"]),
            interval(row["gain_low_ns"], row["gain_high_ns"], duration),
            interval(row["wait_gain_low_ns"], row["wait_gain_high_ns"], duration),
            duration(row["pays_from_ns"]),
            duration(row["pays_to_ns"]),
        )
        for row in cells(shown)
    ]
    terminal.print(table("Which way to make a call", head, rows, left=3))
    terminal.print(_LEGEND)
    for remark, sites in _remarks(shown).items():
        whose = "" if len(sites) == len(shown) else f"{', '.join(sites)}: "
        terminal.print(f"{whose}{remark}", markup=False)
    if len(shown) < len(advice):
        left_out = len(advice) - len(shown)
        terminal.print(f"{left_out} more with too little evidence: --json tells them and why")
    if loaded.manifest.target.runtime == "go":
        terminal.print(_GO_HAS_NO_BLOCK)


def _remarks(advice: pd.DataFrame) -> dict[str, list[str]]:
    """What the evidence says, and of which sites; their numbers of calls are in the table."""
    said: dict[str, list[str]] = {}
    for row in cells(advice):
        for remark in row["evidence"].split("; ")[1:]:
            said.setdefault(remark, []).append(row["site"])
    return said
