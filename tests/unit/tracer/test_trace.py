"""A trace on disk: what is written is read, and what is damaged is refused in one line."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.forced import KERNEL, lacking
from tests.unit.manifests import change_manifest
from tracer.errors import PretakeError
from tracer.trace.made_trace import write_trace
from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace, numbers_of
from tracer.trace.schema import SCHEMA_VERSION, TABLES, UNKNOWN
from tracer.trace.writer import TraceWriter

SWITCHES = {
    "sched_switch": {
        "ts_ns": [10, 20, 30],
        "prev_tid": [7, None, 8],
        "next_tid": [0, 7, 7],
        "cpu": [0, 1, None],
        "prev_state": ["blocked", None, "dead"],
    }
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pretake"


def test_a_trace_is_read_as_it_was_written(path: Path) -> None:
    frame = write_trace(path, SWITCHES).frame("sched_switch")
    assert frame["ts_ns"].dtype == np.int64
    assert frame["prev_tid"].dtype == pd.Int32Dtype()
    assert frame["cpu"].dtype == pd.Int16Dtype()
    assert frame["ts_ns"].tolist() == [10, 20, 30]
    assert frame["prev_tid"].tolist() == [7, pd.NA, 8]
    assert frame["cpu"].tolist() == [0, 1, pd.NA]
    words = ["preempted", "blocked", "dead", "stopped"]
    assert list(frame["prev_state"].cat.categories) == words
    assert frame["prev_state"].cat.codes.tolist() == [1, -1, 2]


def test_a_trace_is_read_where_nothing_made_dev_fd(path: Path) -> None:
    if os.geteuid() or shutil.which("unshare") is None:
        lacking("there is no root or no unshare", KERNEL)
    write_trace(path, SWITCHES)
    read = (
        "import sys; from tracer.trace.reader import Trace;"
        " print(Trace(sys.argv[1]).frame('sched_switch')['ts_ns'].tolist())"
    )
    script = 'mount -t tmpfs dev /dev && mknod /dev/urandom c 1 9 && exec "$@"'
    bare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    command = [*bare, sys.executable, "-c", read, str(path)]
    assert subprocess.check_output(command, text=True).strip() == "[10, 20, 30]"


def test_columns_that_are_not_given_are_null_or_zero(path: Path) -> None:
    trace = write_trace(path, {"block": {"ts_ns": [1]}, "task": {"ts_ns": [1]}})
    assert trace.arrow("block", ["tid", "p", "p_use"]).to_pylist() == [
        {"tid": 0, "p": None, "p_use": None}
    ]
    assert trace.arrow("task", ["comm", "kind"]).to_pylist() == [{"comm": "", "kind": "present"}]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_was_not_captured_is_empty_with_its_schema(path: Path, table: str) -> None:
    trace = write_trace(path, {})
    assert trace.arrow(table).schema == TABLES[table].arrow_schema
    assert trace.arrow(table).num_rows == 0
    assert list(trace.frame(table).columns) == [column.name for column in TABLES[table].columns]


def test_records_of_every_table_survive(path: Path) -> None:
    rng = np.random.default_rng(1)
    writer = TraceWriter(path)
    given = {}
    # Those with text of any length have no records.
    fixed = [t for t in TABLES.values() if not any(c.type == "text" for c in t.columns)]
    for table in fixed:
        records = np.zeros(1000, table.dtype)
        for column in table.columns:
            if column.type == "comm":
                records[column.name] = rng.choice([b"a", b"sixteen bytes!!!", b"\xff\xfe"], 1000)
            else:
                low = UNKNOWN if column.nullable else 0
                high = len(column.words) or np.iinfo(table.dtype[column.name]).max
                records[column.name] = rng.integers(low, high, 1000)
        given[table.name] = table.to_arrow(records)
        writer.write(table.name, given[table.name])
    writer.close(Manifest())
    trace = Trace(path)
    assert {name: trace.arrow(name).equals(rows) for name, rows in given.items()} == dict.fromkeys(
        given, True
    )
    assert {"block", "stack", "loss"} <= set(given)


def test_text_that_is_not_known_is_null(path: Path) -> None:
    functions = ["main.handle", None]
    trace = write_trace(path, {"address": {"pc": [1, 2], "pid": [7, 7], "function": functions}})
    assert trace.arrow("address").column("function").to_pylist() == functions
    told = trace.frame("address")["function"]
    assert told.isna().tolist() == [False, True]
    assert trace.frame("address")["file"].isna().all()


def test_rows_come_in_the_order_they_were_written_across_parts(path: Path) -> None:
    writer = TraceWriter(path, part_seconds=0)
    for begin in range(0, 40, 10):
        records = np.zeros(10, TABLES["sched_wakeup"].dtype)
        records["ts_ns"] = np.arange(begin, begin + 10)
        writer.write("sched_wakeup", TABLES["sched_wakeup"].to_arrow(records))
        writer.rotate()
    writer.close(Manifest())
    parts = sorted(entry.name for entry in (path / "sched_wakeup").iterdir())
    assert parts == [f"part-0000{n}.parquet" for n in range(4)]
    assert Trace(path).frame("sched_wakeup", ["ts_ns"])["ts_ns"].tolist() == list(range(40))


def test_the_manifest_tells_rows_and_bytes(path: Path) -> None:
    manifest = write_trace(path, SWITCHES, {"command": ["a", "b"]}).manifest
    assert manifest.complete
    assert manifest.command == ["a", "b"]
    assert manifest.events["sched_switch"] == 3
    size = (path / "sched_switch" / "part-00000.parquet").stat().st_size
    assert manifest.capture.bytes == size
    assert manifest.capture.bytes_per_event == size / 3


def test_a_part_has_no_name_until_it_is_whole(path: Path) -> None:
    writer = TraceWriter(path)
    records = np.zeros(600_000, TABLES["sched_wakeup"].dtype)
    writer.write("sched_wakeup", TABLES["sched_wakeup"].to_arrow(records))
    assert list((path / "sched_wakeup").iterdir()) == []
    writer.rotate(now=True)
    assert [entry.name for entry in (path / "sched_wakeup").iterdir()] == ["part-00000.parquet"]
    # What a tracer that is killed here leaves is a trace that says it is not complete.
    trace = Trace(path)
    assert not trace.manifest.complete
    assert trace.arrow("sched_wakeup").num_rows == 600_000
    writer.close(Manifest())


def test_files_can_be_given_to_another_user(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    writer = TraceWriter(path, owner=(1234, 4321))
    writer.write("task", TABLES["task"].to_arrow(np.zeros(1, TABLES["task"].dtype)))
    writer.close(Manifest())
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (path, *path.rglob("*"))}
    assert owners == {(1234, 4321)}


def test_an_existing_folder_is_not_touched_without_force(path: Path) -> None:
    write_trace(path, SWITCHES)
    with pytest.raises(PretakeError, match="exists: choose another output or give --force"):
        TraceWriter(path)
    assert Trace(path).arrow("sched_switch").num_rows == 3


def test_force_replaces_a_trace_and_nothing_else(path: Path, tmp_path: Path) -> None:
    write_trace(path, SWITCHES)
    TraceWriter(path, force=True).close(Manifest())
    assert Trace(path).arrow("sched_switch").num_rows == 0
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    (tmp_path / "link").symlink_to(path)
    for other in (precious, tmp_path / "link"):
        with pytest.raises(PretakeError, match="is no trace, so --force does not replace it"):
            TraceWriter(other, force=True)
    assert (precious / "thesis.tex").read_text() == "years"
    assert Trace(path).manifest.complete


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(PretakeError, match="there is no folder"):
        TraceWriter(tmp_path / "nowhere" / "x.pretake")


def _no_folder(path: Path) -> None:
    shutil.rmtree(path)


def _a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def _no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _manifest_of_nothing(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


def _manifest_cut_short(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[:-20])


def _manifest_with_a_wrong_type(path: Path) -> None:
    change_manifest(path, events=["sched_switch"])


def _newer_schema(path: Path) -> None:
    change_manifest(path, schema_version=SCHEMA_VERSION + 1)


def _manifest_is_a_pipe(path: Path) -> None:
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")


def _part_missing(path: Path) -> None:
    (path / "sched_switch" / "part-00000.parquet").unlink()


def _part_cut_short(path: Path) -> None:
    part = path / "sched_switch" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-30])


def _part_empty(path: Path) -> None:
    (path / "sched_switch" / "part-00000.parquet").write_bytes(b"")


def _part_of_another_table(path: Path) -> None:
    rows = TABLES["task"].to_arrow(np.zeros(3, TABLES["task"].dtype))
    pq.write_table(rows, path / "sched_switch" / "part-00000.parquet")


def _part_from_elsewhere(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path / "sched_switch" / "part-00000.parquet")


def _part_with_more_rows(path: Path) -> None:
    records = np.zeros(4, TABLES["sched_switch"].dtype)
    rows = TABLES["sched_switch"].to_arrow(records)
    pq.write_table(rows, path / "sched_switch" / "part-00000.parquet")


def _part_is_a_link(path: Path) -> None:
    part = path / "sched_switch" / "part-00000.parquet"
    part.rename(path / "elsewhere")
    part.symlink_to(path / "elsewhere")


def _part_is_a_pipe(path: Path) -> None:
    (path / "sched_switch" / "part-00000.parquet").unlink()
    os.mkfifo(path / "sched_switch" / "part-00000.parquet")


def _part_with_a_strange_name(path: Path) -> None:
    part = path / "sched_switch" / "part-00000.parquet"
    part.rename(part.with_name("part-00007.parquet"))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (_no_folder, "does not exist"),
    (_a_file, "is no folder"),
    (_no_manifest, "is no trace: it has no manifest.json"),
    (_manifest_of_nothing, "is no trace: its manifest has no schema version"),
    (_manifest_cut_short, "is no trace: its manifest.json is not JSON"),
    (_manifest_with_a_wrong_type, "has a damaged manifest: events has the wrong type"),
    (_newer_schema, "open it with a newer pretake"),
    (_manifest_is_a_pipe, "is no trace: it is no regular file"),
    (_part_missing, "holds 0 rows and the manifest tells of 3"),
    (_part_cut_short, "is cut short or no Parquet file"),
    (_part_empty, "is cut short or no Parquet file"),
    (_part_of_another_table, "is no part of table sched_switch"),
    (_part_from_elsewhere, "is no part of table sched_switch"),
    (_part_with_more_rows, "holds 4 rows and the manifest tells of 3"),
    (_part_is_a_link, "it is a link"),
    (_part_is_a_pipe, "it is no regular file"),
    (_part_with_a_strange_name, "part-00000.parquet is missing"),
]


@pytest.mark.parametrize(
    ("damage", "message"), DAMAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_damage_is_one_line_with_a_mend(
    path: Path, damage: Callable[[Path], None], message: str
) -> None:
    write_trace(path, SWITCHES)
    damage(path)
    with pytest.raises(PretakeError, match=message) as caught:
        Trace(path)
    assert caught.value.mend
    assert "\n" not in str(caught.value)


def test_damage_inside_a_part_is_found_when_it_is_read(path: Path) -> None:
    write_trace(path, SWITCHES)
    part = path / "sched_switch" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[4:60] = bytes(56)
    part.write_bytes(data)
    with pytest.raises(PretakeError, match="is cut short or no Parquet file"):
        Trace(path).arrow("sched_switch")


def test_a_call_that_returned_minus_one_is_no_call_of_which_it_is_not_known(path: Path) -> None:
    """EPERM is 1: a column in which -1 is a value cannot have it for "not known"."""
    trace = write_trace(path, {"syscall": {"exit_ns": [5], "ret": [-1]}})
    assert trace.arrow("syscall", ["ret"]).to_pylist() == [{"ret": -1}]
    records = np.full(1, UNKNOWN, TABLES["syscall"].dtype)
    assert TABLES["syscall"].to_arrow(records).column("ret").to_pylist() == [-1]


def _older(path: Path) -> None:
    """Make of a trace's tables block and runtime what version 1 of the schema wrote."""
    for name in ("block", "runtime"):
        part = path / name / "part-00000.parquet"
        rows = pq.ParquetFile(part).read()
        later = [column.name for column in TABLES[name].columns if column.since > 1]
        pq.write_table(rows.drop_columns(later), part)
    change_manifest(path, schema_version=1)


