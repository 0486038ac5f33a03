"""``pretake fleet``: where P time was lost in the traces of many hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pretake.views import UNKNOWN, call_text, console, duration, note, print_json, table
from tracer.errors import PretakeError

if TYPE_CHECKING:
    from analysis.answers.fleet import Fleet, Host

SHOWN = 20
_SPARE = ("P time", "most", "holds", "traces", "hosts")
"""Columns that a narrow terminal does without, the first of them first."""


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="URL...")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler to give the work to. Without it, this process does the work.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def command(places: tuple[str, ...], scheduler: str | None, as_json: bool) -> None:
    """Rank causes and call sites of lost P time over all traces below URL, and tell odd hosts.

    \b
    Examples:
      pretake fleet s3://bucket/dumps
      pretake fleet /var/lib/pretake 's3://bucket/dumps/host1*' --scheduler tcp://10.0.0.1:8786
      pretake fleet s3://bucket/dumps --json | jq '.hosts[] | select(.apart)'

    A URL is a folder, an address that fsspec can open, or a pattern of either; each trace below
    it is taken, such as the dumps that 'pretake watch --to' sends there. A trace that cannot be
    read is told in a line and counted.

    A host stands apart if it lost for certain more than twice the share of P time that the
    median of the other hosts lost at most, and 1 % of its P time more. It takes three hosts.
    """
    from analysis.answers.fleet import fleet
    from analysis.answers.found import find_traces

    told = fleet(find_traces(places), scheduler)
    if not told["traces"]:
        first = told["problems"][0]
        raise PretakeError(
            f"no trace could be read, such as {first['trace']}: {first['problem']}",
            "name folders or addresses that have some",
        )
    for problem in told["problems"]:
        note(f"not read: {problem['trace']}: {problem['problem']}")
    if (more := told["unreadable"] - len(told["problems"])) > 0:
        note(f"not read: {more:,} more")
    if as_json:
        print_json(told)
        return
    _show(told)


def _show(told: Fleet) -> None:
    terminal = console()
    hosts = told["hosts"]
    rows = [
        (
            host["host"],
            _verdict(host),
            f"{host['traces']:,}",
            duration(host["p_ns"]),
            _percent(host["share_least"]),
            _percent(host["share_most"]),
        )
        for host in hosts[:SHOWN]
    ]
    counts = f"{len(hosts):,} hosts, {told['traces']:,} traces"
    if told["unreadable"]:
        counts += f", {told['unreadable']:,} not read"
    head = ("host", "", "traces", "P time", "lost, least", "most")
    terminal.print(table(counts, head, rows, left=2, spare=_SPARE[:2]))
    if len(hosts) > SHOWN:
        apart = sum(1 for host in hosts[SHOWN:] if host["apart"])
        terminal.print(f"{len(hosts) - SHOWN:,} more hosts, {apart} of them apart; see --json")
    if told["blind"]:
        terminal.print(f"In {told['blind']:,} traces no process had a P that could be read.")
    # Only where there are some.
    pods = ("pods",) if any(cause["pods"] for cause in told["causes"]) else ()
    if told["causes"]:
        causes = [
            (
                cause["state"],
                duration(cause["least"]),
                duration(cause["most"]),
                _percent(cause["share_least"]),
                f"{cause['traces']:,}",
                _least(cause, "host"),
                *([_least(cause, "pod")] if pods else []),
            )
            for cause in told["causes"]
        ]
        head = ("cause", "lost, least", "most", "of P time", "traces", "hosts", *pods)
        terminal.print(
            table("Lost P time by cause", head, causes, spare=("most", "traces", "hosts", *pods))
        )
    if told["sites"]:
        sites = [
            (
                site["function"] or UNKNOWN,
                call_text(site["syscall"] or site["state"], site["runtime_wait"]),
                duration(site["least"]),
                duration(site["most"]),
                f"{site['holds']:,}",
                f"{site['traces']:,}",
                _least(site, "host"),
                *([_least(site, "pod")] if pods else []),
            )
            for site in told["sites"][:SHOWN]
        ]
        columns = ("site", "call", "lost, least", "most", "holds", "traces", "hosts", *pods)
        terminal.print(
            table("Lost P time by call site", columns, sites, left=2, spare=(*_SPARE[1:], *pods))
        )
        if len(told["sites"]) > SHOWN:
            terminal.print(f"{len(told['sites']) - SHOWN:,} more call sites; see --json")
    if told["other_sites"]["most"]:
        terminal.print(
            f"Call sites beyond the first {len(told['sites']):,} lost "
            f"{duration(told['other_sites']['least'])}."
        )


def _least(row: dict[str, Any], what: str) -> str:
    """How many hosts or pods; a least number where there are too many to tell apart."""
    count = f"{row[f'{what}s']:,}"
    return count if row[f"every_{what}"] else f"≥ {count}"


def _verdict(host: Host) -> str:
    words = ["stands apart"] if host["apart"] else []
    return ", ".join([*words, *([host["why"]] if host["why"] else [])])


def _percent(share: float | None) -> str:
    from analysis.units import percent_text

    return percent_text(None if share is None else 100 * share)
