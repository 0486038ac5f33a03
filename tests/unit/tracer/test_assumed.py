"""When processes are looked at, until their program is confirmed or refused."""

from __future__ import annotations

from typing import cast

import pytest

from tests.unit.targets.test_answers import BINARY
from tracer.capture import assumed
from tracer.capture.assumed import Assumed
from tracer.capture.binaries import Known
from tracer.capture.images import Image
from tracer.capture.layouts import FileIdentity
from tracer.capture.target_files import TargetFiles
from tracer.targets.go import GoBinary
from tracer.targets.self_check import Memory, SelfCheck


class Clock:
    """The time, which a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def program(name: str, offsets_from: str) -> Known:
    fields = vars(BINARY) | {"offsets_from": offsets_from}
    return Known(FileIdentity(1, len(name), 3, 4), name, (1, 2, b""), GoBinary(**fields))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(assumed, "time", clock)
    return clock


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """What a look at each process says: ``passed``, ``refused``, ``gone``, or nothing."""
    says: dict[int, str] = {}

    def look(check: SelfCheck, memory: Memory) -> None:
        pid = cast(assumed.ProcessMemory, memory).pid
        seen.append(pid)
        if says.get(pid) == "gone":
            raise ProcessLookupError
        check.passed = says.get(pid) == "passed"
        if says.get(pid) == "refused":
            check._out_of_order = 20
            check._wrong["m_procid"] = 20

    monkeypatch.setattr(SelfCheck, "look", look)
    return says


seen: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def test_only_what_is_assumed_is_held() -> None:
    checks = Assumed(TargetFiles())
    assert checks.holds(program("a", "assumed from go1.27.3"))
    assert not checks.holds(program("a", "go1.27.3"))
    assert not checks.holds(program("a", "dwarf"))


def test_all_processes_of_a_confirmed_program_are_told(
    clock: Clock, looked: dict[int, str]
) -> None:
    checks, known, other = (
        Assumed(TargetFiles()),
        program("a", "assumed from go1.27.3"),
        program("bb", "assumed from go1.26.0"),
    )
    images = [Image(pid, 0) for pid in (1, 2, 3)]
    for image, of in zip(images, (known, known, other), strict=True):
        checks.add(image, of, 16 * image.pid)
    assert checks.wait_s == 0
    assert checks.step() == []
    looked[2] = "passed"
    clock.now_s += 1
    assert checks.step() == [(images[0], known, 16), (images[1], known, 32)]
    assert not checks.holds(known)
    assert checks.holds(other)
    (missing,) = checks.missing
    assert missing.what == "block, and p, m and goid of runtime in 1 process of bb"
    assert missing.why.startswith("the offsets assumed from go1.26.0 could not be confirmed: ")


def test_a_refused_program_is_not_looked_at_again(clock: Clock, looked: dict[int, str]) -> None:
    checks, known = Assumed(TargetFiles()), program("a", "assumed from go1.27.3")
    looked[1] = "refused"
    checks.add(Image(1, 0), known, 0)
    checks.add(Image(2, 0), known, 0)
    assert checks.step() == []
    checks.add(Image(3, 0), known, 0)
    clock.now_s += 1
    assert checks.step() == []
    assert seen == [1]
    assert checks.holds(known)
    assert checks.wait_s == float("inf")
    (missing,) = checks.missing
    assert missing.why == (
        "a was not read: m.procid names no thread of it, so its offsets are not those assumed"
        " from go1.27.3"
    )
    assert missing.mend


def test_a_process_that_is_gone_is_forgotten(clock: Clock, looked: dict[int, str]) -> None:
    checks, known = Assumed(TargetFiles()), program("a", "assumed from go1.27.3")
    images = [Image(1, 0), Image(2, 0)]
    for image in images:
        looked[image.pid] = "gone"
        checks.add(image, known, 0)
    assert checks.step() == []
    for image in images:
        checks.ended(image)
    clock.now_s += 1
    assert checks.step() == []
    assert seen == [1, 2]
    (missing,) = checks.missing
    assert "in 2 processes of a" in missing.what


def test_what_stands_idle_is_looked_at_more_and_more_seldom(
    clock: Clock, looked: dict[int, str]
) -> None:
    checks, known = Assumed(TargetFiles()), program("a", "assumed from go1.27.3")
    checks.add(Image(1, 0), known, 0)
    waits = []
    for _ in range(100):
        checks.step()
        waits.append(checks.wait_s)
        clock.now_s += checks.wait_s
    assert len(seen) == 100
    assert waits[:4] == pytest.approx([0.001, 0.002, 0.004, 0.008])
    assert waits[20] == pytest.approx(0.05)
    assert waits[-1] == pytest.approx(1)
    assert not looked


def test_many_processes_do_not_keep_the_capture_for_long(
    clock: Clock, looked: dict[int, str]
) -> None:
    checks = Assumed(TargetFiles())
    known = program("a", "assumed from go1.27.3")
    for pid in range(10):
        checks.add(Image(pid, 0), known, 0)
    checks.step()
    assert seen == [0, 1, 2, 3]
    checks.step()
    assert seen == list(range(8))
    assert checks.wait_s == 0
    assert not looked
    assert clock.now_s == 100
