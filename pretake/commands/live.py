"""``pretake live``: how long Ps are held, while a program runs."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import TYPE_CHECKING, Any

import click

from pretake.libraries import import_without_threads
from pretake.types import WHERE, Number, tell_process
from pretake.views import Sheet, console, duration, note, pressure_sheet, table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from analysis.answers.live import Call
    from analysis.answers.pressure import ProcessPressure
    from pretake.watcher import Watcher
    from tracer.capture.live import Live


@click.command()
@click.argument("program", nargs=-1, metavar="[-- COMMAND [ARG]...]")
@click.option(
    "--pid", type=int, metavar="PID", help="Watch this running process instead of a command."
)
@click.option(
    "--period",
    type=Number(0.01),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two lines.",
)
@click.option("--seconds", type=Number(0), metavar="S", help="End after S seconds.")
@click.option(
    "--probes",
    type=click.Choice(("none", "exact")),
    default="none",
    show_default=True,
    help="How retakes of Go's runtime are found. none: read from its memory. exact: by uprobes in "
    "its code.",
)
@click.option(
    "--sites",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="Number of call sites shown by name: those with the most retakes. The rest is 'other'.",
)
@click.option(
    "--pressure",
    is_flag=True,
    help="Also show stall time of Ps by cause. This costs as much as a capture, because all its "
    "rows leave the kernel.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON line each period, for programs."
)
@click.option(
    "--prometheus",
    type=WHERE,
    metavar="PORT|unix:PATH",
    help="Serve the histograms to Prometheus on 127.0.0.1:PORT, or on a socket. Every user of "
    "this machine can read the port, call sites of the program included; only you the socket.",
)
def command(
    program: tuple[str, ...],
    pid: int | None,
    period: float,
    seconds: float | None,
    probes: str,
    sites: int,
    pressure: bool,
    as_json: bool,
    prometheus: int | Path | None,
) -> None:
    """Show P-retake latency and harm of a COMMAND, or of a running process, while it runs.

    \b
    Examples:
      pretake live --pid 4242
      pretake live --json --period 10 -- ./server

    Each time is from the moment a thread blocked in a system call until the runtime took its P.
    All figures count from the start of the watch. The kernel keeps them as histograms, and no
    trace is written. It needs root, or CAP_BPF and CAP_PERFMON.

    --pressure adds two shares of the last 10, 60 and 300 s for each cause, as /proc/pressure has
    them: the time in which a P was lost to the cause while work waited (some), and the part of it
    in which no P ran (full). They are 2 s late.
    """
    if pid is not None and not program:
        tell_process(pid)
    import_without_threads()
    from pretake.watcher import Watcher
    from tracer.capture.live import live

    _import_all()

    with contextlib.ExitStack() as stack:
        served = None
        if prometheus is not None:
            # While it may still make the socket, and read the modules.
            from pretake.prometheus import Server

            served = stack.enter_context(contextlib.closing(Server(prometheus)))
        watched = stack.enter_context(
            live(list(program) or None, pid, drop=True, probes=probes, rows=pressure)
        )
        watcher = Watcher(watched, probes == "exact")
        if served is not None:
            told = watcher.pressure if pressure else None
            served_to = served.serving(watcher.look, sites, watcher.unknown, told)
            stack.enter_context(served_to)
        _show(watched, watcher, period, seconds, sites, as_json, pressure)
        for missing in watched.missing:
            note(f"not seen: {missing}")
        if watched.runtime == "none":
            note("no runtime was found in the program: there is no P that could be retaken")
        if not pressure and not as_json:
            note("stall time by cause was not told: it takes all rows of a capture (--pressure)")


_SPARE = ("harm p50", "p50", "harm p99")
"""Columns that a narrow terminal does without, the first of them first."""


def _import_all() -> None:
    """What is imported late: later a second would be one unseen, and whoever has become nobody may
    not read modules that lie in root's home."""
    import io

    import rich.live  # noqa: F401

    import analysis.answers.going
    import analysis.answers.live
    import analysis.answers.now
    import analysis.answers.places
    import analysis.formats.prometheus  # noqa: F401

    told = console()
    told.file = io.StringIO()
    told.print(_table([]), *_pressure([]))


