"""A trace as a Perfetto file: CPUs, threads and Ps as tracks, holds and P time as slices.

Open the file at a Perfetto UI, or query it with the ``perfetto`` trace processor. Each P has two
tracks. One has the holds, and P's way to the next goroutine. The other, below it, has the budget:
its slices follow each other without a gap, and those of one name add up to what ``pretake budget``
tells of that state.

A hold whose P was taken has flows: to the thread that took P, and to the one that ran a goroutine
on it next. Another flow leads from the call on its thread to the moment at which P runs again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackEvent
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from analysis.formats.export import whole_file
from analysis.ptime.budget import run_pass
from analysis.ptime.engine.state import STATES
from analysis.ptime.episodes import episodes
from analysis.ptime.tasks import P_KEY_SPAN, p_key
from analysis.windowed import plain
from analysis.windowed.asof import Ints, Timelines, take
from tracer.errors import PretakeError
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["write_perfetto"]

_SEQUENCE = 1
_MONOTONIC = 3  # BUILTIN_CLOCK_MONOTONIC of Perfetto's ClockSnapshot


class _Slice(NamedTuple):
    """One slice; ``more_flow`` is of its second flow, ``end_ns`` is ``UNKNOWN`` for an instant."""

    track: int
    name: str
    begin_ns: int
    end_ns: int
    flow: int
    more_flow: int
    flow_ends: bool


_COLUMNS = _Slice._fields
_THREADS, _PS, _CPUS, _BUDGETS = 1 << 40, 2 << 40, 3 << 40, 4 << 40
"""First numbers of the tracks of each kind."""
_FLOWS = 3
"""Of each episode: to where P runs again, and those of :data:`_TAKERS`."""
_TAKERS = (("takes P ", "taker_tid", "release_ns"), ("runs on P ", "runner_tid", "run_ns"))
"""What a thread does with P, in words; the columns of an episode that tell who, and when."""


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
        How many slices and instants were written.

    Raises:
        PretakeError: the trace cannot be read, or the file cannot be written.
    """
    slices = _slices(trace)
    if begin_ns is not None:
        slices = slices[slices[["begin_ns", "end_ns"]].max(axis=1) >= begin_ns]
    if end_ns is not None:
        slices = slices[slices["begin_ns"] <= end_ns]
    with whole_file(Path(path)) as file:
        _write(trace, slices, file)
    return len(slices)


def _slices(trace: Trace) -> pd.DataFrame:
    """Every slice and instant, as :class:`_Slice` has them; flow 0 is none."""
    found = episodes(trace)
    kinds = [
        _cpu_slices(trace),
        _thread_slices(found),
        _p_slices(found),
        _budget_slices(trace),
        _taker_instants(found),
    ]
    return pd.concat(kinds, ignore_index=True).sort_values("begin_ns", kind="stable")


def _rows(
    track: Ints,
    name: object,
    begin_ns: Ints,
    end_ns: Ints | int,
    flow: Ints | int = 0,
    more_flow: Ints | int = 0,
    flow_ends: bool = False,
) -> pd.DataFrame:
    values = (track, name, begin_ns, end_ns, flow, more_flow, flow_ends)
    return pd.DataFrame(dict(zip(_COLUMNS, values, strict=True)))


def _flow(found: pd.DataFrame, which: int) -> Ints:
    """The number of one of an episode's flows."""
    return np.arange(len(found), dtype=np.int64) * _FLOWS + 1 + which


def _budget_slices(trace: Trace) -> pd.DataFrame:
    """What each P was in, without a gap."""
    spans = run_pass(trace, spans=True).spans
    return _rows(
        _BUDGETS + p_key(spans["pid"], spans["p"]),
        np.array(STATES, object)[spans["state"]],
        spans["begin_ns"],
        spans["end_ns"],
    )


def _taker_instants(found: pd.DataFrame) -> pd.DataFrame:
    """On whose thread P went on: moments, since a thread's slices nest and these need not."""
    pieces = []
    for which, (name, tid, at) in enumerate(_TAKERS, 1):
        told = _goes_to(found, tid, at)
        its, flows = found[told], _flow(found, which)[told]
        ps = its["p"].fillna(0).astype(np.int64).astype(str)
        pieces.append(
            _rows(
                _THREADS + its[tid].to_numpy(np.int64),
                (name + ps).to_numpy(object),
                its[at].to_numpy(np.int64),
                UNKNOWN,
                flows,
                flow_ends=True,
            )
        )
    return pd.concat(pieces)


def _goes_to(found: pd.DataFrame, tid: str, at: str) -> npt.NDArray[np.bool_]:
    """Which holds have a flow to a thread: those whose P was taken, as far as both are known."""
    known = found[["p", "retake_ns", tid, at]].notna().all(axis=1)
    return np.asarray(known & (found["hold_ns"].fillna(0) > 0), bool)


