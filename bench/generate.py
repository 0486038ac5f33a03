"""A trace of any size, of the shape that a busy echo server leaves: 24 events for each call.

``python -m bench.generate EVENTS FOLDER`` writes one. Two threads of a process take turns to block
in a read; a monitor retakes the P, and the other thread runs with it. Lengths vary by chance with
a fixed seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tracer.trace.manifest import Manifest, Target
from tracer.trace.schema import TABLES, UNKNOWN
from tracer.trace.writer import TraceWriter

EVENTS_PER_CALL = 24
PID, MONITOR, THREADS = 100, 103, np.array([101, 102])
_BATCH = 50_000
_PERIOD_NS = 250_000
_FUTEX = 202

# table: rows of one call as (ns after the block, which thread, other columns by name).
# Threads: 0 the one that blocks, 1 the other, 2 the monitor.
_RUNTIME = (
    (90_000, 2, {"kind": "retake", "reason": "sysmon", "p": 0, "target": 0}),
    (96_000, 2, {"kind": "handoff", "reason": "sysmon", "p": 0}),
    (102_000, 2, {"kind": "startm", "p": 0, "target": 1}),
    (116_000, 1, {"kind": "acquirep", "p": 0}),
    (123_000, 1, {"kind": "run", "p": 0}),
    (142_000, 0, {"kind": "exit_slow"}),
    (148_000, 0, {"kind": "stopm"}),
)
_SWITCHES = (
    (0, 0, "out", "blocked"),
    (30_000, 2, "in", None),
    (33_000, 2, "out", "blocked"),
    (85_000, 2, "in", None),
    (106_000, 2, "out", "blocked"),
    (112_000, 1, "in", None),
    (135_000, 0, "in", None),
    (150_000, 0, "out", "blocked"),
)
_WAKEUPS = ((28_000, 2, None), (83_000, 2, None), (104_000, 1, 2), (131_000, 0, 1))
_CALLS = ((-1_500, 139_000, 0, 0), (33_000, 84_000, 2, 230), (-40_000, 113_000, 1, _FUTEX))
_WOKEN = (-30_000, 32_000, 2, 230)


def generate(path: Path, events: int, seed: int = 1) -> int:
    """Write a trace of about ``events`` events; returns how many there are."""
    random = np.random.default_rng(seed)
    calls = max(events // EVENTS_PER_CALL, 1)
    manifest = Manifest(
        host="generated",
        begin_ns=0,
        end_ns=(calls + 2) * _PERIOD_NS,
        pid=PID,
        target=Target(path="generated", runtime="reference"),
        workload={"name": "generated", "policy": "sysmon", "procs": 1},
    )
    writer = TraceWriter(path, manifest, part_seconds=1e9)
    _write(writer, "task", {"tid": np.r_[PID, THREADS, MONITOR], "pid": np.full(4, PID)}, 4)
    for first in range(0, calls, _BATCH):
        number = np.arange(first, min(first + _BATCH, calls))
        stretch = 1 + random.exponential(0.15, len(number))
        at = (number + 1) * _PERIOD_NS
        who = np.stack([THREADS[number % 2], THREADS[1 - number % 2], np.full(len(number), 103)])
        _write_calls(writer, at, stretch, who)
    writer.close(manifest)
    return sum(writer.rows.values())


def _write_calls(
    writer: TraceWriter, at: np.ndarray, stretch: np.ndarray, who: np.ndarray
) -> None:
    def when(offset: int) -> np.ndarray:
        return at + (offset * np.minimum(stretch, 1.3)).astype(np.int64)

    quiet = {"global_runq": 1, "npidle": 0, "nmspinning": 0}
    block = {"ts_ns": at, "enter_ns": when(-1_500), "tid": who[0], "goid": who[0] - 100}
    _write(writer, "block", {**block, "p": 0, "m": who[0] - 101, "runq": 0, **quiet}, len(at))
    rows: list[dict[str, object]] = []
    for offset, thread, told in _RUNTIME:
        row = {name: value for name, value in told.items() if name not in ("target", "kind")}
        row |= {"kind": TABLES["runtime"].column("kind").code(told["kind"])}
        if "reason" in told:
            row["reason"] = TABLES["runtime"].column("reason").code(told["reason"])
        if "target" in told:
            row["target_tid"] = who[told["target"]]
        rows.append({"ts_ns": when(offset), "tid": who[thread], **quiet, **row})
    _write_ordered(writer, "runtime", rows, "ts_ns")
    state = TABLES["sched_switch"].column("prev_state")
    rows = [
        {
            "ts_ns": when(offset),
            "prev_tid": who[thread] if way == "out" else 0,
            "next_tid": who[thread] if way == "in" else 0,
            "cpu": thread % 2,
            "prev_state": state.code(why or "blocked"),
        }
        for offset, thread, way, why in _SWITCHES
    ]
    _write_ordered(writer, "sched_switch", rows, "ts_ns")
    rows = [
        {"ts_ns": when(o), "tid": who[thread], "waker_tid": 0 if waker is None else who[waker]}
        for o, thread, waker in _WAKEUPS
    ]
    _write_ordered(writer, "sched_wakeup", rows, "ts_ns")
    rows = [
        {
            "enter_ns": when(enter),
            "exit_ns": when(leave),
            "tid": who[thread],
            "nr": nr,
            "blocks": 1,
            "blocked_ns": when(leave) - when(enter) - 2_000,
        }
        for enter, leave, thread, nr in (*_CALLS, _WOKEN)
    ]
    _write_ordered(writer, "syscall", rows, "exit_ns")


def _write_ordered(
    writer: TraceWriter, table: str, rows: list[dict[str, object]], key: str
) -> None:
    length = len(np.asarray(rows[0][key]))
    names = dict.fromkeys(name for row in rows for name in row)
    whole = {
        name: np.concatenate(
            [np.broadcast_to(np.asarray(row.get(name, UNKNOWN)), length) for row in rows]
        )
        for name in names
    }
    order = np.argsort(whole[key], kind="stable")
    _write(writer, table, {name: values[order] for name, values in whole.items()}, len(order))


def _write(writer: TraceWriter, table: str, columns: dict[str, object], length: int) -> None:
    records = np.zeros(length, TABLES[table].dtype)
    for column in TABLES[table].columns:
        if column.nullable:
            records[column.name] = UNKNOWN
    for name, values in columns.items():
        records[name] = values
    writer.write(table, TABLES[table].to_arrow(records))


if __name__ == "__main__":
    written = generate(Path(sys.argv[2]), int(sys.argv[1]))
    print(f"{written:,} events in {sys.argv[2]}")
