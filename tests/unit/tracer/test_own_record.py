"""A runtime's own record as rows of a trace: hand-made, and damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.errors import PretakeError
from tracer.trace.own_record import read_own_record
from tracer.trace.schema import TABLES

ROW = {
    "ts_ns": 50,
    "enter_ns": 10,
    "p": 0,
    "tid": 7,
    "goid": 1,
    "reason": "sysmon",
    "taker_tid": 9,
}
RAN = {"run_ns": 60, "run_tid": 8, "run_goid": 2}


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("record")
    yield fd
    os.close(fd)


def switches(*rows: tuple[int, int, str | None]) -> pa.Table:
    """Rows of table sched_switch: when, who left the CPU, why."""
    table = TABLES["sched_switch"]
    records = [
        (at, tid, -1, 0, -1 if why is None else table.column("prev_state").code(why))
        for at, tid, why in rows
    ]
    return table.to_arrow(np.array(records, table.dtype))


def test_a_block_is_the_first_switch_of_the_thread_that_blocked_in_the_call(fd: int) -> None:
    rows = [
        ROW | RAN,
        # Taken while it waited for a CPU: it had not blocked.
        ROW | {"ts_ns": 150, "enter_ns": 110},
        ROW | {"ts_ns": 250, "enter_ns": 210, "tid": 5, "goid": 3, "reason": "no word"},
    ]
    os.write(fd, "".join(json.dumps(row) + "\n" for row in rows).encode())
    record = read_own_record(fd)
    assert len(record) == 3
    pieces = [
        # Of several rings, so in no order; and before the call, of others, no block.
        switches((45, 7, "blocked"), (220, 5, "blocked"), (9, 7, "blocked"), (12, 7, "preempted")),
        switches((30, 7, "blocked"), (11, 5, "blocked"), (13, 7, None), (151, 7, "blocked")),
    ]
    blocks = record.block_rows(pieces).to_pylist()
    told = [(b["ts_ns"], b["enter_ns"], b["tid"], b["goid"], b["p"], b["p_use"]) for b in blocks]
    assert told == [(30, 10, 7, 1, 0, "syscall"), (220, 210, 5, 3, 0, "syscall")]
    for unknown in ("nr", "arg0", "runq", "npidle", "stack_id", "m"):
        assert {block[unknown] for block in blocks} == {None}
    runtime = record.runtime_rows().to_pylist()
    names = ("ts_ns", "kind", "tid", "p", "target_tid", "goid", "reason")
    assert [tuple(row[name] for name in names) for row in runtime] == [
        (50, "retake", 9, 0, 7, 1, "sysmon"),
        (60, "run", 8, 0, None, 2, None),
        (150, "retake", 9, 0, 7, 1, "sysmon"),
        (250, "retake", 9, 0, 5, 3, None),
    ]


def test_no_record_is_an_empty_one(fd: int) -> None:
    record = read_own_record(fd)
    assert len(record) == 0
    assert record.runtime_rows().num_rows == record.block_rows([]).num_rows == 0


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(ROW)[:-5],
        json.dumps(ROW | {"tid": None}),
        json.dumps(ROW | {"tid": 1 << 40}),
        json.dumps(ROW | {"ts_ns": "soon"}),
        json.dumps({"p": 0}),
        "[1, 2]",
        "\x00",
    ],
)
def test_what_is_no_record_is_refused(fd: int, line: str) -> None:
    os.write(fd, f"{json.dumps(ROW)}\n{line}\n".encode())
    with pytest.raises(PretakeError, match="damaged"):
        read_own_record(fd)


VALUES = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
OBJECTS = st.dictionaries(st.sampled_from([*ROW, *RAN, "more"]), VALUES).map(lambda row: ROW | row)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    # The first text of all has its table of characters made, which takes a second in a new clone.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary() | st.lists(OBJECTS).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()))
def test_anything_is_read_or_refused(fd: int, content: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)
    try:
        record = read_own_record(fd)
    except PretakeError:
        return
    assert record.runtime_rows().num_rows >= len(record)