def _show(
    watched: Live,
    watcher: Watcher,
    period: float,
    seconds: float | None,
    sites: int,
    as_json: bool,
    told_pressure: bool,
) -> None:
    from rich.console import Group
    from rich.live import Live as Screen

    from analysis.answers.live import NOTHING, TopCalls, by_syscall

    begin_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        screen = None
        if not as_json:
            screen = stack.enter_context(Screen(console=console(), auto_refresh=False))
        ended = False
        while not ended:
            elapsed_s = time.monotonic() - begin_s
            left_s = math.inf if seconds is None else max(seconds - elapsed_s, 0)
            ended = watched.wait(min(period, left_s)) or left_s <= period
            watcher.step(ended)
            pressure = watcher.pressure() if told_pressure else None
            counts = watcher.look()
            unknown = watcher.unknown()
            rows = [
                _site_row(call, own, watcher) for call, own in TopCalls(sites).look(counts).items()
            ]
            rows.sort(key=lambda row: -int(row["retakes"]))
            if screen is not None:
                shown = [_table(rows), *_unknown_text(unknown), *_pressure(pressure)]
                screen.update(Group(*shown), refresh=True)
                continue
            syscalls = [
                {
                    "syscall": call.syscall,
                    **_numbers(own),
                    "unknown": unknown.pop(call.syscall, 0),
                }
                for call, own in by_syscall(counts).items()
            ]
            syscalls += [
                {"syscall": name, **_numbers(NOTHING), "unknown": count}
                for name, count in unknown.items()
            ]
            line = {
                "elapsed_s": round(time.monotonic() - begin_s, 3),
                "runtime": watched.runtime,
                "syscalls": sorted(syscalls, key=lambda row: -int(row["retakes"])),
                "call_sites": rows,
                # Null: nobody asked, which is not the same as none.
                "pressure": pressure,
            }
            click.echo(json.dumps(line))


def _site_row(call: Call, counts: np.ndarray, watcher: Watcher) -> dict[str, Any]:
    file, line = watcher.sites.line_of(call.site)
    where = {"call_site": call.site, "file": file, "line": line}
    return {"syscall": call.syscall, **where, **_numbers(counts)}


def _numbers(counts: np.ndarray) -> dict[str, Any]:
    """How often, and quantiles in ns, of each kind of time."""
    from tracer.capture.live import WHATS, Histogram

    numbers: dict[str, Any] = {}
    for what, own in zip(WHATS, counts, strict=True):
        histogram = Histogram(own)
        numbers[f"{what}s"] = histogram.total
        numbers[f"{what}_ns"] = {
            "p50": histogram.quantile(0.5),
            "p99": histogram.quantile(0.99),
        }
    return numbers


def _table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a rich renderable
    columns = (
        *("call site", "system call", "retakes", "p50", "p99"),
        *("harmful", "harm p50", "harm p99"),
    )
    cells = [
        (
            row["call_site"] if row["line"] is None else f"{row['call_site']}:{row['line']}",
            row["syscall"],
            row["retakes"],
            *map(duration, row["retake_ns"].values()),
            row["harms"],
            *map(duration, row["harm_ns"].values()),
        )
        for row in rows
    ]
    return table("P-retake latency and harm", columns, cells, left=2, spare=_SPARE)


def _unknown_text(unknown: dict[str, int]) -> list[str]:
    """How many retakes no row of the table has."""
    if not unknown:
        return []
    named = ", ".join(f"{count:,} of {name}" for name, count in sorted(unknown.items()))
    return [f"unknown how long after the block, and counted in no row: {named}"]


def _pressure(processes: list[ProcessPressure] | None) -> list[Sheet]:
    """A table of the process that stalls most."""
    if processes is None:
        return []
    if not processes:
        return [table("Pressure: no second of a process with Ps is told yet", ("cause",), [])]
    first, *others = processes
    more = f", and {len(others)} more" if others else ""
    return [pressure_sheet(first["pressure"], f"{first['comm'] or first['pid']}{more}: pressure")]
