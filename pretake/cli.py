"""The command ``pretake``: finds a subcommand's file, and turns errors into one line.

A subcommand is the file of its name in ``pretake/commands/``, with a click command ``command``.
It is imported when it is asked for, so that ``pretake record`` starts without pandas.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from tracer.errors import EXIT_STATUS, PretakeError

__all__ = ["main"]

# In the order in which a newcomer meets them; the help shows them so.
SUBCOMMANDS = {
    "demo": "Capture the reference runtime under several policies, and compare them.",
    "doctor": "Say what this machine can capture, and what to do about what is missing.",
    "record": "Capture a program into a trace.",
    "live": "Show P-retake latency and harm while a program runs, and store nothing.",
    "watch": "Keep the last seconds of running programs, and write a trace when it matters.",
    "summary": "How much P time was lost, to what, and what helps.",
    "budget": "Show where every P-second went, and whose work waited.",
    "episodes": "List each system call that blocked with a P.",
    "callsites": "Show which calls held Ps, the most harmful first.",
    "preemptions": "Show who asked goroutines to stop, and whether they stopped.",
    "factors": "Show what the P-retake latency consists of, and what it goes with.",
    "advise": "Show for each call site which way of calling costs least P time.",
    "whatif": "Replay the run under other policies, or on another machine.",
    "compare": "Show many traces in one table, on a cluster if there is one.",
    "fleet": "Rank causes and call sites over the traces of many hosts, and tell odd hosts.",
    "diff": "Say whether the runs of two programs differ by more than chance.",
    "bench": "Record two commands in turns, and say whether they differ.",
    "report": "Write one HTML file with pictures, which works offline.",
    "check": "Check a trace against the rules of the scheduler, and a second record.",
    "import": "Make a trace from what perf or Go recorded.",
    "export": "Write a trace for Perfetto, pprof, a spreadsheet or a flame graph.",
    "run": "Run a workload on the reference runtime.",
}


class _ReaderLeft(Exception):  # noqa: N818 - it is no error
    """Who read our output (a pager, head) has left.

    click would end by status 1 then, which is that of a broken rule.
    """


@contextlib.contextmanager
def _while_read() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderLeft from error


class _Subcommands(click.Group):
    """A group whose commands are imported one at a time."""

    @_while_read()
    def make_context(self, *arguments: Any, **named: Any) -> click.Context:  # noqa: ANN401
        """As click has it; --help and --version are answered in here."""
        return super().make_context(*arguments, **named)

    @_while_read()
    def invoke(self, ctx: click.Context) -> object:
        """As click has it."""
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in SUBCOMMANDS:
            return None
        module = importlib.import_module(f"pretake.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import version

    from reference_runtime.current import COMPILED

    how = "compiled" if COMPILED else "interpreted"
    click.echo(f"pretake {version('pretake')}, reference runtime {how}")
    ctx.exit()


@click.group(
    cls=_Subcommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version, and whether the reference runtime is compiled.",
)
def group() -> None:
    """Find out where the P time of a Go program goes.

    \b
    Examples:
      pretake demo
      sudo pretake record -o server.pretake --pid 4242 --seconds 30
      pretake summary server.pretake

    For example, a thread that blocks in a system call keeps its P until the runtime takes the P
    back, and goroutines that are queued on this P wait meanwhile. Pretake measures how much P time
    is lost in this way, and by page faults, CPU quotas and stop-the-worlds, and to which calls.

    A table that is wider than the terminal leaves out the least important columns (mostly the
    rightmost), and the line below the table names them. A number is never cut off.
    """


def _one_line(text: str) -> str:
    """The names of files and programs that a message has must not make it several lines."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


_MENDS = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room in its quota",
    errno.EMFILE: "allow more open files ('ulimit -n')",
}
_MEND = "see that this user may use it, or name another"


def _told(error: OSError) -> str:
    """An error of the system that no command expected, as one line."""
    name = error.filename
    what = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    reason = error.strerror or str(error) or "it cannot be read or written"
    return f"{what}{reason}: {_MENDS.get(error.errno or 0, _MEND)}"


_ASCII = {"µ": "u", "μ": "u", "→": "->", "–": "-", "−": "-", "≤": "<=", "≥": ">=", "…": "..."}
"""How our own signs are written in an encoding that has none for them: a unit stays one."""


def _without_sign(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_ASCII.get(c, "?") for c in error.object[error.start : error.end]), error.end


def _have_streams() -> None:
    """Give what was closed (``>&-``) somewhere to go: else the next file has its descriptor."""
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _print_any_text() -> None:
    """Print what the output's encoding has no bytes for: our signs, or a name that is no text."""
    codecs.register_error("pretake.without_sign", _without_sign)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pretake.without_sign")


def _drop_output() -> None:
    """What cannot be written goes nowhere: Python would complain once more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _end(status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(status)


def _fail(message: str) -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo(message, err=True)
    _end(EXIT_STATUS)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command; a user's mistake is one line on stderr and exit status 2."""
    # Hundreds of thousands of rows' objects live to the end of a command. To look through them for
    # cycles after each 700 new ones is a twentieth of the time of a summary.
    gc.set_threshold(100_000)
    _have_streams()
    _print_any_text()
    try:
        status = group.main(arguments, prog_name="pretake", standalone_mode=False)
        sys.stdout.flush()
    except PretakeError as error:
        _fail(_one_line(f"pretake: {error}"))
    except click.exceptions.NoArgsIsHelpError as error:
        _fail(error.format_message())
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        asked = context.command_path if context else "pretake"
        message = error.format_message().replace("\n", " ").rstrip(".")
        _fail(_one_line(f"{asked}: {message}: see '{asked} --help'"))
    except (click.Abort, KeyboardInterrupt):
        _end(130)
    except (_ReaderLeft, BrokenPipeError):
        # Nothing is wrong; but what is left to write can go nowhere.
        _drop_output()
        _end(0)
    except OSError as error:
        _fail(_one_line(f"pretake: {_told(error)}"))
    _end(status if isinstance(status, int) else 0)
