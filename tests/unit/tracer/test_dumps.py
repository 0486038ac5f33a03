"""Dumps of a watch: what is in one, when one is written, and which go. Rows are made by hand."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.tracer.test_window import pstates, switches, tasks
from tracer.capture.binaries import Binaries
from tracer.capture.dumps import Dumps
from tracer.capture.frozen import Frozen
from tracer.capture.head import Head
from tracer.capture.images import Images
from tracer.capture.reach import reach_table
from tracer.capture.recorder import Recorder
from tracer.capture.symbols import Symbols
from tracer.capture.watch import LATE_NS
from tracer.capture.window import Slice, Window
from tracer.errors import PretakeError
from tracer.trace.clock import Moment
from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

SECOND = 1_000_000_000


def losses(*rows: tuple[int, int, int]) -> np.ndarray:
    """Begin, end, how many switches."""
    table = TABLES["loss"]
    records = np.zeros(len(rows), table.dtype)
    for record, (begin_ns, end_ns, lost) in zip(records, rows, strict=True):
        record["begin_ns"], record["end_ns"], record["lost"] = begin_ns, end_ns, lost
        record["table"] = table.column("table").code("sched_switch")
    return records


def throttled(*rows: tuple[int, int, int]) -> pa.Table:
    """Begin, end, time without a CPU."""
    return pa.Table.from_pylist(
        [
            {"begin_ns": b, "end_ns": e, "throttled_ns": ns, "cgroup": "/a", "pid": 7}
            for b, e, ns in rows
        ],
        TABLES["throttle"].arrow_schema,
    )


def frozen(begin_ns: int, end_ns: int, slices: list[Slice], head: Head | None = None) -> Frozen:
    manifest = Manifest()
    manifest.begins(Moment(begin_ns, begin_ns))
    manifest.ends(Moment(end_ns, end_ns))
    symbols = Symbols(Images(), Binaries())
    reach = reach_table(())
    return Frozen(begin_ns, end_ns, slices, head or Head(), {}, reach, symbols, manifest)


def test_a_dump_is_the_trace_of_its_span(tmp_path: Path) -> None:
    head = Head()
    head.take({"task": tasks((1, "present", 7, 7, 0)), "pstate": pstates((10, 5, 7, 0))})
    records = {
        # Two came late, from before the begin: a thread, and the state of another P.
        "task": tasks((900, "fork", 8, 7, 0), (1500, "fork", 9, 7, 0)),
        "pstate": pstates((950, 940, 7, 1), (1600, 980, 7, 1), (2600, 2500, 7, 0)),
        "sched_switch": np.concatenate([switches(2, 998), switches(3, 1000), switches(2, 1999)]),
        "loss": losses((500, 1100, 4), (100, 200, 9)),
    }
    idle_and_not = throttled((0, 1200, 0), (900, 1100, 5), (1100, 1300, 6), (1300, 5000, 0))
    piece = Slice(1000, 3000, records, {"throttle": idle_and_not}, 0)
    told = frozen(1000, 2000, [piece], head).write(tmp_path / "d.pretake")
    trace = Trace(tmp_path / "d.pretake")
    assert trace.manifest.complete
    assert trace.arrow("task", ["ts_ns", "tid", "kind"]).to_pylist() == [
        {"ts_ns": 1000, "tid": 7, "kind": "present"},
        {"ts_ns": 1000, "tid": 8, "kind": "present"},
        {"ts_ns": 1500, "tid": 9, "kind": "fork"},
    ]
    # P 1 changed about the begin, so nobody knows what it was there; and its first look has no
    # look before it.
    assert trace.arrow("pstate", ["ts_ns", "since_ns", "p"]).to_pylist() == [
        {"ts_ns": 1000, "since_ns": None, "p": 0},
        {"ts_ns": 1600, "since_ns": None, "p": 1},
    ]
    assert trace.arrow("sched_switch")["ts_ns"].to_pylist() == [1000, 1001, 1002, 1999, 2000]
    assert trace.arrow("loss", ["begin_ns", "end_ns", "lost"]).to_pylist() == [
        {"begin_ns": 1000, "end_ns": 1100, "lost": 4}
    ]
    # What lost nothing is cut; what lost something and began before is not known to be in it.
    assert trace.arrow("throttle", ["begin_ns", "end_ns", "throttled_ns"]).to_pylist() == [
        {"begin_ns": 1000, "end_ns": 1200, "throttled_ns": 0},
        {"begin_ns": 1100, "end_ns": 1300, "throttled_ns": 6},
        {"begin_ns": 1300, "end_ns": 2000, "throttled_ns": 0},
    ]
    assert told.sent["sched_switch"] == 9
    assert told.lost["sched_switch"] == 4
    for name, sent in trace.manifest.sent.items():
        assert sent == trace.manifest.events[name] + trace.manifest.lost[name], name


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def made(dumps: Dumps, now_s: float, nbytes: int) -> str:
    name = dumps.begin(now_s)
    folder = dumps.making(name)
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * nbytes)
    dumps.finish(name)
    return name


def test_no_more_dumps_an_hour_than_allowed(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "d", 2, 1 << 30, drop=False)
    for now_s in (0.0, 1000.0):
        assert dumps.refusal(now_s) is None
        dumps.begin(now_s)
    assert dumps.refusal(1001.0) == (
        "2 were written in the last hour; the next may come in 2599 s"
    )
    assert dumps.refusal(3599.0) is not None
    assert dumps.refusal(3600.0) is None
    dumps.close()


def test_the_oldest_dumps_go_when_there_is_no_room(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "d", 10, 1000, drop=False)
    names = [made(dumps, 0.0, 300) for _ in range(3)]
    assert dumps.names() == names
    names.append(made(dumps, 0.0, 350))
    assert dumps.names() == names[1:]
    assert (dumps.bytes(), dumps.removed) == (950, 1)
    with pytest.raises(PretakeError, match="a dump of 1001 bytes is more than --disk"):
        made(dumps, 0.0, 1001)
    assert dumps.names() == names[1:]
    assert entries(tmp_path / "d") == names[1:]
    dumps.close()


def test_a_folder_is_for_dumps_alone(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    first = Dumps(folder, 10, 1000, drop=False)
    name = made(first, 0.0, 10)
    first.close()
    # A watch that was killed left a part of one.
    (folder / f".{name}").mkdir()
    again = Dumps(folder, 10, 1000, drop=False)
    assert entries(folder) == [name]
    again.close()
    (folder / "mine.txt").write_text("")
    with pytest.raises(PretakeError, match=r"holds 'mine.txt', which is no dump"):
        Dumps(folder, 10, 1000, drop=False)
    with pytest.raises(PretakeError, match="there is no folder"):
        Dumps(tmp_path / "no" / "d", 10, 1000, drop=False)
    with pytest.raises(PretakeError, match="cannot hold dumps"):
        Dumps(folder / "mine.txt", 10, 1000, drop=False)


class Watched:
    """Has a time that the test sets, and rows for each span."""

    def __init__(self) -> None:
        self.window = Window(30 * SECOND, 1 << 20, 0, lambda _: None)
        self.now_ns = 100 * SECOND
        self.spans: list[tuple[int, int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def freeze(self, begin_ns: int, end_ns: int, about: dict[str, object]) -> Frozen:
        self.spans.append((begin_ns, end_ns))
        self.about = about
        assert self.may_go.wait(60)
        return frozen(begin_ns, end_ns, [])


def lines_until(recorder: Recorder, count: int) -> list[str]:
    lines: list[str] = []
    while len(lines) < count:
        lines += recorder.step()
        os.sched_yield()
    return lines


def test_a_dump_waits_for_what_comes_after_and_others_join_it(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "d", 2, 1 << 30, drop=False)
    watched = Watched()
    recorder = Recorder(watched, dumps, 30, 5)
    first = recorder.trigger("hold_ns > 50 ms", 98 * SECOND)
    assert watched.window.keep_ns == 68 * SECOND
    watched.now_ns = 104 * SECOND
    assert recorder.step() == []
    joined = recorder.trigger("SIGUSR1")
    assert (joined.name, joined.joined) == (first.name, True)
    watched.now_ns = 105 * SECOND + LATE_NS
    (line,) = lines_until(recorder, 1)
    assert line.startswith(f"{tmp_path}/d/{first.name}: hold_ns > 50 ms, ")
    assert watched.spans == [(68 * SECOND, 105 * SECOND)]
    assert watched.about == {"trigger": "hold_ns > 50 ms", "trigger_ns": 98 * SECOND}
    assert watched.window.keep_ns is None
    assert Trace(tmp_path / "d" / str(first.name)).manifest.complete
    # One is left in this hour; it is cut short by the end of the watch.
    second = recorder.trigger("SIGUSR1")
    watched.now_ns = 107 * SECOND
    (line,) = recorder.finish()
    assert watched.spans[-1] == (75 * SECOND + LATE_NS, 107 * SECOND)
    assert recorder.last == second.name
    refused = recorder.trigger("SIGUSR1")
    assert refused.name is None
    assert "2 were written in the last hour" in refused.refused
    recorder.trigger("SIGUSR1")
    # Told once, and counted.
    (line,) = recorder.step()
    assert line.startswith("no dump for 'SIGUSR1': 2 were written")
    assert recorder.counts == {"written": 2, "joined": 1, "refused": 2, "failed": 0}
    dumps.close()


def test_a_dump_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "d", 9, 10, drop=False)
    watched = Watched()
    recorder = Recorder(watched, dumps, 30, 0)
    name = recorder.trigger("SIGUSR1").name
    watched.now_ns += LATE_NS
    (line,) = lines_until(recorder, 1)
    assert line.startswith(f"{tmp_path}/d/{name} was not written: a dump of ")
    assert (recorder.counts["failed"], recorder.last) == (1, None)
    assert entries(tmp_path / "d") == []
    dumps.close()
