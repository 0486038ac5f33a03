"""The rings of slots: what a program writes is read once, in order, never overwritten unread."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel import slots
from tracer.kernel.slots import END_DTYPE, SlotRing, slots_of

# 12 bytes, which BPF puts 16 apart.
RECORD = np.dtype([("number", "<i4"), ("cpu", "<i4"), ("rest", "<i4")])
# By CPU: one that is not there has none, another more than the first.
SLOTS = [8, 0, 16]
CPUS = [0, 2]


class Programs:
    """The kernel's side: writes as rings.bpf.c does."""

    def __init__(self) -> None:
        self.fds = [os.memfd_create(name) for name in ("ends", "slots")]
        for fd in self.fds:
            os.truncate(fd, mmap.PAGESIZE)
        self.ring = SlotRing(*self.fds, SLOTS, RECORD)
        self._ends = np.frombuffer(mmap.mmap(self.fds[0], mmap.PAGESIZE), END_DTYPE, 3)
        padded = np.dtype({"names": ["record"], "formats": [RECORD], "itemsize": 16})
        self._slots = np.frombuffer(mmap.mmap(self.fds[1], mmap.PAGESIZE), padded, sum(SLOTS))[
            "record"
        ]

    def emit(self, cpu: int, number: int) -> bool:
        end = self._ends[cpu]
        if end["produced"] - end["consumed"] >= end["slots"]:
            end["lost"] += 1
            return False
        at = int(end["first"]) + (int(end["produced"]) & (int(end["slots"]) - 1))
        self._slots[at] = (number, cpu, 0)
        end["produced"] += 1
        return True

    def taken(self) -> list[tuple[int, int]]:
        """CPU and number of what waits, given back."""
        told = [(int(row["cpu"]), int(row["number"])) for row in self.ring.peek()]
        self.ring.release()
        return told


@pytest.fixture
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    made.ring.close()
    for fd in made.fds:
        os.close(fd)


def test_each_cpu_has_slots_of_its_own(programs: Programs) -> None:
    for number in range(3):
        assert programs.emit(2, number)
        assert programs.emit(0, 10 + number)
    assert programs.ring.fill == 3 / 8
    assert programs.taken() == [(0, 10), (0, 11), (0, 12), (2, 0), (2, 1), (2, 2)]
    assert (programs.ring.fill, programs.ring.peeked_fill) == (0, 3 / 8)
    assert programs.taken() == []
    assert programs.ring.peeked_fill == 0


def test_a_full_ring_loses_the_new_and_keeps_the_old(programs: Programs) -> None:
    stored = [programs.emit(0, number) for number in range(11)]
    assert stored == [True] * 8 + [False] * 3
    assert (programs.ring.sent, programs.ring.lost) == (11, 3)
    assert programs.taken() == [(0, number) for number in range(8)]
    assert programs.emit(0, 99)
    assert programs.taken() == [(0, 99)]
    assert [programs.emit(2, number) for number in range(17)] == [True] * 16 + [False]
    assert programs.ring.fill == 1
    assert programs.taken() == [(2, number) for number in range(16)]


def test_a_cpu_that_was_not_there_loses_all(programs: Programs) -> None:
    assert not programs.emit(1, 0)
    assert (programs.ring.sent, programs.ring.lost) == (1, 1)


def test_what_comes_between_a_look_and_a_release_stays(programs: Programs) -> None:
    programs.emit(0, 1)
    assert len(programs.ring.peek()) == 1
    programs.emit(0, 2)
    programs.ring.release()
    assert programs.taken() == [(0, 2)]


@given(st.lists(st.one_of(st.sampled_from(CPUS), st.none()), max_size=80))
def test_nothing_is_read_twice_or_out_of_order(steps: list[int | None]) -> None:
    programs = Programs()
    stored: dict[int, list[int]] = {cpu: [] for cpu in CPUS}
    read: dict[int, list[int]] = {cpu: [] for cpu in CPUS}
    lost = 0
    for number, cpu in enumerate([*steps, None]):
        if cpu is None:
            for told, value in programs.taken():
                read[told].append(value)
        elif programs.emit(cpu, number):
            stored[cpu].append(number)
        else:
            lost += 1
    assert read == stored
    assert programs.ring.lost == lost
    assert programs.ring.sent == lost + sum(map(len, stored.values()))
    programs.ring.close()
    for fd in programs.fds:
        os.close(fd)


@pytest.mark.parametrize(("size", "slots"), [(4096, 256), (4095, 128), (1366, 64), (1, 1)])
def test_slots_are_a_power_of_two(size: int, slots: int) -> None:
    assert slots_of(size, RECORD) == slots


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_a_ring_is_mapped_in_whole_pages(monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    assert slots._pages(1) == slots._pages(page) == page
    assert slots._pages(page + 1) == 2 * page
