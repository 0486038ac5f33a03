"""``pretake watch``: a flight recorder, which writes a trace of what was before an event."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from pretake.libraries import give_back_what_is_freed, import_without_threads
from pretake.types import SIZE, WHERE, Number

_NAMED: Final = 8
"""How many processes the first line names."""


@click.command()
@click.option(
    "--pid",
    "pids",
    type=int,
    multiple=True,
    metavar="PID",
    help="Watch this process. This option, --name, --cgroup and --when may be given repeatedly.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="GLOB",
    help="Watch each process with this name, also those that come later: 'api-*'.",
)
@click.option(
    "--cgroup",
    "cgroups",
    multiple=True,
    metavar="PATH",
    help="Watch each process of a cgroup, also those that come later: /system.slice/api.service.",
)
@click.option(
    "--go",
    is_flag=True,
    help="Watch each Go program, also those that come later. With --name or --cgroup: only the "
    "Go programs among those that they find.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("pretake-dumps"),
    show_default=True,
    metavar="DIR",
    help="Folder for dumps, and for nothing else.",
)
@click.option(
    "--when",
    "whens",
    multiple=True,
    metavar="RULE",
    help="Write a dump when this holds: 'lost_p > 20 % for 1 s', 'hold_ns > 50 ms' or "
    "'stw_ns > 10 ms'.",
)
@click.option(
    "--seconds",
    type=Number(0.1, 3600),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds before the event that a dump has.",
)
@click.option(
    "--after",
    type=Number(0, 3600),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds after the event that a dump has.",
)
@click.option(
    "--memory",
    type=SIZE,
    default="128M",
    show_default=True,
    metavar="SIZE",
    help="Memory for the records of those seconds. If it is too small, a dump begins later, and "
    "says so.",
)
@click.option(
    "--dumps-per-hour",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    metavar="N",
    help="Write no more dumps than this in an hour.",
)
@click.option(
    "--disk",
    type=SIZE,
    default="1G",
    show_default=True,
    metavar="SIZE",
    help="Remove the oldest dumps when all take more than this.",
)
@click.option(
    "--to",
    "to",
    metavar="URL",
    help="Copy each dump to an object store too: s3://bucket/prefix, or what else fsspec opens.",
)
@click.option(
    "--to-timeout",
    type=Number(0.1, 3600),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Give an upload up when the store has taken nothing for so long.",
)
@click.option(
    "--listen",
    type=WHERE,
    metavar="127.0.0.1:PORT|unix:PATH",
    help="Serve /metrics, /debug/pprof/ptime and POST /dump. Every user of this machine can ask "
    "the port; only you the socket.",
)
@click.option(
    "--flight",
    metavar="URL|FILE",
    help="Where the program gives the window of its own runtime/trace.FlightRecorder: an "
    "http:// address on loopback, or a file that it writes. A dump has it too.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve /metrics, and nothing else, to every machine that reaches this one: for a pod.",
)
@click.option(
    "--probes",
    type=click.Choice(("none", "exact")),
    default="none",
    show_default=True,
    help="How transitions of Go's runtime are found, as in 'pretake record'.",
)
@click.option(
    "--buffer",
    type=SIZE,
    default=None,
    show_default="2M to 8M, by the machine's memory",
    metavar="SIZE",
    help="Memory for the records of each CPU, until they are read.",
)
def command(
    pids: tuple[int, ...],
    names: tuple[str, ...],
    cgroups: tuple[str, ...],
    go: bool,
    output: Path,
    whens: tuple[str, ...],
    seconds: float,
    after: float,
    memory: int,
    dumps_per_hour: int,
    disk: int,
    to: str | None,
    to_timeout: float,
    listen: int | Path | None,
    flight: str | None,
    metrics_port: int | None,
    probes: str,
    buffer: int | None,
) -> None:
    """Keep the last seconds of running programs in memory, and write a trace when it matters.

    \b
    Examples:
      pretake watch --pid 4242 --when 'hold_ns > 50 ms'
      pretake watch --go --when 'lost_p > 20 % for 3 s'
      pretake watch --name 'api-*' --when 'lost_p > 20 % for 3 s' --listen 127.0.0.1:9110
      pretake watch --name 'api-*' --when 'stw_ns > 10 ms' --to s3://bucket/dumps
      kill -USR1 $(pgrep -f 'pretake watch')

    A dump is an ordinary trace, for 'pretake summary' and all others. It has the time before the
    event and some after it. Events are rules that hold (--when), SIGUSR1, and POST /dump.
    Nothing else is written, so a watch may run for weeks. Ctrl-C and SIGTERM end it.

    lost_p is the share of P time that was lost in each of so many seconds in a row. hold_ns is
    how long a blocked thread kept its P, and stw_ns how long a stop-the-world took. Each is known
    when it is over. It needs root, or CAP_BPF and CAP_PERFMON.
    """
    from analysis.answers.rules import parse_rule

    rules = [parse_rule(text) for text in whens]
    from tracer.capture.flight import flight_of

    own = None if flight is None else flight_of(flight)
    import_without_threads()
    give_back_what_is_freed()
    from pretake.recording import Recording, import_late
    from pretake.views import note
    from tracer.capture.options import CaptureOptions
    from tracer.capture.record import stopped_by_signals
    from tracer.capture.recorder import Recorder
    from tracer.capture.several import Several
    from tracer.capture.watch import WatchOptions, watch
    from tracer.targets import reference

    targets = Several(pids, names, cgroups, go=go)
    options = CaptureOptions(buffer_bytes=buffer, probes=probes, reference_module=reference.find())
    serves = listen is not None or metrics_port is not None
    kept = WatchOptions(seconds, memory, rows=bool(rules) or serves)
    if kept.rows:
        import_late(serves, profiles=listen is not None)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(targets.close)
        # Until it can be answered, it ends neither us nor what we start.
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        stack.callback(signal.signal, signal.SIGUSR1, before)
        servers = []
        if serves:
            from pretake.prometheus import Server
            from pretake.recording_page import application, metrics_alone

            for where, what, everywhere in (
                (listen, application, False),
                (metrics_port, metrics_alone, True),
            ):
                if where is not None:
                    made = stack.enter_context(contextlib.closing(Server(where, everywhere)))
                    servers.append((made, what))
        stack.enter_context(stopped_by_signals(stop))
        watched, dumps, uploads = stack.enter_context(
            watch(
                targets,
                output,
                options=options,
                kept=kept,
                per_hour=dumps_per_hour,
                disk_bytes=disk,
                drop=True,
                to=to,
                to_timeout_s=to_timeout,
            )
        )
        on_written = None if uploads is None else uploads.add
        recorder = Recorder(watched, dumps, seconds, after, on_written, own)
        exact = probes == "exact"
        recording = Recording(watched, dumps, recorder, rules, exact, kept.rows, uploads)
        signal.signal(signal.SIGUSR1, recording.by_signal)
        for server, what in servers:
            stack.enter_context(server.answering(what(recording)))
        found = _found(targets.pids)
        note(f"watching {found}; dumps go to {output}; Ctrl-C ends, SIGUSR1 writes a dump")
        recording.run(stop, note)
        for missing in watched.missing:
            note(f"not captured: {missing}")
        if recorder.last is not None:
            path = shlex.quote(str(output / recorder.last))
            note(f"next: pretake summary {path}")


def _found(pids: Sequence[int]) -> str:
    """Which processes a watch begins with; of many the first ones, and how many others."""
    if len(pids) <= _NAMED:
        return ", ".join(map(str, pids)) or "none yet"
    return f"{', '.join(map(str, pids[:_NAMED]))} and {len(pids) - _NAMED} more"
