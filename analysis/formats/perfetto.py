"""A trace as a Perfetto file: CPUs, threads and Ps as tracks, episodes as slices.

Open the file at a Perfetto UI, or query it with the ``perfetto`` trace processor. A flow leads
from each block to the moment at which P runs again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackEvent
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from analysis.formats.export import whole_file
from analysis.ptime.episodes import episodes
from analysis.ptime.tasks import P_KEY_SPAN, p_key
from analysis.windowed import plain
from analysis.windowed.asof import Timelines, take
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["write_perfetto"]

_SEQUENCE = 1
_MONOTONIC = 3  # BUILTIN_CLOCK_MONOTONIC of Perfetto's ClockSnapshot


class _Slice(NamedTuple):
    track: int
    name: str
    begin_ns: int
    end_ns: int
    flow: int
    flow_ends: bool


_THREADS, _PS, _CPUS = 1 << 40, 2 << 40, 3 << 40
"""First numbers of the tracks of each kind."""


def write_perfetto(
    trace: Trace,
    path: str | Path,
    begin_ns: int | None = None,
    end_ns: int | None = None,
) -> int:
    """Write a trace as a Perfetto file, as a whole or not at all.

    Each slice is a Python object for a moment (about 100,000 a second), so a long trace wants
    a span.

    Args:
        trace: the trace.
        path: file to write.
        begin_ns: nothing that ended before this is written; None for all.
        end_ns: nothing that began after this is written; None for all.

    Returns:
        How many slices were written.

    Raises:
        PretakeError: the trace cannot be read, or the file cannot be written.
    """
    slices = _slices(trace)
    if begin_ns is not None:
        slices = slices[slices["end_ns"] >= begin_ns]
    if end_ns is not None:
        slices = slices[slices["begin_ns"] <= end_ns]
    with whole_file(Path(path)) as file:
        _write(trace, slices, file)
    return len(slices)


def _slices(trace: Trace) -> pd.DataFrame:
    """Every slice: track, name, begin_ns, end_ns, flow (0 for none) and its direction."""
    found = episodes(trace)
    return pd.concat(
        [_cpu_slices(trace), _thread_slices(found), _p_slices(found)], ignore_index=True
    ).sort_values("begin_ns", kind="stable")


def _cpu_slices(trace: Trace) -> pd.DataFrame:
    """Which target thread ran on which CPU, from switch-in to its next switch-out."""
    columns = ("ts_ns", "prev_tid", "next_tid", "cpu")
    switches = plain.from_arrow("sched_switch", trace.arrow("sched_switch", columns))
    targets = trace.frame("task", ["tid"])["tid"].unique()
    enters = switches[switches["next_tid"].isin(targets) & (switches["next_tid"] > 0)]
    leaves = Timelines(switches["prev_tid"], switches["ts_ns"])
    left = leaves.first_after(enters["next_tid"], enters["ts_ns"], strictly=True)
    end = take(switches["ts_ns"], left, UNKNOWN)
    rows = pd.DataFrame(
        {
            "track": _CPUS + enters["cpu"].to_numpy(np.int64),
            "name": ("thread " + enters["next_tid"].astype(str)).to_numpy(object),
            "begin_ns": enters["ts_ns"].to_numpy(np.int64),
            "end_ns": end,
            "flow": 0,
            "flow_ends": False,
        }
    )
    return pd.DataFrame(rows[end != UNKNOWN])


def _thread_slices(found: pd.DataFrame) -> pd.DataFrame:
    """Each episode's call on its thread; its flow begins here."""
    begin = found["enter_ns"].fillna(found["block_ns"]).to_numpy(np.int64)
    stop = found["exit_ns"].fillna(found["block_ns"] + found["hold_ns"])
    return pd.DataFrame(
        {
            "track": _THREADS + found["tid"].to_numpy(np.int64),
            "name": found["syscall"].fillna("unknown call").astype(object).to_numpy(),
            "begin_ns": begin,
            "end_ns": np.maximum(stop.fillna(0).to_numpy(np.int64), begin),
            "flow": np.where(found["retake_ns"].notna(), np.arange(len(found)) + 1, 0),
            "flow_ends": False,
        }
    )


