"""How a command ends where its streams or files are not to be had: in one line, or in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pretake.cli import main
from tests.unit.analysis.test_summary import ten_calls
from tests.unit.command.shelf import busy_server

PRETAKE = [sys.executable, "-m", "pretake"]
BY_CLICK = ["--help"]
BY_RICH = ["run", "echo", "--rounds", "1"]


def _one_line(complaint: str) -> str:
    (line,) = complaint.splitlines()
    assert line.startswith("pretake")
    return line


@pytest.mark.parametrize("arguments", [BY_CLICK, BY_RICH])
def test_a_reader_that_leaves_is_no_fault(arguments: list[str]) -> None:
    """Status 1 is that of a broken rule ('pretake check x | head' in a shell with pipefail)."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PRETAKE, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [BY_CLICK, BY_RICH])
def test_a_full_disk_below_the_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PRETAKE, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "No space left on device" in _one_line(done.stderr)


@pytest.mark.parametrize("arguments", [BY_CLICK, BY_RICH])
def test_a_closed_output_is_nobody_who_reads(arguments: list[str]) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *PRETAKE, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("redirected", [">&- 2>&-", "2>/dev/full"])
def test_a_complaint_that_nobody_reads_keeps_its_status(redirected: str) -> None:
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", *PRETAKE, "summary", "/nowhere"]
    assert subprocess.run(command, check=False).returncode == 2


@pytest.mark.parametrize(
    "name", ["a" * 300, "a/" * 3_000, "two\nlines", "\x1b[31mred", "\udcff"], ids=range(5)
)
@pytest.mark.parametrize("command", ["summary {}", "report {trace} -o {}", "import {} -o {}"])
def test_a_name_that_no_file_has_is_one_line(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = str(ten_calls().write(tmp_path).path)
    missing = str(tmp_path / "no folder" / name)
    words = [word.format(missing, trace=trace) for word in command.split()]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    line = _one_line(capsys.readouterr().err)
    assert line.isprintable()


def test_an_output_without_a_name_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = str(ten_calls().write(tmp_path).path)
    with pytest.raises(SystemExit) as end:
        main(["export", trace, "--to", "folded", "--force", "-o", ""])
    assert end.value.code == 2
    assert "no file name" in _one_line(capsys.readouterr().err)


def test_a_witness_is_a_file_and_no_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who opens a pipe waits for its other end, for ever."""
    trace = str(ten_calls().write(tmp_path).path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for words in (
        ["check", trace, "--witness", str(pipe)],
        ["run", "echo", "--rounds", "1", "--witness", str(pipe)],
        ["run", "echo", "--rounds", "1", "--witness", str(tmp_path)],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        _one_line(capsys.readouterr().err)


def test_a_run_that_fails_leaves_no_witness(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["run", "no such workload", "--witness", str(tmp_path / "witness")])
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("statistics", [True, False])
def test_times_before_the_machine_began_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statistics: bool
) -> None:
    """As a damaged trace has them: 'summary' found nothing wrong in it."""
    trace = busy_server(calls=10).write(tmp_path).path
    for part in trace.glob("*/*.parquet"):
        rows = pq.read_table(part)
        for number, name in enumerate(rows.column_names):
            if name.endswith("_ns") and name != "blocked_ns":
                field = rows.schema.field(name)
                earlier = pc.subtract(rows.column(name), 1 << 40).cast(field.type)
                rows = rows.set_column(number, field, earlier)
        pq.write_table(rows, part, write_statistics=statistics)
    for words in (
        ["summary", str(trace)],
        ["budget", str(trace)],
        ["report", str(trace), "-o", str(tmp_path / "o.html")],
        ["export", str(trace), "--to", "perfetto", "-o", str(tmp_path / "o")],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        assert "before the machine began" in _one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("encoding", "unit"), [("ascii", b"us"), ("latin-1", "µs".encode("latin-1"))]
)
@pytest.mark.parametrize("view", ["summary", "callsites", "compare"])
def test_an_encoding_without_our_signs_keeps_the_unit(
    tmp_path: Path, view: str, encoding: str, unit: bytes
) -> None:
    trace = busy_server(calls=10).write(tmp_path).path
    done = subprocess.run(
        [*PRETAKE, view, trace],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert unit in done.stdout
    assert "µs".encode() not in done.stdout


def test_a_trace_whose_name_is_no_text_is_shown_as_any_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = busy_server(calls=10).write(tmp_path).path
    named = trace.rename(os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme.pretake"))
    for words in (
        ["summary", str(named)],
        ["compare", str(named)],
        ["compare", "--json", str(named)],
        ["fleet", str(tmp_path)],
        ["report", str(named), "-o", str(named.with_suffix(".html"))],
        ["export", str(named), "--to", "csv", "-o", str(named.with_suffix(".csv"))],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        told = capfd.readouterr()
        assert (end.value.code, "Traceback" in told.err) == (0, False)
    with pytest.raises(SystemExit):
        main(["compare", str(named)])
    assert "na?me" in capfd.readouterr().out
