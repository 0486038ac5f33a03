"""Switch records: decoded from bytes written by hand, and taken from a real thread."""

from __future__ import annotations

import os
import select
import struct
import threading

import numpy as np
import pytest

from tracer.errors import PretakeError
from tracer.kernel.perf_events import SwitchEvent, decode_switches, paranoid

OUT, PREEMPT = 1 << 13, 1 << 14
needs_perf = pytest.mark.skipif(
    os.geteuid() != 0 and paranoid() > 2,
    reason="perf_event_paranoid is above 2 (force with sysctl kernel.perf_event_paranoid=2)",
)


def switch(misc: int, tid: int, time_ns: int) -> bytes:
    return struct.pack("=IHHiiqii", 14, misc, 32, 7, tid, time_ns, 1, 0)


def test_switches_with_a_loss_between_them_are_decoded_in_order() -> None:
    lost = struct.pack("=IHHQQiiqii", 2, 0, 48, 99, 5, 7, 70, 150, 1, 0)
    data = switch(OUT, 70, 100) + lost + switch(OUT | PREEMPT, 70, 200) + switch(0, 70, 300)
    switches, count = decode_switches(data)
    assert count == 5
    assert switches["time_ns"].tolist() == [100, 200, 300]
    assert switches["out"].tolist() == [True, True, False]
    assert switches["preempted"].tolist() == [False, True, False]
    assert switches["other_tid"].tolist() == [-1, -1, -1]


def test_a_machine_wide_record_tells_the_other_side() -> None:
    data = struct.pack("=IHHiiiiqii", 15, OUT, 40, 8, 80, 7, 70, 100, 3, 0)
    switches, _ = decode_switches(data)
    assert (switches["tid"][0], switches["other_tid"][0], switches["cpu"][0]) == (70, 80, 3)


def test_nothing_decodes_to_nothing() -> None:
    switches, lost = decode_switches(b"")
    assert (len(switches), lost) == (0, 0)


@needs_perf
def test_a_blocked_thread_is_told_while_it_is_blocked() -> None:
    reader, writer = os.pipe()
    tid: list[int] = []
    ready = threading.Event()

    def block() -> None:
        tid.append(threading.get_native_id())
        ready.set()
        os.read(reader, 1)
        os.read(reader, 1)

    thread = threading.Thread(target=block)
    thread.start()
    ready.wait()
    event = SwitchEvent(tid[0])
    try:
        # It may be blocked already, before the event was there, or be late and not block at all:
        # one byte lets it into its second read, where it blocks until the next.
        os.write(writer, b"x")
        assert select.select([event], [], [], 60)[0], "no wake-up for a switch"
        os.write(writer, b"x")
        thread.join()
        switches, lost = decode_switches(event.read())
        assert lost == 0
        assert np.unique(switches["tid"]).tolist() == tid
        assert not switches["preempted"][~switches["out"]].any()
        assert (np.diff(switches["time_ns"]) >= 0).all()
    finally:
        event.close()
        os.close(reader)
        os.close(writer)


@needs_perf
def test_is_blocked_follows_the_newest_switch() -> None:
    reader, writer = os.pipe()
    event_reader, event_writer = os.pipe()
    tid: list[int] = []

    def block() -> None:
        tid.append(threading.get_native_id())
        os.write(event_writer, b"t")
        os.read(reader, 1)
        os.read(reader, 1)

    thread = threading.Thread(target=block)
    thread.start()
    os.read(event_reader, 1)
    event = SwitchEvent(tid[0])
    try:
        # One byte lets the thread into its second read; from then on it stays blocked.
        os.write(writer, b"x")
        poll = select.poll()
        poll.register(event, select.POLLIN)
        while not event.is_blocked():
            assert poll.poll(60_000), "the thread blocked and nobody was told"
        os.write(writer, b"x")
        thread.join()
        switches, _ = decode_switches(event.read())
        assert not switches["out"][0], "what follows a block is a switch in"
    finally:
        event.close()
        for fd in (reader, writer, event_reader, event_writer):
            os.close(fd)


@needs_perf
def test_a_thread_that_is_gone_is_an_error_of_one_line() -> None:
    with pytest.raises(PretakeError, match="no such thread"):
        SwitchEvent(2**22 - 1)
