"""``pretake preemptions``: each request that a goroutine stop, and how it went."""

from __future__ import annotations

from pathlib import Path

import click

from pretake.views import cells, console, duration, table, write_rows

_REASONS = {
    "time_slice": "it had run for 10 ms (forcePreemptNS)",
    "stw": "the world is to stop",
    "suspend": "one goroutine is to stand still, mostly for the collector (suspendG)",
}


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--json", "as_json", is_flag=True, help="Print every request, one JSON object per line."
)
def command(trace: Path, as_json: bool) -> None:
    """Show who asked goroutines of TRACE to stop, and whether they stopped.

    \b
    Example:
      pretake preemptions server.pretake

    If a signal arrived at an instruction where Go cannot stop a goroutine, the function of that
    instruction is shown. System calls that a signal interrupted (EINTR) are shown too.
    """
    from analysis import load
    from analysis.answers.preemptions import ledger

    loaded = load(trace)
    requests = loaded.preemptions()
    if as_json:
        write_rows(requests)
        return
    if requests.empty:
        console().print("No request to stop a goroutine was seen.")
    rows = [
        (
            row["reason"],
            ": ".join(word for word in (row["outcome"], row["why"]) if word) or "not seen",
            f"{row['requests']:,}",
            duration(row["sent_p50_ns"]),
            duration(row["delivered_p50_ns"]),
            duration(row["latency_p50_ns"]),
        )
        for row in cells(ledger(requests))
    ]
    head = ("asked for", "end", "count", "sent", "arrived", "stopped")
    if rows:
        terminal = console()
        terminal.print(table("Requests to stop a goroutine", head, rows, left=2))
        for reason in dict.fromkeys(str(row[0]) for row in rows):
            if reason in _REASONS:
                terminal.print(f"{reason}: {_REASONS[reason]}")
        terminal.print("sent, stopped: median time since the request; arrived: since the sending")
        terminal.print("–: not known")
    calls = [(row["syscall"], f"{row['times']:,}") for row in cells(loaded.interrupted_calls())]
    if calls:
        console().print(table("System calls that SIGURG interrupted", ("call", "EINTR"), calls))
