"""The last seconds of a watch: how long they are, and how much memory they take."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.head import Head
from tracer.capture.window import Slice, Window
from tracer.trace.schema import TABLES, UNKNOWN

SECOND = 1_000_000_000
SWITCH = TABLES["sched_switch"].dtype


def switches(count: int, ts_ns: int = 0) -> np.ndarray:
    records = np.zeros(count, SWITCH)
    records["ts_ns"] = ts_ns + np.arange(count)
    return records


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3 * SECOND),  # how much later
        st.integers(0, 60),  # records
        st.booleans(),  # whether time goes on without any
    ),
    max_size=25,
)


@given(STEPS, st.integers(1, 5), st.integers(1, 400))
def test_all_of_the_window_is_there_and_no_more_than_the_memory(
    steps: list[tuple[int, int, bool]], span_s: int, limit_records: int
) -> None:
    limit = limit_records * SWITCH.itemsize
    gone: list[Slice] = []
    window = Window(span_s * SECOND, limit, 0, gone.append)
    now_ns, sent, begins = 0, 0, [0]
    came: list[tuple[int, int]] = []
    for later_ns, count, silent in steps:
        now_ns += later_ns
        if not silent:
            came_now = switches(count, sent)
            window.add("sched_switch", [came_now[: count // 3], came_now[count // 3 :]], now_ns)
            came += [(now_ns, sent + n) for n in range(count)]
            sent += count
            # A piece that is larger than the limit is kept alone, until the next one comes.
            assert not count or window.nbytes <= max(limit, count * SWITCH.itemsize)
        window.step(now_ns)
        begins.append(window.begin_ns)
        # Not shortened: then it is as long as was asked, or as there was time.
        if not window.cut:
            assert window.begin_ns <= max(now_ns - span_s * SECOND, 0)
    assert begins == sorted(begins)
    begin_ns = window.begin_ns
    slices = window.slices(now_ns)
    here = [t for s in slices for r in s.records.values() for t in r["ts_ns"].tolist()]
    there = [t for s in gone for r in s.records.values() for t in r["ts_ns"].tolist()]
    # In order, none twice, none lost; and all that came since the window's begin is in it.
    assert there + here == list(range(sent))
    assert {number for at_ns, number in came if at_ns > begin_ns} <= set(here)
    assert window.nbytes == len(here) * SWITCH.itemsize
    # It lets go of what is older by more than a slice.
    if slices:
        assert slices[0].end_ns >= now_ns - span_s * SECOND


def test_pieces_are_joined_when_they_are_asked_for_and_not_before() -> None:
    """The copy of each piece is the window's only one, and the ring may be written meanwhile."""
    window = Window(SECOND, 1 << 20, 0, lambda _: None)
    ring = switches(6)
    first = window.add("sched_switch", [ring[:2], ring[2:4]], 1)
    second = window.add("sched_switch", [ring[4:]], 2)
    ring["ts_ns"] = -5
    (kept,) = window.slices(3)
    assert len(kept.records) == 1
    assert "block" not in kept.records
    whole = kept.records["sched_switch"]
    assert whole["ts_ns"].tolist() == list(range(6))
    assert kept.records["sched_switch"] is whole
    assert not any(np.shares_memory(ring, copy) for copy in (first, second, whole))
    # Who had a piece before has it still.
    assert (first["ts_ns"].tolist(), second["ts_ns"].tolist()) == ([0, 1, 2, 3], [4, 5])


