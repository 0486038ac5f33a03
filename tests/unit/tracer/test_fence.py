"""The barrier between a ring's positions and its records: where it stands, and who passes it.

Whether it keeps the order cannot be seen on x86-64, which keeps it anyway. So these tests ask that
each reader passes it after it looked at a position, and before it tells one.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading

import numpy as np
import pytest

from tracer.kernel import ringbuf, slots
from tracer.kernel.fence import fence

RECORD = np.dtype([("value", "<i8")])


def test_many_threads_pass_it_at_once() -> None:
    passed: list[int] = []
    start = threading.Barrier(8)

    def pass_often(number: int) -> None:
        start.wait()
        for _ in range(500):
            fence()
        passed.append(number)

    threads = [threading.Thread(target=pass_often, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(passed) == list(range(8))


def test_slots_are_given_back_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ends_fd, slots_fd = os.memfd_create("ends"), os.memfd_create("slots")
    for fd in (ends_fd, slots_fd):
        os.truncate(fd, mmap.PAGESIZE)
    ring = slots.SlotRing(ends_fd, slots_fd, [4], RECORD)
    ends = np.frombuffer(mmap.mmap(ends_fd, mmap.PAGESIZE), slots.END_DTYPE, 1)
    ends["produced"] = 3
    consumed: list[int] = []
    monkeypatch.setattr(slots, "fence", lambda: consumed.append(int(ends["consumed"][0])))
    assert len(ring.peek()) == 3
    assert consumed == [0]
    ring.release()
    assert consumed == [0, 0]
    assert ends["consumed"].tolist() == [3]
    ring.close()
    os.close(ends_fd)
    os.close(slots_fd)


def test_room_of_a_ring_is_given_back_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    size, page = mmap.PAGESIZE, mmap.PAGESIZE
    fd = os.memfd_create("ring")
    os.truncate(fd, 2 * page + 2 * size)
    memory = mmap.mmap(fd, 2 * page + 2 * size)
    struct.pack_into("<Q", memory, page, 2 * 16)
    for at in (0, 16):
        struct.pack_into("<IIq", memory, 2 * page + at, 8, 0, at)
    ring = ringbuf.Ring(fd, size, RECORD)
    consumed: list[int] = []

    def seen() -> None:
        consumed.append(struct.unpack_from("<Q", memory)[0])

    monkeypatch.setattr(ringbuf, "fence", seen)
    assert ring.peek()["value"].tolist() == [0, 16]
    # Behind the producer's position, and behind the headers.
    assert consumed == [0, 0]
    ring.release()
    assert consumed == [0, 0, 0]
    assert struct.unpack_from("<Q", memory)[0] == 32
    ring.close()
    os.close(fd)
