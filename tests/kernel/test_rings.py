"""The rings as programs fill them: the reader is woken in time, and a new CPU has slots."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.started import python
from tests.kernel.watched import Watched
from tracer.capture.programs import Programs
from tracer.kernel.bpf import online_cpus
from tracer.kernel.table_rings import RingSizes
from tracer.trace.schema import TABLES

NR_GETPPID = 110
CPU_BYTES = 1 << 16
CPU_1 = Path("/sys/devices/system/cpu/cpu1/online")


def asked_to_wake(programs: Programs) -> bool:
    """Whether the kernel asked to wake the reader since it read the last time; reads."""
    readable, _, _ = select.select([programs.rings.wake_fd], [], [], 0)
    ring = programs.rings.rings["task"]
    ring.peek()
    ring.release()
    return bool(readable)


@pytest.mark.parametrize(("what", "table"), [("calls", "syscall"), ("signals", "signal")])
def test_the_reader_is_woken_when_a_ring_is_half_full(what: str, table: str) -> None:
    sizes = RingSizes(CPU_BYTES)
    cpu = online_cpus()[0]
    room = sizes.slots(TABLES[table])[cpu]
    if what == "signals":
        room = sizes.ring_bytes(TABLES[table]) // TABLES[table].dtype.itemsize
        room //= len(online_cpus())
    assert room > 30
    programs = Programs(CPU_BYTES, defines={"DETAIL_FULL": 1})
    with Watched(python("on_request", cpu), programs=programs) as watched:
        assert watched.hear() == "ready"
        for ring in programs.rings.rings.values():
            ring.peek()
            ring.release()
        assert asked_to_wake(programs) is False
        # A signal is two records. Reading and answering a line are a few calls.
        few = room // 8
        watched.say(f"{what} {few}")
        assert watched.hear() == str(few)
        assert asked_to_wake(programs) is False
        watched.say(f"{what} {room}")
        assert watched.hear() == str(room)
        assert asked_to_wake(programs) is True
        # Once, and not for each record behind it.
        watched.say(f"{what} 1")
        assert watched.hear() == "1"
        assert asked_to_wake(programs) is False
    programs.close()


@pytest.fixture
def absent_cpu() -> Iterator[int]:
    """CPU 1, which is not there until the test writes to :data:`CPU_1`."""
    if not os.environ.get("PRETAKE_HOTPLUG"):
        pytest.skip("takes a CPU from the whole machine for a moment (force: PRETAKE_HOTPLUG=1)")
    CPU_1.write_text("0")
    try:
        yield 1
    finally:
        CPU_1.write_text("1")


def test_a_cpu_that_comes_during_a_capture_loses_nothing(absent_cpu: int) -> None:
    programs = Programs(1 << 20, defines={"DETAIL_FULL": 1})
    assert absent_cpu not in online_cpus()
    CPU_1.write_text("1")
    with Watched(python("on_request", absent_cpu), programs=programs) as watched:
        assert watched.hear() == "ready"
        watched.say("calls 501")
        assert watched.hear() == "501"
    calls = watched.tables["syscall"]
    assert set(calls.loc[calls["nr"] == NR_GETPPID, "cpu"]) == {absent_cpu}
    assert (calls["nr"] == NR_GETPPID).sum() == 501
    assert programs.rings.counts()["syscall"].lost == 0
    programs.close()