def _p_slices(found: pd.DataFrame) -> pd.DataFrame:
    """Each hold on its P, and P's way to the next goroutine; a flow ends where that begins."""
    pid, p = (plain.numbers(found[name]) for name in ("pid", "p"))
    track = _PS + p_key(np.maximum(pid, 0), p)
    block = found["block_ns"].to_numpy(np.int64)
    hold = found["hold_ns"].fillna(0).to_numpy(np.int64)
    names = "held: " + found["class"].astype(object)
    held = pd.DataFrame(
        {
            "track": track,
            "name": names.to_numpy(object),
            "begin_ns": block,
            "end_ns": block + hold,
            "flow": 0,
            "flow_ends": False,
        }
    )
    went_on = found["run_ns"].fillna(found["acquirep_ns"]).fillna(0).to_numpy(np.int64)
    release = found["release_ns"].fillna(0).to_numpy(np.int64)
    moved = pd.DataFrame(
        {
            "track": track,
            "name": "to the next M",
            "begin_ns": release,
            "end_ns": went_on,
            "flow": np.arange(len(found)) + 1,
            "flow_ends": True,
        }
    )
    told = (p != UNKNOWN) & found["retake_ns"].notna().to_numpy()
    pieces = [held[(p != UNKNOWN) & (hold > 0)], moved[told & (went_on > release)]]
    return pd.DataFrame(pd.concat(pieces))


def _write(trace: Trace, slices: pd.DataFrame, file: BinaryIO) -> None:
    builder = StreamingTraceProtoBuilder(file)
    for packet in _descriptors(trace, slices["track"].unique().tolist()):
        builder.write_packet(packet)
    columns = ("track", "name", "begin_ns", "end_ns", "flow", "flow_ends")
    for values in zip(*(slices[name].tolist() for name in columns), strict=True):
        row = _Slice(*values)
        builder.write_packet(_event(TrackEvent.TYPE_SLICE_BEGIN, row.begin_ns, row))
        builder.write_packet(_event(TrackEvent.TYPE_SLICE_END, row.end_ns, row))


def _descriptors(trace: Trace, tracks: list[int]) -> Iterator[TracePacket]:
    defaults = TracePacket()
    defaults.trusted_packet_sequence_id = _SEQUENCE
    defaults.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    defaults.trace_packet_defaults.timestamp_clock_id = _MONOTONIC
    yield defaults
    last = trace.frame("task", ["tid", "pid", "comm"]).drop_duplicates("tid", keep="last")
    pids = dict(zip(last["tid"].tolist(), last["pid"].tolist(), strict=True))
    comms = dict(zip(last["tid"].tolist(), last["comm"].tolist(), strict=True))
    for track in tracks:
        packet = TracePacket()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_descriptor.uuid = track
        if track >= _CPUS:
            packet.track_descriptor.name = f"CPU {track - _CPUS}"
        elif track >= _PS:
            pid, p = divmod(track - _PS, P_KEY_SPAN)
            packet.track_descriptor.name = f"P {p} of {pid}" if pid else f"P {p}"
        else:
            tid = track - _THREADS
            thread = packet.track_descriptor.thread
            thread.tid = tid
            thread.pid = pids.get(tid, trace.manifest.pid or 0)
            thread.thread_name = comms.get(tid, f"thread {tid}")
        yield packet


def _event(kind: int, at_ns: int, row: _Slice) -> TracePacket:
    packet = TracePacket()
    packet.trusted_packet_sequence_id = _SEQUENCE
    packet.timestamp = at_ns
    packet.track_event.type = kind
    packet.track_event.track_uuid = row.track
    if kind == TrackEvent.TYPE_SLICE_BEGIN:
        packet.track_event.name = row.name
        if row.flow:
            ids = packet.track_event
            (ids.terminating_flow_ids if row.flow_ends else ids.flow_ids).append(row.flow)
    return packet
