"""What ``pretake live`` says of retakes whose length nobody knows, and who answers for it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from pretake.commands.live import _unknown_text
from pretake.prometheus import Server, _Counted
from pretake.watcher import forget_early
from tracer.capture.live import LiveRows
from tracer.trace.schema import TABLES


def test_retakes_of_unknown_length_are_told_beside_the_table() -> None:
    assert _unknown_text({}) == []
    (line,) = _unknown_text({"read": 1_234, "futex": 2})
    assert line.endswith("counted in no row: 2 of futex, 1,234 of read")


def test_they_are_a_counter_of_their_own() -> None:
    registry = CollectorRegistry()
    registry.register(_Counted(dict, 3, lambda: {"read": 7}))
    page = generate_latest(registry).decode()
    assert 'pretake_retake_unknown_total{syscall="read"} 7.0' in page
    assert "pretake_retake_seconds_bucket" not in page


def test_rows_before_any_runtime_do_not_pile_up() -> None:
    """A hundred periods with a switch in each, and a thread in the first one."""
    switch, task = (np.zeros(1, TABLES[name].dtype) for name in ("sched_switch", "task"))
    kept: list[LiveRows] = []
    for period in range(100):
        records = {"sched_switch": [switch]} | ({} if period else {"task": [task]})
        kept = forget_early([*kept, LiveRows(period, records, {})])
    assert [(piece.until_ns, sorted(piece.records)) for piece in kept] == [
        (0, ["task"]),
        *((period, ["sched_switch"]) for period in (97, 98, 99)),
    ]


def task(ts_ns: int, tid: int, kind: str) -> np.ndarray:
    table = TABLES["task"]
    record = np.zeros(1, table.dtype)
    record["ts_ns"], record["tid"], record["pid"] = ts_ns, tid, tid
    record["kind"] = table.column("kind").code(kind)
    return record


def test_of_many_lives_before_any_runtime_those_that_ended_are_forgotten() -> None:
    """Process 7 lives all the time, and each period another one is born and ends; 8 twice."""
    kept: list[LiveRows] = []
    for period in range(500):
        born = 8 if period in (10, 499) else 1000 + period
        rows = [task(period, born, "fork")]
        if period == 0:
            rows.append(task(period, 7, "present"))
        if period != 499:
            rows.append(task(period, born, "exit"))
        kept = forget_early([*kept, LiveRows(period, {"task": rows}, {})])
        assert len(kept) <= 64
    living: set[int] = set()
    for piece in kept:
        for row in TABLES["task"].to_arrow(np.concatenate(piece.records["task"])).to_pylist():
            living = living - {row["tid"]} if row["kind"] == "exit" else living | {row["tid"]}
    assert living == {7, 8}


def test_who_is_asked_nothing_does_not_wake(tmp_path: Path) -> None:
    """The thread that answers sleeps in poll without an end, also after it has answered."""
    server = Server(tmp_path / "socket")
    before = set(threading.enumerate())

    def answer(_: object, start: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
        start("200 OK", [])
        return [b"told"]

    with contextlib.closing(server), server.answering(answer):
        (thread,) = set(threading.enumerate()) - before
        for _ in range(2):
            assert _poll_of(thread) in (("7", 0xFFFFFFFF), ("73", 0))  # poll; arm64: ppoll
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "socket"))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.makefile("rb").read().endswith(b"told")
    assert not thread.is_alive()


def _poll_of(thread: threading.Thread) -> tuple[str, int]:
    """The system call that a thread sleeps in, and its third argument as 32 bits."""
    folder = Path(f"/proc/self/task/{thread.native_id}")
    while True:
        number, *arguments = (folder / "syscall").read_text().split()
        if number in ("7", "73") and (folder / "stat").read_text().rpartition(")")[2][1] == "S":
            return number, int(arguments[2], 16) & 0xFFFFFFFF
        os.sched_yield()