def test_what_is_old_is_compressed_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten slices of 2 s with 100 records each, of which two stay as they came."""
    monkeypatch.setattr("tracer.capture.window._LOOSE_BYTES", 200 * SWITCH.itemsize)
    gone: list[Slice] = []
    window = Window(100 * SECOND, 1 << 20, 0, gone.append)
    for second in range(10):
        window.add("sched_switch", [switches(100, 100 * second)], 2 * second * SECOND + 1)
        window.step(2 * (second + 1) * SECOND)
    sizes = [piece.nbytes for piece in window.slices(20 * SECOND)]
    assert sizes[-3:] == [2400, 2400, 0]
    assert len(sizes) == 11
    assert max(sizes[:8]) < 1200
    assert window.nbytes == sum(sizes)
    told = [
        number
        for piece in window.slices(20 * SECOND)
        if "sched_switch" in piece.records
        for number in piece.records["sched_switch"]["ts_ns"].tolist()
    ]
    assert told == list(range(1000))
    window.step(106 * SECOND)
    # Those went that ended before 6 s: with what they took, and as they were.
    assert [piece.records["sched_switch"]["ts_ns"][0] for piece in gone] == [0, 100]
    assert window.nbytes == sum(sizes[2:])
    window.step(1000 * SECOND)
    assert window.nbytes == 0


@pytest.mark.parametrize("limit", [10, 35, 1000])
def test_memory_is_for_what_is_compressed_too(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr("tracer.capture.window._LOOSE_BYTES", 64)
    window = Window(1000 * SECOND, limit * SWITCH.itemsize, 0, lambda _: None)
    for second in range(1, 40):
        window.add("sched_switch", [switches(10, 10 * second)], second * SECOND)
        window.step(second * SECOND)
        assert window.nbytes <= limit * SWITCH.itemsize
        kept = window.slices(second * SECOND)
        assert window.nbytes == sum(piece.nbytes for piece in kept)
        numbers = [n for s in kept for r in s.records.values() for n in r["ts_ns"].tolist()]
        # Up to the last one without a gap.
        assert numbers == list(range(10 * second + 10 - len(numbers), 10 * second + 10))


def test_what_a_dump_waits_for_is_kept_beyond_its_age() -> None:
    window = Window(2 * SECOND, 1 << 20, 0, lambda _: None)
    window.add("sched_switch", [switches(1)], SECOND // 2)
    window.keep_ns = 0
    for second in range(1, 10):
        window.step(second * SECOND)
    assert window.begin_ns == 0
    window.keep_ns = None
    window.step(10 * SECOND)
    assert window.begin_ns > 0


def test_for_want_of_memory_the_window_is_shorter_and_says_so() -> None:
    piece = switches(10)
    window = Window(100 * SECOND, 5 * piece.nbytes, 0, lambda _: None)
    for second in range(1, 9):
        window.add("sched_switch", [piece], second * SECOND)
        window.step(second * SECOND)
    assert window.cut
    assert window.nbytes <= 5 * piece.nbytes
    assert 3 * SECOND <= window.begin_ns <= 4 * SECOND + 8


def test_rows_with_texts_go_with_the_others() -> None:
    schema = TABLES["throttle"].arrow_schema
    rows = pa.Table.from_pylist(
        [{"begin_ns": 0, "end_ns": 5, "throttled_ns": 0, "cgroup": "/a", "pid": 7}], schema
    )
    window = Window(SECOND, 1 << 20, 0, lambda _: None)
    window.add_table("throttle", rows, 10)
    (kept,) = window.slices(20)
    assert kept.tables["throttle"].to_pylist()[0]["cgroup"] == "/a"
    assert window.nbytes == rows.nbytes


def tasks(*rows: tuple[int, str, int, int, int]) -> np.ndarray:
    """Time, kind, tid, pid, generation."""
    table = TABLES["task"]
    records = np.zeros(len(rows), table.dtype)
    for record, (ts_ns, kind, tid, pid, generation) in zip(records, rows, strict=True):
        record["ts_ns"], record["tid"], record["pid"] = ts_ns, tid, pid
        record["generation"] = generation
        record["kind"] = table.column("kind").code(kind)
        record["comm"] = f"{kind}{tid}".encode()
    return records


def pstates(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """Time, since, pid, P."""
    records = np.zeros(len(rows), TABLES["pstate"].dtype)
    for record, (ts_ns, since_ns, pid, p) in zip(records, rows, strict=True):
        record["ts_ns"], record["since_ns"], record["pid"], record["p"] = ts_ns, since_ns, pid, p
        record["status"] = 1
    return records


def living(head: Head) -> list[tuple[int, int, int]]:
    rows = head.rows(1000, {})["task"]
    return [(int(r["tid"]), int(r["pid"]), int(r["generation"])) for r in rows]


def test_the_head_has_who_lives() -> None:
    head = Head()
    head.take({"task": tasks((1, "present", 7, 7, 0), (1, "present", 8, 7, 0))})
    head.take({"task": tasks((2, "fork", 9, 7, 0), (3, "exit", 8, 7, 0), (4, "fork", 20, 20, 0))})
    assert living(head) == [(7, 7, 0), (9, 7, 0), (20, 20, 0)]
    # Thread 9 execs: it is 7 from then on, and the exit of none is told.
    earlier = head.copy()
    head.take({"task": tasks((5, "exec", 7, 7, 1))})
    assert living(head) == [(20, 20, 0), (7, 7, 1)]
    assert living(earlier) == [(7, 7, 0), (9, 7, 0), (20, 20, 0)]
    first = head.rows(1000, {})["task"][0]
    assert (first["ts_ns"], first["parent_tid"], first["cpu"]) == (1000, UNKNOWN, UNKNOWN)
    assert first["comm"] == b"fork20"


def test_the_head_has_the_last_row_of_each_p() -> None:
    head = Head()
    head.take({"task": tasks((1, "present", 7, 7, 0))})
    head.take({"pstate": pstates((10, 5, 7, 0), (20, 15, 7, 1), (30, 25, 7, 0), (40, 1, 9, 0))})
    rows = head.rows(1000, {})["pstate"]
    # Process 9 is none that lives.
    assert [(r["ts_ns"], r["since_ns"], r["p"]) for r in rows] == [(1000, -1, 1), (1000, -1, 0)]
    head.take({"task": tasks((50, "exit", 7, 7, 0))})
    assert not len(head.ps)


@pytest.mark.parametrize(("since_ns", "known"), [(999, False), (1000, True), (UNKNOWN, True)])
def test_a_p_that_changed_about_the_begin_is_not_known_there(since_ns: int, known: bool) -> None:
    head = Head()
    head.take({"task": tasks((1, "present", 7, 7, 0)), "pstate": pstates((10, 5, 7, 0))})
    later = pstates((1010, since_ns, 7, 0), (1020, 1015, 7, 0))
    assert len(head.rows(1000, {"pstate": later})["pstate"]) == known
