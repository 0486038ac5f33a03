"""Exports: what other programs read out of them is what was in the trace."""

from __future__ import annotations

import io
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

from analysis.answers.budget import budget
from analysis.formats.export import folded_lines, write_csv, write_json_lines, write_parquet
from analysis.formats.perfetto import write_perfetto
from analysis.ptime.engine.state import STATES
from analysis.ptime.episodes import episodes
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_episodes import retaken
from tests.unit.analysis.test_going import held_for_six_seconds
from tracer.errors import PretakeError
from tracer.trace.reader import Trace


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    scene = Scene(pid=7)
    retaken(scene)
    scene.switch(420, 12, 0)
    return scene.write(tmp_path)


class Told(NamedTuple):
    """What a Perfetto file says, times in microseconds.

    Args:
        tracks: by number, what each is called.
        parents: the track that each one is below, both by name.
        spans: by track: name, begin and end of each slice, in their order.
        flows: of each flow, from which slice or instant to which: their names and tracks.
    """

    tracks: dict[int, str]
    parents: dict[str, str]
    spans: dict[str, list[tuple[str, int, int]]]
    flows: dict[tuple[str, str], tuple[str, str]]


def told_by(path: Path) -> Told:
    packets = PerfettoTrace.FromString(path.read_bytes()).packet
    tracks: dict[int, str] = {}
    parents = {}
    for packet in packets:
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = track.name or track.thread.thread_name
            if track.parent_uuid:
                tracks[track.uuid] = f"{track.name} of {tracks[track.parent_uuid]}"
                parents[tracks[track.uuid]] = tracks[track.parent_uuid]
    spans: dict[str, list[tuple[str, int, int]]] = {}
    begun: dict[int, PerfettoTrace] = {}
    begins: dict[int, tuple[str, str]] = {}
    ends: dict[int, tuple[str, str]] = {}
    for packet in packets:
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        own = event.name, tracks[event.track_uuid]
        begins |= dict.fromkeys(event.flow_ids, own)
        ends |= dict.fromkeys(event.terminating_flow_ids, own)
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in begun
            begun[event.track_uuid] = packet
            continue
        first = begun.pop(event.track_uuid) if event.type == TrackEvent.TYPE_SLICE_END else packet
        span = (first.track_event.name, first.timestamp // US, packet.timestamp // US)
        spans.setdefault(tracks[event.track_uuid], []).append(span)
    assert not begun
    # Each flow has both its ends.
    assert begins.keys() == ends.keys()
    return Told(tracks, parents, spans, {begins[flow]: ends[flow] for flow in begins})


def test_perfetto_has_cpus_threads_and_ps(tmp_path: Path, trace: Trace) -> None:
    count = write_perfetto(trace, tmp_path / "out.pftrace")
    told = told_by(tmp_path / "out.pftrace")
    budget_of_p = told.spans.pop("budget of P 0 of 7")
    assert told.spans == {
        # The taker (19) never leaves its CPU in this trace, so it has no slice.
        "CPU 0": [("thread 12", 160, 420)],
        # Threads 11 and 12 have one name.
        "worker": [("read", 90, 400), ("runs on P 0", 165, 165)],
        "sysmon": [("takes P 0", 150, 150)],
        "P 0 of 7": [("held: harmful", 100, 150), ("to the next M", 150, 165)],
    }
    assert count == 6 + len(budget_of_p)


def test_perfetto_has_flows_from_a_hold_to_taker_and_runner(tmp_path: Path, trace: Trace) -> None:
    write_perfetto(trace, tmp_path / "out.pftrace")
    packets = PerfettoTrace.FromString((tmp_path / "out.pftrace").read_bytes()).packet
    events = [packet.track_event for packet in packets if packet.HasField("track_event")]
    ends = {flow: event.name for event in events for flow in event.terminating_flow_ids}
    begins = {
        event.name: sorted(ends[flow] for flow in event.flow_ids)
        for event in events
        if event.flow_ids
    }
    assert begins == {
        "held: harmful": ["runs on P 0", "takes P 0"],
        "read": ["to the next M"],
    }


def test_perfetto_has_the_budget_of_each_p_without_a_gap(tmp_path: Path) -> None:
    trace = held_for_six_seconds().write(tmp_path)
    write_perfetto(trace, tmp_path / "out.pftrace")
    told = told_by(tmp_path / "out.pftrace")
    assert told.parents == {"budget of P 0 of 7": "P 0 of 7"}
    slices = told.spans["budget of P 0 of 7"]
    assert all(one[2] == other[1] for one, other in pairwise(slices))
    # By hand: 12 to 18 s in a call, 18.5 to 19 s in a fault.
    second = 10**6
    assert ("syscall", 12 * second, 18 * second) in slices
    assert ("fault", 18.5 * second, 19 * second) in slices
    # And as the budget adds up its states.
    sums: Counter[str] = Counter()
    for name, begin_us, end_us in slices:
        sums[name] += (end_us - begin_us) * US
    (process,) = budget(trace)["processes"]
    assert dict(sums) == {state: ns for state, ns in process["states"].items() if ns}


def test_perfetto_of_a_span(tmp_path: Path, trace: Trace) -> None:
    write_perfetto(trace, tmp_path / "a.pftrace", begin_ns=410 * US)
    late = told_by(tmp_path / "a.pftrace").spans
    assert late.pop("CPU 0") == [("thread 12", 160, 420)]
    assert list(late) == ["budget of P 0 of 7"]
    assert all(end >= 410 for _, _, end in late["budget of P 0 of 7"])
    write_perfetto(trace, tmp_path / "b.pftrace", end_ns=100 * US)
    packets = PerfettoTrace.FromString((tmp_path / "b.pftrace").read_bytes()).packet
    names = {p.track_event.name for p in packets if p.track_event.name}
    assert names - set(STATES) == {"read", "held: harmful"}


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