def _cpu_slices(trace: Trace) -> pd.DataFrame:
    """Which target thread ran on which CPU, from switch-in to its next switch-out."""
    columns = ("ts_ns", "prev_tid", "next_tid", "cpu")
    switches = plain.from_arrow("sched_switch", trace.arrow("sched_switch", columns))
    targets = trace.frame("task", ["tid"])["tid"].unique()
    enters = switches[switches["next_tid"].isin(targets) & (switches["next_tid"] > 0)]
    leaves = Timelines(switches["prev_tid"], switches["ts_ns"])
    left = leaves.first_after(enters["next_tid"], enters["ts_ns"], strictly=True)
    end = take(switches["ts_ns"], left, UNKNOWN)
    rows = _rows(
        _CPUS + enters["cpu"].to_numpy(np.int64),
        ("thread " + enters["next_tid"].astype(str)).to_numpy(object),
        enters["ts_ns"].to_numpy(np.int64),
        end,
    )
    return pd.DataFrame(rows[end != UNKNOWN])


def _thread_slices(found: pd.DataFrame) -> pd.DataFrame:
    """Each episode's call on its thread; its flow begins here."""
    begin = found["enter_ns"].fillna(found["block_ns"]).to_numpy(np.int64)
    stop = found["exit_ns"].fillna(found["block_ns"] + found["hold_ns"])
    return _rows(
        _THREADS + found["tid"].to_numpy(np.int64),
        found["syscall"].fillna("unknown call").astype(object).to_numpy(),
        begin,
        np.maximum(stop.fillna(0).to_numpy(np.int64), begin),
        np.where(found["retake_ns"].notna(), _flow(found, 0), 0),
    )


def _p_slices(found: pd.DataFrame) -> pd.DataFrame:
    """Each hold on its P, and P's way to the next goroutine; a flow ends where that begins."""
    pid, p = (plain.numbers(found[name]) for name in ("pid", "p"))
    track = _PS + p_key(np.maximum(pid, 0), p)
    block = found["block_ns"].to_numpy(np.int64)
    hold = found["hold_ns"].fillna(0).to_numpy(np.int64)
    names = "held: " + found["class"].astype(object)
    to_taker, to_runner = (
        np.where(_goes_to(found, tid, at), _flow(found, which), 0)
        for which, (_, tid, at) in enumerate(_TAKERS, 1)
    )
    held = _rows(track, names.to_numpy(object), block, block + hold, to_taker, to_runner)
    went_on = found["run_ns"].fillna(found["acquirep_ns"]).fillna(0).to_numpy(np.int64)
    release = found["release_ns"].fillna(0).to_numpy(np.int64)
    flows = _flow(found, 0)
    moved = _rows(track, "to the next M", release, went_on, flows, flow_ends=True)
    told = (p != UNKNOWN) & found["retake_ns"].notna().to_numpy()
    pieces = [held[(p != UNKNOWN) & (hold > 0)], moved[told & (went_on > release)]]
    return pd.DataFrame(pd.concat(pieces))


def _write(trace: Trace, slices: pd.DataFrame, file: BinaryIO) -> None:
    builder = StreamingTraceProtoBuilder(file)
    for packet in _descriptors(trace, _tracks(slices)):
        builder.write_packet(packet)
    for values in zip(*(slices[name].tolist() for name in _COLUMNS), strict=True):
        row = _Slice(*values)
        if row.end_ns == UNKNOWN:
            builder.write_packet(_event(TrackEvent.TYPE_INSTANT, row.begin_ns, row))
            continue
        builder.write_packet(_event(TrackEvent.TYPE_SLICE_BEGIN, row.begin_ns, row))
        builder.write_packet(_event(TrackEvent.TYPE_SLICE_END, row.end_ns, row))


def _tracks(slices: pd.DataFrame) -> list[int]:
    """Each track that has something, and before a P's budget the P."""
    tracks = slices["track"].unique()
    budgets = tracks[tracks >= _BUDGETS]
    return [int(track) for track in np.unique(np.r_[tracks, budgets - _BUDGETS + _PS])]


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
        if track >= _BUDGETS:
            packet.track_descriptor.name = "budget"
            packet.track_descriptor.parent_uuid = track - _BUDGETS + _PS
        elif track >= _CPUS:
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
    if at_ns < 0:
        raise PretakeError("the trace has times before the machine began", "capture it again")
    packet = TracePacket()
    packet.trusted_packet_sequence_id = _SEQUENCE
    packet.timestamp = at_ns
    packet.track_event.type = kind
    packet.track_event.track_uuid = row.track
    if kind != TrackEvent.TYPE_SLICE_END:
        packet.track_event.name = row.name
        ids = packet.track_event
        flows = [flow for flow in (row.flow, row.more_flow) if flow]
        (ids.terminating_flow_ids if row.flow_ends else ids.flow_ids).extend(flows)
    return packet
