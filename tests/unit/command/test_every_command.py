"""Every command, in every form of output, over the shelf of odd traces.

The commands and their forms are read off the click tree, so that a new command or option is in
it by itself: a command that takes traces gets one, and each of its flags, choices and files
makes a form of output. It answers (status 0, or 1 for a verdict), or says in one line what to do
(status 2).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest

from analysis.units import duration_text
from pretake.cli import group, main
from tests.unit.command.shelf import SHELF

TAKES_NO_TRACE = {
    "demo": "runs captures of its own",
    "doctor": "is about the machine",
    "record": "makes a trace",
    "live": "shows a program while it runs",
    "watch": "watches programs that run",
    "run": "runs a workload",
    "import": "reads what other tools wrote",
    "bench": "makes traces",
}
_TRACE_ARGUMENTS = {"trace", "traces", "places", "baseline"}
_REFUSED = {"cut_short", "damaged", "no_trace", "out_of_range"}
"""Of the shelf: those whose tables cannot be read, so that there is no answer."""
_BESIDE_ITSELF = {"empty", "busy", "unknown_latency"}
"""Of the shelf: those that are also given twice to what takes several."""
_REFUSED_BY_SOME = {"damaged"}
"""Of these: what does not read the damaged table may answer."""


def _commands() -> dict[str, click.Command]:
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def _forms(command: click.Command) -> Iterator[list[str]]:
    """The options of each form of output; ``FILE`` stands for a file that is not there yet."""
    needed: list[str] = []
    optional: list[list[str]] = [[]]
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        name = option.opts[-1]
        if isinstance(option.type, click.Path):
            if option.required:
                needed += [name, "FILE"]
            elif name != "--witness":
                optional.append([name, "FILE"])
        elif isinstance(option.type, click.Choice):
            optional += [[name, choice] for choice in option.type.choices]
            if option.required:
                optional.remove([])
        elif option.is_flag and name != "--force":
            optional.append([name])
    choices = [
        [option.opts[-1], choice]
        for option in command.params
        if isinstance(option.type, click.Choice) and isinstance(option, click.Option)
        if not option.required
        for choice in option.type.choices
    ]
    for form in optional:
        required = [o for o in command.params if isinstance(o, click.Option) and o.required]
        named = {o.opts[-1] for o in required if isinstance(o.type, click.Choice)}
        if named and (not form or form[0] not in named):
            continue
        yield [*form, *needed]
        if named:
            yield from ([*form, *choice, *needed] for choice in choices)


def _given(command: click.Command, trace: Path, several: bool) -> Iterator[list[str]]:
    """The arguments to call it with: the trace; beside itself where it takes more than one."""
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    assert all(argument.name in _TRACE_ARGUMENTS for argument in arguments)
    many = any(argument.nargs == -1 for argument in arguments)
    if command.name == "diff":
        yield [str(trace), str(trace)]
    else:
        yield [str(trace)] * len(arguments)
        if several and many:
            yield [str(trace), str(trace)]
    if several and any(option.name == "a_side" for option in command.params):
        # Several runs a side, in the two ways to say so.
        yield ["--a", str(trace), str(trace), "--b", str(trace), "--b", str(trace)]


CALLS = [
    pytest.param(name, form, id=" ".join([name, *form]))
    for name, command in _commands().items()
    if name not in TAKES_NO_TRACE
    for form in _forms(command)
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in SHELF.items()}


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command as its user does: exit status, stdout, stderr."""

    def run(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        said = capsysbinary.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out.decode(), said.err.decode()

    return run


def test_each_command_takes_traces_or_is_known_not_to() -> None:
    for name, command in _commands().items():
        arguments = {p.name for p in command.params if isinstance(p, click.Argument)}
        assert (name in TAKES_NO_TRACE) != bool(arguments & _TRACE_ARGUMENTS), name


@pytest.mark.parametrize(("name", "form"), CALLS)
def test_it_answers_or_says_what_to_do_in_one_line(
    name: str, form: list[str], shelf: dict[str, Path], call: Call, tmp_path: Path
) -> None:
    command = _commands()[name]
    for odd, trace in shelf.items():
        for number, given in enumerate(_given(command, trace, odd in _BESIDE_ITSELF)):
            out = tmp_path / f"{odd}-{number}"
            options = [str(out) if word == "FILE" else word for word in form]
            status, said, complaint = call(name, *given, *options)
            where = f"{name} {form} of {odd}: {status}\n{said}\n{complaint}"
            if odd in _REFUSED and odd not in _REFUSED_BY_SOME:
                assert status == 2, where
            if status == 2:
                (line,) = complaint.splitlines()
                assert line.startswith("pretake"), where
                assert not out.exists(), where
                continue
            assert status == 0 or (status == 1 and name in ("check", "diff")), where
            assert "Traceback" not in complaint, where
            if "--json" in form:
                _is_json(said)
            elif "json" in form:
                _is_json(out.read_text())
            elif not {"--folded", "--flame", "--to"} & set(form):
                _fits_a_terminal(said, where)
            if "FILE" in form:
                assert out.is_file(), where


def _is_json(text: str) -> None:
    """One document, or one object a line; JSON proper, which has no NaN."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line, parse_constant=refuse)


_CUT_OFF = re.compile(r"\d (?:n|µ|m|Ki|Mi|Gi)(?:\s|$)")


def _fits_a_terminal(text: str, where: str, columns: int = 80) -> None:
    assert "\x1b" not in text, where
    assert not _CUT_OFF.search(text), where
    assert "…" not in text, where
    for line in text.splitlines():
        assert len(line) <= columns, f"{line!r}: {where}"


@pytest.mark.parametrize("columns", [60, 45])
@pytest.mark.parametrize("name", [n for n in _commands() if n not in TAKES_NO_TRACE])
def test_a_narrow_terminal_gets_fewer_columns_and_whole_numbers(
    name: str, columns: int, shelf: dict[str, Path], call: Call
) -> None:
    command = _commands()[name]
    if any(option.required for option in command.params if isinstance(option, click.Option)):
        pytest.skip("writes a file and no table")
    shown = set()
    for odd in sorted(_BESIDE_ITSELF):
        for given in _given(command, shelf[odd], True):
            status, said, _ = call(name, *given, columns=columns)
            if status != 2:
                shown.add(odd)
                _fits_a_terminal(said, f"{name} of {odd}:\n{said}", columns)
    assert "busy" in shown


@pytest.mark.parametrize("odd", [name for name in SHELF if name not in _REFUSED])
def test_the_forms_of_output_agree(
    odd: str, shelf: dict[str, Path], call: Call, tmp_path: Path
) -> None:
    """One trace's numbers are the same wherever they stand."""
    trace = str(shelf[odd])

    def lines(*command: str) -> list[dict[str, Any]]:
        status, said, complaint = call(*command, trace, "--json")
        assert status == 0, complaint
        return [json.loads(line) for line in said.splitlines()]

    def exported(form: str, table: str) -> Path:
        path = tmp_path / f"{table}.{form}"
        assert call("export", trace, "--to", form, "--table", table, "-o", str(path))[0] == 0
        return path

    episodes = lines("episodes")
    as_json = exported("json", "episodes").read_text().splitlines()
    assert [json.loads(line) for line in as_json] == episodes
    assert pq.read_table(exported("parquet", "episodes")).to_pylist() == episodes
    as_csv = list(csv.DictReader(io.StringIO(exported("csv", "episodes").read_text())))
    assert [_texts(row) for row in episodes] == as_csv

    summary = json.loads(call("summary", trace, "--json")[1])
    trusted = [row for row in episodes if not row["lost_overlap"]]
    assert summary["episodes"] == len(episodes)
    assert summary["untrusted"] == len(episodes) - len(trusted)
    for what in ("hold_ns", "harm_ns"):
        known = [row[what] for row in trusted if row[what] is not None]
        assert summary[what]["sum"] == (sum(known) if known else None)
        assert summary[what]["unknown"] == len(trusted) - len(known)
    assert sum(site["episodes"] for site in lines("callsites")) == len(trusted)
    (compared,) = lines("compare")
    for figure in ("p50", "p90", "p99"):
        assert compared[f"retake_{figure}_ns"] == summary["retake_ns"][figure]
    if compared["harm_sum_ns"] is not None:
        assert compared["harm_sum_ns"] == summary["harm_ns"]["sum"]

    said = call("summary", trace, columns=200)[1]
    if summary["p_known"]:
        assert duration_text(summary["retake_ns"]["p50"]) in said
        assert duration_text(summary["hold_ns"]["max"]) in said
    shown = call("episodes", trace, columns=200)[1]
    assert not episodes or shown.startswith(f"{len(episodes):,} episodes")
    page = tmp_path / "report.html"
    assert call("report", trace, "-o", str(page))[0] == 0
    told = page.read_text()
    assert duration_text(summary["retake_ns"]["p50"]) in told
    assert duration_text(summary["harm_ns"]["sum"]) in told


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in row.items()}


def test_go_is_asked_what_it_could_have_and_the_reference_runtime_everything(
    shelf: dict[str, Path], call: Call
) -> None:
    def replayed(odd: str) -> list[tuple[str, int, int]]:
        lines = call("whatif", str(shelf[odd]), "--json")[1].splitlines()
        rows = [json.loads(line) for line in lines]
        assert rows[0]["source"] == "captured"
        return [(row["policy"], row["procs"], row["cpus"]) for row in rows[1:]]

    of_go = replayed("busy")
    policies = [policy for policy, _, _ in of_go]
    assert "block" in policies
    assert not {"ums", "upcall", "integrated", "oracle"} & set(policies)
    # One P more, and one CPU more, under Go's own policy.
    _, procs, cpus = of_go[0]
    assert of_go[-2:] == [("sysmon", procs + 1, cpus), ("sysmon", procs, cpus + 1)]
    assert {"ums", "upcall", "integrated", "oracle"} <= {
        policy for policy, _, _ in replayed("unknown_policy")
    }
