"""Exports: what other programs read out of them is what was in the trace."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

from analysis.formats.export import folded_lines, write_csv, write_json_lines, write_parquet
from analysis.formats.perfetto import write_perfetto
from analysis.ptime.episodes import episodes
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_episodes import retaken
from tracer.errors import PretakeError
from tracer.trace.reader import Trace


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    scene = Scene(pid=7)
    retaken(scene)
    scene.switch(420, 12, 0)
    return scene.write(tmp_path)


def test_perfetto_has_cpus_threads_and_ps_and_a_flow(tmp_path: Path, trace: Trace) -> None:
    count = write_perfetto(trace, tmp_path / "out.pftrace")
    packets = PerfettoTrace.FromString((tmp_path / "out.pftrace").read_bytes()).packet
    tracks = {
        p.track_descriptor.uuid: p.track_descriptor.name or p.track_descriptor.thread.thread_name
        for p in packets
        if p.HasField("track_descriptor")
    }
    assert sorted(tracks.values()) == ["CPU 0", "P 0 of 7", "worker"]
    spans: dict[str, list[tuple[str, int, int]]] = {}
    begun: dict[int, TrackEvent] = {}
    for packet in packets:
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            begun[event.track_uuid] = packet
        else:
            first = begun.pop(event.track_uuid)
            span = (first.track_event.name, first.timestamp // US, packet.timestamp // US)
            spans.setdefault(tracks[event.track_uuid], []).append(span)
    assert not begun
    assert spans == {
        # The taker (19) never leaves its CPU in this trace, so it has no slice.
        "CPU 0": [("thread 12", 160, 420)],
        "worker": [("read", 90, 400)],
        "P 0 of 7": [("held: harmful", 100, 150), ("to the next M", 150, 165)],
    }
    assert count == 4
    flows = [
        (list(p.track_event.flow_ids), list(p.track_event.terminating_flow_ids)) for p in packets
    ]
    assert ([1], []) in flows
    assert ([], [1]) in flows


def test_perfetto_of_a_span(tmp_path: Path, trace: Trace) -> None:
    assert write_perfetto(trace, tmp_path / "a.pftrace", begin_ns=410 * US) == 1
    assert write_perfetto(trace, tmp_path / "b.pftrace", end_ns=100 * US) == 2


def test_perfetto_that_cannot_be_written_leaves_nothing(tmp_path: Path, trace: Trace) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(PretakeError, match="cannot write"):
        write_perfetto(trace, tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.pretake", "taken"]


def test_tables_come_back_from_parquet_csv_and_json(tmp_path: Path, trace: Trace) -> None:
    table = episodes(trace)
    write_parquet([table], tmp_path / "e.parquet")
    back = pq.read_table(tmp_path / "e.parquet").to_pydict()
    assert (back["hold_ns"], back["pidle_ns"], back["outcome"]) == ([50 * US], [None], ["retaken"])
    text = io.StringIO()
    write_csv(table, text)
    row = pd.read_csv(io.StringIO(text.getvalue())).iloc[0]
    assert (row["hold_ns"], row["class"]) == (50 * US, "harmful")
    assert pd.isna(row["pidle_ns"])
    lines = io.BytesIO()
    write_json_lines(table, lines)
    read = pd.read_json(io.BytesIO(lines.getvalue()), lines=True).iloc[0]
    assert read["hold_ns"] == 50 * US
    assert b'"pidle_ns":null' in lines.getvalue()


def test_folded_stacks_add_up_and_names_stay_one_frame(tmp_path: Path) -> None:
    scene = Scene()
    scene.task(11, 7, "a;b c")
    for at in (0, 1_000):
        scene.block(at + 100, 11, at + 90, 0, runq=1, global_runq=0, npidle=0, nmspinning=0)
        scene.exit(at + 130, 11, at + 90)
    lines = list(folded_lines(episodes(scene.write(tmp_path))))
    assert lines == ["a_b_c;read;kept;harmful 60\n"]
