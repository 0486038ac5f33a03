"""``pretake live``: how long Ps are held, while a program runs."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pretake.views import console, duration, table

if TYPE_CHECKING:
    from tracer.live import Histogram, Live

    Histograms = dict[tuple[int, str], Histogram]


@click.command(
    epilog="Examples: pretake live --pid 4242;  pretake live --json --period 10 -- ./server"
)
@click.argument("program", nargs=-1, metavar="[-- COMMAND [ARG]...]")
@click.option("--pid", type=int, metavar="PID", help="A running process instead of a command.")
@click.option(
    "--period",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Time between two looks.",
)
@click.option("--seconds", type=float, metavar="S", help="End after so long.")
@click.option("--json", "as_json", is_flag=True, help="One line a period, for programs.")
@click.option(
    "--prometheus",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve the histograms to Prometheus, on loopback.",
)
def command(
    program: tuple[str, ...],
    pid: int | None,
    period: float,
    seconds: float | None,
    as_json: bool,
    prometheus: int | None,
) -> None:
    """Show P-retake latency and harm of a COMMAND, or of the process PID, while it runs.

    Times are from a thread's block in a system call to the moment the runtime took its P, since
    the begin, from histograms kept in the kernel. Needs root, or CAP_BPF and CAP_PERFMON.
    """
    from tracer.live import live

    with live(list(program) or None, pid) as watched, contextlib.ExitStack() as stack:
        if prometheus is not None:
            stack.enter_context(_served(watched, prometheus))
        _show(watched, period, seconds, as_json)


def _show(watched: Live, period: float, seconds: float | None, as_json: bool) -> None:
    from rich.live import Live as Screen

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
            rows = _rows(watched.histograms())
            if screen is None:
                elapsed_s = round(time.monotonic() - begin_s, 3)
                click.echo(json.dumps({"elapsed_s": elapsed_s, "syscalls": rows}))
            else:
                screen.update(_table(rows), refresh=True)


def _rows(histograms: Histograms) -> list[dict[str, Any]]:
    """One row a system call, those with the most retakes first."""
    from tracer.live import WHATS

    rows = []
    for number in sorted({number for number, _ in histograms}):
        row: dict[str, Any] = {"syscall": _name(number)}
        for what in WHATS:
            found = histograms.get((number, what))
            row[f"{what}s"] = found.total if found else 0
            row[f"{what}_ns"] = {
                name: found.quantile(share) if found else None
                for name, share in (("p50", 0.5), ("p99", 0.99))
            }
        rows.append(row)
    return sorted(rows, key=lambda row: -int(row["retakes"]))


def _name(number: int) -> str:
    from analysis.names import syscall_names

    return str(syscall_names([number])[0])


def _table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a rich renderable
    columns = ("system call", "retakes", "p50", "p99", "harmful", "p50", "p99")
    cells = [
        (
            row["syscall"],
            row["retakes"],
            *map(duration, row["retake_ns"].values()),
            row["harms"],
            *map(duration, row["harm_ns"].values()),
        )
        for row in rows
    ]
    return table("P-retake latency and harm", columns, cells)


@contextlib.contextmanager
def _served(watched: Live, port: int) -> Iterator[None]:
    """Serve the histograms on loopback, read from the kernel when they are asked for."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import HistogramMetricFamily

    from tracer.errors import PretakeError
    from tracer.live import WHATS, lower_ns

    class Collector:
        def collect(self) -> Iterator[HistogramMetricFamily]:
            found = watched.histograms()
            for what in WHATS:
                family = HistogramMetricFamily(
                    f"pretake_{what}_seconds",
                    "from a thread's block to its P being taken"
                    + (", while work waited and nobody else could run it" * (what == "harm")),
                    labels=["syscall"],
                )
                for (number, kind), histogram in found.items():
                    if kind != what:
                        continue
                    below = histogram.counts.cumsum()
                    # An octave a bucket, from a microsecond to a quarter of a minute.
                    bounds = range(4 * 10, 4 * 35, 4)
                    buckets = [(repr(lower_ns(b) / 1e9), float(below[b - 1])) for b in bounds]
                    buckets.append(("+Inf", float(below[-1])))
                    family.add_metric([_name(number)], buckets, sum_value=None)
                yield family

    registry = CollectorRegistry()
    registry.register(Collector())
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise PretakeError(
            f"port {port} cannot be served: {error.strerror}", "choose another"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