def test_a_trace_of_an_older_version_lacks_columns_and_is_read(path: Path) -> None:
    rows = {"block": {"ts_ns": [5, 6], "p": [1, 2]}, "runtime": {"ts_ns": [7], "kind": ["run"]}}
    write_trace(path, rows)
    _older(path)
    trace = Trace(path)
    blocks = trace.arrow("block")
    assert blocks.schema == TABLES["block"].arrow_schema
    assert blocks.select(["ts_ns", "p", "address", "why"]).to_pylist() == [
        {"ts_ns": 5, "p": 1, "address": None, "why": "syscall"},
        {"ts_ns": 6, "p": 2, "address": None, "why": "syscall"},
    ]
    (group,) = trace.row_groups("runtime", "ts_ns")
    assert (group.begin_ns, group.end_ns) == (7, 7)
    read = trace.read_row_group("runtime", group, ["since_ns", "ts_ns", "kind"])
    assert read.to_pylist() == [{"since_ns": None, "ts_ns": 7, "kind": "run"}]
    assert trace.frame("block")["why"].tolist() == ["syscall", "syscall"]


def test_a_trace_of_this_version_has_all_columns(path: Path) -> None:
    write_trace(path, {"block": {"ts_ns": [5]}, "runtime": {"ts_ns": [7], "kind": ["run"]}})
    _older(path)
    change_manifest(path, schema_version=SCHEMA_VERSION)
    with pytest.raises(PretakeError, match="is no part of table block: it has other columns"):
        Trace(path)


