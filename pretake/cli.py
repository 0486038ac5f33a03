"""The command ``pretake``: finds a subcommand's file, and turns errors into one line.

A subcommand is the file of its name in ``pretake/commands/``, with a click command ``command``.
It is imported when it is asked for, so that ``pretake record`` starts without pandas.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from tracer.errors import EXIT_STATUS, PretakeError

__all__ = ["main"]

# In the order in which a newcomer meets them; the help shows them so.
SUBCOMMANDS = {
    "demo": "Capture the reference runtime under several retake policies and compare them.",
    "doctor": "Tell what this machine can and cannot do, and the mend.",
    "record": "Capture a program into a trace.",
    "live": "P-retake latency and harm on a screen, while a program runs.",
    "summary": "The numbers of a trace.",
    "episodes": "Every system call that blocked with a P, one a line.",
    "callsites": "Which calls held Ps, the most harmful first.",
    "preemptions": "Who asked goroutines to stop, and whether they did.",
    "factors": "What P-retake latency goes with.",
    "advise": "Raw, normal or block, for each call site.",
    "whatif": "The run, replayed under other policies and on other machines.",
    "compare": "Many traces side by side, on a cluster if there is one.",
    "diff": "Two runs, and whether they differ by more than noise.",
    "report": "One HTML file, with pictures, that works offline.",
    "check": "Compare a trace with its rules, and with the runtime's own record.",
    "import": "What perf or Go recorded, as a trace.",
    "export": "A trace for Perfetto, spreadsheets and flame graphs.",
    "run": "Run a workload on the reference runtime.",
}


class _Subcommands(click.Group):
    """A group whose commands are imported one at a time."""

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
    epilog="Start with: pretake demo",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Tell the version, and whether the reference runtime is compiled.",
)
def group() -> None:
    """Measure P-retake latency.

    How long does a thread that blocked in a system call keep its P, and what does that cost the
    goroutines that wait?
    """


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.exit(status)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command; a user's mistake is one line on stderr and exit status 2."""
    try:
        status = group.main(arguments, prog_name="pretake", standalone_mode=False)
    except PretakeError as error:
        click.echo(f"pretake: {error}", err=True)
        _end(EXIT_STATUS)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        _end(EXIT_STATUS)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        asked = context.command_path if context else "pretake"
        message = error.format_message().replace("\n", " ").rstrip(".")
        click.echo(f"{asked}: {message}: see '{asked} --help'", err=True)
        _end(EXIT_STATUS)
    except (click.Abort, KeyboardInterrupt):
        _end(130)
    except BrokenPipeError:
        # The reader of our output (a pager, head) left; nothing is wrong. Python would
        # complain once more when it flushes stdout at exit, so stdout goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end(0)
    _end(status if isinstance(status, int) else 0)
