"""Numbers that are none, or far too large: a line at the start, and never a run that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pretake.cli import SUBCOMMANDS, group, main
from pretake.prometheus import Server
from pretake.types import Number
from tests.unit.analysis.test_summary import ten_calls
from tracer.errors import PretakeError


def _options() -> Iterator[tuple[str, str]]:
    """Each option of each command that takes a number with a fraction."""
    context = click.Context(group)
    for name in SUBCOMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.types.FloatParamType):
                assert isinstance(option.type, Number), f"{name} {option.opts}"
                yield name, option.opts[-1]


@pytest.mark.parametrize(("command", "option"), list(_options()))
@pytest.mark.parametrize("number", ["nan", "inf", "1e308"])
def test_a_number_that_is_none_is_refused(
    command: str, option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, option, number])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line


def test_more_ps_than_memory_holds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "echo", "--rounds", "1", "--procs", "999999999"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "999999999 is no number of Ps" in line


def test_a_socket_whose_path_is_too_long_says_so() -> None:
    with pytest.raises(PretakeError, match=r"cannot be served: .*too long"):
        Server(Path("/tmp") / ("s" * 150))


@pytest.mark.parametrize(
    "words",
    [
        ["watch", "--memory", "9" * 5_000],
        ["watch", "--listen", "9" * 5_000],
        ["watch", "--when", f"lost_p > 20 % for {'9' * 5_000} s"],
        ["whatif", "nowhere", "--cpus", "99999999"],
        ["run", "echo", "--set", "procs=2"],
        ["run", "echo", "--set", "name=x"],
        ["run", "echo", "--seconds", "-1"],
        ["run", "echo", "--rounds", "0"],
        ["demo", "--procs", "0"],
        ["record", "--seconds", "-1", "--", "true"],
    ],
    ids=["memory", "listen", "when", "cpus", "procs", "name", "run", "rounds", "demo", "record"],
)
def test_what_python_makes_no_value_of_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Python reads no number of more than 4,300 digits."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pretake")


def test_pprof_takes_its_file_behind_an_equals_sign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.pb.gz"
    with pytest.raises(SystemExit) as end:
        main(["export", str(ten_calls().write(tmp_path).path), f"--pprof={file}"])
    assert (end.value.code, file.is_file()) == (0, True), capsys.readouterr().err


def test_a_missing_choice_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """click puts each on a line of its own, behind a tab."""
    with pytest.raises(SystemExit):
        main(["export", "x", "-o", "y"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "?" not in line
