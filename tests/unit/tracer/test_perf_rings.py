"""Which CPUs a capture by perf events has a ring for, and how large each is."""

from __future__ import annotations

import mmap
import os
import resource
import sys
from pathlib import Path

import pytest

from tracer.capture import perf_rings
from tracer.capture.perf_rings import PerfRings, ring_pages, spare_pages
from tracer.errors import PretakeError
from tracer.kernel.table_rings import RING_TABLES, RingSizes, spare_cpu_bytes

PAGE = mmap.PAGESIZE


class Machine:
    """Its CPUs, and the events that were made on it.

    Args:
        usable: the CPUs that the tracer may use.
        possible: how many there can be.
    """

    def __init__(self, usable: set[int], possible: int) -> None:
        self.online = sorted(usable)
        self.usable = usable
        self.possible = possible
        self.refuses_after = 1 << 16
        self.made: list[Event] = []
        self.open: set[Event] = set()


class Event:
    def __init__(
        self, machine: Machine, tid: int, cpu: int, pages: int, share: Event | None
    ) -> None:
        if len(machine.made) == machine.refuses_after:
            raise PretakeError("no memory for a perf ring")
        self.tid, self.cpu, self.pages, self.share = tid, cpu, pages, share
        self._machine = machine
        machine.made.append(self)
        machine.open.add(self)

    def close(self) -> None:
        self._machine.open.discard(self)


def machine_of(monkeypatch: pytest.MonkeyPatch, usable: set[int], possible: int) -> Machine:
    machine = Machine(usable, possible)

    def make(tid: int, cpu: int, *, pages: int, share: Event | None, **_: object) -> Event:
        return Event(machine, tid, cpu, pages, share)

    monkeypatch.setattr(perf_rings, "SwitchEvent", make)
    monkeypatch.setattr(perf_rings.bpf, "online_cpus", lambda: list(machine.online))
    monkeypatch.setattr(perf_rings.bpf, "possible_cpus", lambda: machine.possible)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: machine.usable)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine


def test_each_thread_has_an_event_on_each_possible_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(monkeypatch, {0, 2}, 4)
    rings = PerfRings([70, 71], 8 * PAGE)
    made = [(event.tid, event.cpu) for event in machine.made]
    # What the tracer may use comes first, should there not be enough for all.
    assert made == [(tid, cpu) for cpu in (0, 2, 1, 3) for tid in (70, 71)]
    # The second thread of a CPU writes into the first one's ring.
    for first, second in zip(machine.made[::2], machine.made[1::2], strict=True):
        assert first.share is None
        assert second.share is first
    assert rings.missing == []
    rings.close()
    assert machine.open == set()


def test_a_ring_is_read_once_its_cpu_is_there_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = machine_of(monkeypatch, {0}, 3)
    rings = PerfRings([70], PAGE)
    assert [cpu for cpu, _ in rings.to_read(every=False)] == [0]
    machine.online = [0, 2]
    assert rings.look() == [2]
    assert rings.look() == []
    assert [cpu for cpu, _ in rings.to_read(every=False)] == [0, 2]
    assert [cpu for cpu, _ in rings.to_read(every=True)] == [0, 1, 2]
    assert len(machine.made) == 3


def test_what_cannot_be_seen_of_other_cpus_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(monkeypatch, {0}, 8)
    machine.refuses_after = 3
    (missing,) = PerfRings([70], PAGE).missing
    assert [event.cpu for event in machine.made] == [0, 1, 2]
    assert missing.what == "switches on 5 CPUs from 3 on, should the target get there"
    assert missing.why == "no memory for a perf ring"


def test_other_cpus_leave_the_tracer_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(monkeypatch, {0}, 1024)
    monkeypatch.setattr(perf_rings, "_descriptors_left", lambda _: 1000)
    (missing,) = PerfRings([70, 71], PAGE).missing
    # Of 1,000 descriptors 256 are for something else. Each CPU takes three: a ring has its own.
    assert [event.cpu for event in machine.made[::2]] == list(range(248))
    assert missing.what == "switches on 776 CPUs from 248 on, should the target get there"


@pytest.mark.parametrize(("hard", "left"), [(1 << 19, 5000), (2000, None)])
def test_the_limit_of_descriptors_is_raised_to_what_is_wanted(
    monkeypatch: pytest.MonkeyPatch, hard: int, left: int | None
) -> None:
    used = len(list(Path("/proc/self/fd").iterdir()))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert perf_rings._descriptors_left(5000) == (left or hard - used)
    assert asked == [(min(used + 5000, hard), hard)]
    # What is there already is enough.
    assert perf_rings._descriptors_left(100) == 1024 - used
    assert len(asked) == 1


def test_without_a_limit_there_are_enough_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert perf_rings._descriptors_left(5000) == sys.maxsize


def test_without_room_for_its_own_cpus_there_is_no_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = machine_of(monkeypatch, {0, 1}, 2)
    machine.refuses_after = 1
    with pytest.raises(PretakeError, match="no memory"):
        PerfRings([70], PAGE)
    assert machine.open == set()


def test_a_machine_wide_event_is_made_when_a_cpu_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(monkeypatch, {0, 1}, 4)
    rings = PerfRings([], PAGE)
    of_1 = machine.made[1]
    assert [(event.tid, event.cpu) for event in machine.made] == [(-1, 0), (-1, 1)]
    machine.online = [0]
    assert rings.look() == []
    # What was written before it went is still there to be read.
    assert of_1 in [event for _, event in rings.to_read(every=True)]
    machine.online = [0, 1, 3]
    assert rings.look() == [1, 3]
    assert [event.cpu for event in machine.made] == [0, 1, 1, 3]
    read = [(cpu, event) for cpu, event in rings.to_read(every=False)]
    assert read[0] == (1, of_1)
    assert sorted(cpu for cpu, _ in read[1:]) == [0, 1, 3]
    assert of_1 not in machine.open
    assert of_1 not in [event for _, event in rings.to_read(every=True)]
    assert [missing.what for missing in rings.missing] == [
        "the first switches on CPU 1",
        "the first switches on CPU 3",
    ]
    rings.close()
    assert machine.open == set()


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_rings_are_whole_pages_of_any_size(monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ring_pages(3 << 20) * page == 2 << 20
    assert ring_pages(1) == 1
    assert spare_pages((2 << 20) // page, 1) * page == 2 << 20
    # 64 KiB for each of 1,023, or a page.
    assert spare_pages((2 << 20) // page, 1023) * page == 1 << 16
    sizes = RingSizes(1, [0], 1)
    assert {sizes.ring_bytes(table) for table in RING_TABLES} == {page}


def test_an_ordinary_users_other_rings_fit_into_what_he_may_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    pages = spare_pages(128, 63)
    # With the control page of each.
    assert 63 * (1 + pages) * PAGE <= 8 << 20
    assert pages > 1
    assert spare_pages(128, 1 << 20) == 1


def test_all_cpus_that_may_come_share_64_mib() -> None:
    assert spare_cpu_bytes(32 << 20, 0) == spare_cpu_bytes(32 << 20, 1) == 32 << 20
    assert spare_cpu_bytes(32 << 20, 64) == 1 << 20
    assert spare_cpu_bytes(1 << 10, 64) == 1 << 10
    assert spare_cpu_bytes(32 << 20, 8191) == 64 << 10
