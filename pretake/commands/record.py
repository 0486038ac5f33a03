"""``pretake record``: one capture into a trace."""

from __future__ import annotations

import contextlib
import shlex
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pretake.libraries import import_without_threads
from pretake.types import SIZE, Number, tell_process
from tracer.capture.options import BACKENDS, CALLS, DETAILS, PROBES, RUNTIMES

if TYPE_CHECKING:
    from rich.status import Status

    from tracer.capture.options import CaptureOptions
    from tracer.trace.manifest import Manifest


@click.command(
    context_settings={"ignore_unknown_options": False},
)
@click.argument("program", nargs=-1, metavar="[-- COMMAND [ARG]...]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="TRACE",
    help="Folder to write the trace to.",
)
@click.option(
    "--pid", type=int, metavar="PID", help="Capture this running process instead of a command."
)
@click.option("--seconds", type=Number(0), metavar="S", help="End the capture after S seconds.")
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="The runtime whose P, M and G are read; none: read no runtime.",
)
@click.option(
    "--detail",
    type=click.Choice(DETAILS),
    default="blocks",
    show_default=True,
    help="Record only the system calls that blocked (blocks), or all of them (full).",
)
@click.option(
    "--calls",
    type=click.Choice(CALLS),
    default="inferred",
    show_default=True,
    help="inferred: find system calls by their threads' switches, with times as intervals and "
    "without results. exact: by tracepoints, which slow down every call of every process.",
)
@click.option(
    "--probes",
    type=click.Choice(PROBES),
    default="none",
    show_default=True,
    help="How transitions of Go's runtime, such as a retake, are found. none: read from its "
    "memory. exact: by uprobes in its code. both: to compare the two.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="bpf",
    show_default=True,
    help="perf works without root, and captures switches but no system calls.",
)
@click.option(
    "--stacks/--no-stacks",
    default=True,
    show_default=True,
    help="Record the stack of each block. Call sites need it.",
)
@click.option(
    "--host",
    is_flag=True,
    help="Record the switches of all programs, to see which one took the CPU.",
)
@click.option("--all-signals", is_flag=True, help="Record every signal, and not only SIGURG.")
@click.option(
    "--buffer",
    type=SIZE,
    default=None,
    show_default="2M to 32M, by the machine's memory",
    metavar="SIZE",
    help="Memory for the records of each CPU. A larger one loses fewer records.",
)
@click.option(
    "--measure-overhead",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=5,
    metavar="PAIRS",
    help="Run COMMAND in pairs, with and without a capture, and print the ratio of their times.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    metavar="N",
    help="Record COMMAND N times, into TRACE-1, TRACE-2 and so on, for 'pretake diff'.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    ctx: click.Context,
    program: tuple[str, ...],
    output: Path | None,
    pid: int | None,
    seconds: float | None,
    force: bool,
    runtime: str,
    detail: str,
    calls: str,
    probes: str,
    backend: str,
    stacks: bool,
    host: bool,
    all_signals: bool,
    buffer: int | None,
    measure_overhead: int | None,
    repeat: int | None,
    quiet: bool,
) -> None:
    """Capture a COMMAND, or a running process, into the folder TRACE.

    \b
    Examples:
      pretake record -o server.pretake -- ./server --port 8080
      pretake record -o server.pretake --pid 4242 --seconds 30
      pretake record --measure-overhead 5 -- ./benchmark

    COMMAND keeps its own input and output. Ctrl-C ends the capture, and the trace is complete. A
    capture needs root, or CAP_BPF and CAP_PERFMON. '--backend perf' needs neither. The next
    command is 'pretake summary TRACE'.
    """
    if repeat is not None:
        _record_often(ctx, program, output, repeat)
        return
    if pid is not None and not program and not quiet:
        tell_process(pid)
    import_without_threads()
    # Before the capture: who has given up root's rights may not read root's modules.
    import pretake.views  # noqa: F401
    from tracer.capture.options import CaptureOptions, Progress
    from tracer.capture.perf_record import record_by_perf
    from tracer.capture.record import record
    from tracer.targets import reference

    options = CaptureOptions(
        buffer_bytes=buffer,
        detail=detail,
        calls=calls,
        probes=probes,
        all_signals=all_signals,
        stacks=stacks,
        host=host,
        seconds=seconds,
        force=force,
        runtime=runtime,
        reference_module=reference.find(),
    )
    if measure_overhead is not None:
        _tell_overhead(program, options, measure_overhead)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    if program and pid is not None:
        # As $(pidof server) makes it of two servers.
        raise click.UsageError("--pid takes one process, and no command beside it.")
    with contextlib.ExitStack() as stack:
        spinner: list[Status] = []

        def tell(progress: Progress) -> None:
            # The target may write to the same terminal; where there is none, nobody would see it.
            if quiet or not sys.stderr.isatty():
                return
            from pretake.views import bytes_text, console

            lost = f", {progress.lost:,} lost" if progress.lost else ""
            text = (
                f"capturing: {progress.elapsed_s:.0f} s, {progress.events:,} events{lost}, "
                f"{bytes_text(progress.bytes)} (Ctrl-C ends)"
            )
            if not spinner:
                # Not before: its thread would keep the capabilities that record gives up.
                spinner.append(stack.enter_context(console(stderr=True).status(text)))
            spinner[0].update(text)

        manifests: list[Manifest] = []
        ended = partial(record, drop=True, ended=manifests.append)
        capture = ended if backend == "bpf" else record_by_perf
        path = capture(
            list(program) or None, output=output, pid=pid, options=options, progress=tell
        )
    if quiet:
        return
    # After the capture: what it takes to import them is time in which nothing was captured.
    from pretake.views import bytes_text, note
    from tracer.targets.go_offsets import ASSUMED
    from tracer.trace.reader import Trace

    manifest = manifests[0] if manifests else Trace(path).manifest
    stored, lost = sum(manifest.events.values()), sum(manifest.lost.values())
    note(f"{path}: {stored:,} events, {lost:,} lost, {bytes_text(manifest.capture.bytes)}")
    offsets_from = manifest.target.offsets_from
    if offsets_from is not None and offsets_from.startswith(ASSUMED):
        note(f"offsets of {manifest.target.version}: {offsets_from}, which its memory confirmed")
    for missing in manifest.missing:
        note(f"not captured: {missing}")
    if manifest.exit_status:
        note(f"the command ended with status {manifest.exit_status}")
    note(f"next: pretake summary {shlex.quote(str(path))}")


def _record_often(
    ctx: click.Context, program: tuple[str, ...], output: Path | None, repeat: int
) -> None:
    from pretake.repeat import capture, given_options, numbered
    from pretake.views import note

    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    if not program or ctx.params["measure_overhead"] is not None:
        raise click.UsageError("--repeat runs a COMMAND again and again: name one, after --")
    options = given_options(ctx, ("repeat", "output", "quiet"))
    for path in numbered(output, repeat, ctx.params["force"]):
        capture(path, options, program)
        if not ctx.params["quiet"]:
            note(str(path))


def _tell_overhead(program: tuple[str, ...], options: CaptureOptions, pairs: int) -> None:
    from tracer.capture.overhead import measure_overhead

    told = measure_overhead(program, options, pairs)
    low, high = told.ratios[0], told.ratios[-1]
    seconds = statistics.median(told.untraced_s)
    click.echo(
        f"{told.ratio:.3f} times as long under a capture "
        f"({low:.3f} to {high:.3f} in {pairs} pairs; {seconds:.3g} s without)"
    )