def test_a_word_that_the_schema_does_not_have_is_refused(path: Path) -> None:
    write_trace(path, SWITCHES)
    table = TABLES["sched_switch"]
    columns = [
        pa.array([1, 2, 3], table.arrow_schema.field(c.name).type) for c in table.columns[:-1]
    ]
    words = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0], pa.int8()), ["hijacked"])
    pq.write_table(
        pa.Table.from_arrays([*columns, words], schema=table.arrow_schema),
        path / "sched_switch" / "part-00000.parquet",
    )
    with pytest.raises(PretakeError, match="is cut short or no Parquet file"):
        Trace(path).frame("sched_switch")


def test_a_full_disk_leaves_what_was_closed_before(path: Path) -> None:
    """The disk is a limit on the size of a file: the kernel refuses the write just the same."""
    writer = TraceWriter(path)
    table = TABLES["sched_wakeup"]
    records = np.zeros(100_000, table.dtype)
    records["ts_ns"] = np.random.default_rng(1).integers(0, 1 << 60, 100_000)
    writer.write("sched_wakeup", table.to_arrow(records))
    writer.rotate(now=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        writer.write("sched_wakeup", table.to_arrow(records))
        with pytest.raises(PretakeError, match="no room left on the disk") as caught:
            writer.close(Manifest())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    trace = Trace(path)
    assert trace.manifest.complete
    assert trace.manifest.error == caught.value.problem
    assert trace.arrow("sched_wakeup").num_rows == 100_000
    names = [entry.name for entry in (path / "sched_wakeup").iterdir()]
    assert names == ["part-00000.parquet"]


def test_a_filesystem_without_nameless_files_will_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def open_as_nfs(*args: object, **options: object) -> int:
        if int(args[1]) & os.O_TMPFILE == os.O_TMPFILE:  # type: ignore[call-overload]
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real_open(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_as_nfs)
    assert write_trace(path, SWITCHES).arrow("sched_switch").num_rows == 3
    assert {entry.name for entry in path.rglob("*")} == {
        "manifest.json",
        "sched_switch",
        "part-00000.parquet",
    }


VERSION_1 = {
    "sched_switch": "ts_ns prev_tid next_tid cpu prev_state",
    "sched_wakeup": "ts_ns tid waker_tid cpu target_cpu kind",
    "block": "ts_ns enter_ns goid arg0 tid p m runq global_runq npidle nmspinning stack_id nr cpu "
    "p_use",
    "syscall": "enter_ns exit_ns ret arg0 blocked_ns tid blocks nr cpu",
    "runtime": "ts_ns goid tid p m target_tid runq global_runq npidle nmspinning cpu kind reason",
    "signal": "ts_ns pc tid sender_tid errno interrupted_nr signo cpu kind",
    "task": "ts_ns tid pid parent_tid comm cpu kind",
    "loss": "begin_ns end_ns lost cpu table",
    "stack": "pc stack_id pid depth",
    "address": "function file pc pid line preemption",
}
"""Columns that traces of version 1 on people's disks have."""


@pytest.mark.parametrize("name", VERSION_1)
def test_no_column_is_asked_of_version_1_that_it_had_not(name: str) -> None:
    asked = [column.name for column in TABLES[name].columns if column.since == 1]
    assert set(asked) == set(VERSION_1[name].split())


def test_numbers_of_an_array_with_nulls_and_of_a_slice() -> None:
    values = pa.array([7, None, -3, 9, None], pa.int32())
    assert numbers_of(values, -1).tolist() == [7, -1, -3, 9, -1]
    assert numbers_of(values.slice(1, 3), -1).tolist() == [-1, -3, 9]
    assert numbers_of(values.slice(2, 2), -1).tolist() == [-3, 9]
    assert numbers_of(values.slice(4), -1).tolist() == [-1]
    assert numbers_of(pa.array([], pa.int8()), -1).tolist() == []
