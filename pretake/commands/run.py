"""``pretake run``: a workload, or a user's own coroutine file, on the reference runtime."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from pretake.types import Number
from pretake.views import console, duration, note, print_json, table
from tracer.capture.launch import RECORD_VARIABLE, RESULT_VARIABLE
from tracer.errors import EXIT_STATUS, PretakeError

_SCHEDULER = {
    ("reference_runtime", "scheduler.py"),
    ("reference_runtime", "runtime.py"),
    ("workloads", "__init__.py"),
}


def _parameters(pairs: tuple[str, ...]) -> dict[str, object]:
    """``NAME=VALUE`` as Python values: numbers and truth values where they look so."""
    parameters: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--set")
        try:
            parameters[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            parameters[name.replace("-", "_")] = value
    return parameters


@click.command()
@click.argument("workload")
@click.option(
    "--retake",
    "policy",
    default="sysmon",
    show_default=True,
    metavar="POLICY",
    help="How Ps are taken back: a policy, or FILE.py:CLASS of your own.",
)
@click.option("--procs", type=int, default=1, show_default=True, help="Number of Ps (GOMAXPROCS).")
@click.option(
    "--seconds",
    type=Number(0),
    help="How long to run, instead of the workload's own time. For a FILE: its time limit "
    "[default: 60].",
)
@click.option("--rounds", type=click.IntRange(1), help="Number of rounds, instead of a time.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the workload. Repeat it for more.",
)
@click.option(
    "--witness",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the runtime's own record of its retakes, for 'pretake check --witness'.",
)
@click.option(
    "--preempt",
    metavar="KIND",
    help="How goroutines are preempted: async (as Go from 1.14 on), cooperative (as with "
    "asyncpreemptoff=1) or off [default: as --like, async].",
)
@click.option(
    "--like",
    default="lean",
    show_default=True,
    metavar="RULES",
    help="Like which Go it decides: go1.13, go1.21, go1.27, gvisor, or lean, which has none of "
    "Go's habits.",
)
@click.option(
    "--backup",
    "backup_ms",
    type=Number(0),
    metavar="MS",
    help="With sched_out: how long a call that no event told of keeps its P [default: 100].",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    metavar="N",
    help="Run the workload N times, one after the other.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON document, for programs; of several runs a list.",
)
def command(
    workload: str,
    policy: str,
    procs: int,
    seconds: float | None,
    rounds: int | None,
    pairs: tuple[str, ...],
    witness: Path | None,
    preempt: str | None,
    like: str,
    backup_ms: float | None,
    repeat: int | None,
    as_json: bool,
) -> int:
    """Run WORKLOAD, or a coroutine function FILE.py:FUNCTION, on the reference runtime.

    \b
    Examples:
      pretake run echo --retake block --procs 1
      pretake run my_workload.py:main

    It prints the throughput and the retakes that the runtime itself counted. To capture the run,
    write 'pretake record -o TRACE --' before this command.
    """
    from reference_runtime.deadlock import Deadlock, TimeLimit
    from reference_runtime.workloads import run_workload

    own = _parameters(pairs)
    if taken := sorted(own.keys() & inspect.signature(run_workload).parameters.keys()):
        raise click.BadParameter(f"{taken[0]} has an option of its own", param_hint="--set")
    results = []
    try:
        for _ in range(repeat or 1):
            with _ended_in_order(), _writable(witness), _own_record() as fd:
                result = run_workload(
                    workload,
                    policy,
                    procs,
                    seconds,
                    rounds,
                    witness,
                    fd,
                    preempt,
                    like,
                    backup_ms,
                    **own,
                )
            results.append(result)
    except (Deadlock, TimeLimit) as end:
        # As in Go: fatal, where each goroutine waits, status 2.
        note(f"fatal error: {end}")
        return EXIT_STATUS
    except MemoryError:
        raise PretakeError(
            f"{workload} asks for more memory than there is", "give smaller numbers with --set"
        ) from None
    except Exception as failure:
        # The scheduler notes the goroutine; what has no note is no goroutine's failure.
        if not getattr(failure, "__notes__", None):
            raise
        note("".join(traceback.format_exception(failure.with_traceback(_own_part(failure)))))
        return EXIT_STATUS
    leave_result(results[-1])
    if as_json:
        print_json(results[0] if repeat is None else results)
        return 0
    for result in results:
        _show(f"{workload} under {policy}, {procs} P", result)
    return 0


def _show(title: str, result: dict[str, Any]) -> None:
    names = ("p50", "p90", "p99", "max")
    times = {key: value for key, value in result.items() if _is_times(value)}
    rows = [
        (
            name.removesuffix("_ns").replace("_", " "),
            *(duration(value[q]) for q in names),
            value["count"],
        )
        for name, value in times.items()
    ]
    terminal = console()
    terminal.print(table(title, ("", *names, "count"), rows))
    counters = result["runtime"]
    others = {k: v for k, v in result.items() if k not in times and v is not counters}
    terminal.print(table("Counters", ("", ""), [*others.items(), *counters.items()]))


def _own_part(failure: Exception) -> TracebackType | None:
    """The traceback from where the goroutine's own code begins, below the scheduler's frames."""
    own = below = failure.__traceback__
    while below is not None and below.tb_next is not None:
        if Path(below.tb_frame.f_code.co_filename).parts[-2:] in _SCHEDULER:
            own = below.tb_next
        below = below.tb_next
    return own


@contextlib.contextmanager
def _writable(path: Path | None) -> Iterator[None]:
    """Refuse a file that cannot be written before the run, and not after it.

    A pipe that nobody reads is one: who opens it would wait for a reader for ever.
    """
    if path is None:
        yield
        return
    before = os.path.lexists(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        reason = "nobody reads this pipe" if error.errno == errno.ENXIO else error.strerror
        raise PretakeError(f"cannot write {path}: {reason}", "choose another file") from None
    try:
        yield
    except BaseException:
        if not before:
            path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _own_record() -> Iterator[int | None]:
    """The file of a capture of this process that wants the runtime's own record, if one does."""
    path = os.environ.get(RECORD_VARIABLE)
    if not path:
        yield None
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        # As for the result below.
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM, by which a capture ends its command, end the run: its record is left then."""

    class Terminated(BaseException):
        pass

    def terminate(_signo: int, _frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave_result(result: dict[str, object]) -> None:
    """Leave the result where a capture of this process picks it up for its manifest."""
    path = os.environ.get(RESULT_VARIABLE)
    if not path:
        return
    # The file is the tracer's: another user may not be let near it, and is no worse off.
    with contextlib.suppress(OSError):
        text = json.dumps({"name": result["workload"], **result})
        Path(path).write_text(text, "utf-8")


def _is_times(value: object) -> bool:
    return isinstance(value, dict) and "p50" in value
