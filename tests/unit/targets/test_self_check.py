"""Whether a process has its P, M and G where a layout says, in memory laid out by hand."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence

import pytest

from tracer.targets.layout import RuntimeLayout
from tracer.targets.self_check import SelfCheck
from tracer.trace.unknown import UNKNOWN

# Two Ps: P 0 is run by M 1 with goroutine 7, P 1 is idle. A bias of 0x1000.
LAYOUT = RuntimeLayout(
    bias=0x1000,
    allp=0x100,
    sched=0x200,
    g_m=48,
    g_goid=152,
    g_status=144,
    m_id=232,
    m_procid=64,
    m_curg=184,
    m_p=208,
    m_oldp=224,
    m_nextp=216,
    p_id=0,
    p_status=4,
    p_m=56,
    p_syscalltick=20,
    p_runqhead=400,
    p_runqtail=404,
    p_runnext=440,
    p_timer=448,
    p_timer_modified=456,
    sched_npidle=112,
    sched_nmspinning=116,
    sched_runqsize=144,
    sched_gcwaiting=160,
)
ALLP, SCHED, ARRAY = 0x1100, 0x1200, 0x2000
P0, P1, M, G, NEXT = 0x3000, 0x4000, 0x5000, 0x6000, 0x7000
THREAD = 4242


class Memory:
    """8 bytes each, little-endian, 0 where nothing was put; and a page that is not there."""

    def __init__(self) -> None:
        self.bytes = bytearray(0x8000)
        self.soon = False
        self.put("<QQ", ALLP, ARRAY, 2)
        self.put("<QQ", ARRAY, P0, P1)
        self.put("<ii", P0, 0, 1)
        self.put("<ii", P1, 1, 0)
        self.put("<Q", P0 + LAYOUT.p_m, M)
        self.put("<II", P0 + LAYOUT.p_runqhead, 0xFFFFFFF0, 2)
        self.put("<Q", P0 + LAYOUT.p_runnext, NEXT)
        self.put("<q", P0 + LAYOUT.p_timer, 1_000)
        self.put("<q", M + LAYOUT.m_id, 1)
        self.put("<q", M + LAYOUT.m_procid, THREAD)
        self.put("<Q", M + LAYOUT.m_curg, G)
        self.put("<Q", M + LAYOUT.m_p, P0)
        self.put("<Q", G + LAYOUT.g_m, M)
        self.put("<q", G + LAYOUT.g_goid, 7)
        self.put("<I", G + LAYOUT.g_status, 0x1002)
        self.put("<q", NEXT + LAYOUT.g_goid, 9)
        self.put("<i", SCHED + LAYOUT.sched_npidle, 1)
        self.put("<QQi", SCHED + LAYOUT.sched_runqsize - 16, NEXT, NEXT, 1)

    def put(self, form: str, at: int, *values: int) -> None:
        struct.pack_into(form, self.bytes, at, *values)

    def words(self, chains: Sequence[tuple[int, Sequence[int]]]) -> list[list[int]]:
        told = []
        for begin, offsets in chains:
            words: list[int] = []
            at = begin
            for offset in (*offsets, 0):
                if not 0 <= at <= len(self.bytes) - 8:
                    break
                words.append(struct.unpack_from("<q", self.bytes, at)[0])
                at = words[-1] + offset
            told.append(words)
        return told

    def caught(
        self, groups: Sequence[Sequence[tuple[int, Sequence[int]]]]
    ) -> tuple[int, list[list[int]]] | None:
        if not self.soon:
            return None
        self.put("<Q", P0 + LAYOUT.p_m, M)
        told = self.words(groups[0])
        self.put("<Q", P0 + LAYOUT.p_m, 0)
        return 0, told

    def threads(self) -> set[int]:
        return {17, THREAD}


def looked(layout: RuntimeLayout, memory: Memory, times: int = 50) -> SelfCheck:
    check = SelfCheck(layout)
    for _ in range(times):
        check.look(memory)
    return check


def test_a_process_that_is_as_the_layout_says_passes() -> None:
    check = SelfCheck(LAYOUT)
    memory = Memory()
    for _ in range(3):
        check.look(memory)
        assert not check.passed
    check.look(memory)
    assert check.passed
    assert check.refused is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"m_procid": 184}, "m.procid names no thread"),
        ({"m_procid": 208}, "m.procid names no thread"),
        ({"p_id": 8}, "p.id is not"),
        ({"p_id": 56}, "p.id is not"),
        ({"p_status": 0}, "p.status is none"),
        ({"p_status": 404}, "p.status is none"),
        ({"p_m": 64}, "not that of a P that an M has"),
        ({"m_curg": 208}, "has no goid"),
        ({"m_curg": 64}, "has no goid"),
        ({"g_m": 144}, "g.m of m.curg"),
        ({"g_m": 152}, "g.m of m.curg"),
        ({"g_goid": 160}, "has no goid"),
        ({"g_goid": 48}, "p.runnext is no goroutine"),  # as for the offset of its goid
        ({"g_status": 48}, "no status"),
        ({"m_p": 184}, "m.p is not"),
        ({"m_p": 64}, "m.p is not"),
        ({"m_id": 184 - 4}, "m.id is no number"),
        ({"m_oldp": 64}, "m.oldp is no P"),
        ({"m_nextp": 184}, "m.nextp is no P"),
        ({"p_runqhead": 56}, "impossible length"),
        ({"p_runnext": 56}, "p.runnext is no goroutine"),
        ({"sched_npidle": 120}, "sched.npidle is not"),
        ({"sched_npidle": 128}, "sched.npidle is not"),
        ({"sched_nmspinning": 128}, "sched.nmspinning is more"),
        ({"sched_runqsize": 136}, "global queue"),
        ({"sched_gcwaiting": 129}, "neither true nor false"),
    ],
)
def test_an_offset_that_is_wrong_is_refused(wrong: dict[str, int], why: str) -> None:
    check = looked(dataclasses.replace(LAYOUT, **wrong), Memory())
    assert not check.passed
    assert check.refused is not None
    assert why in check.refused


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"m_procid": 72}, "no P was caught running"),
        ({"m_curg": 72}, "g_m, g_goid, g_status could not be confirmed"),
        ({"g_m": 56}, "g_m could not be confirmed"),
        ({"m_p": 216}, "m_p could not be confirmed"),
        ({"g_status": 152 - 4}, "g_status could not be confirmed"),
        ({"allp": 0x108}, "no P was caught running"),
        ({"allp": UNKNOWN}, "its code does not tell where its Ps are"),
    ],
)
def test_an_offset_that_reads_nothing_is_never_confirmed(wrong: dict[str, int], why: str) -> None:
    check = looked(dataclasses.replace(LAYOUT, **wrong), Memory())
    assert not check.passed
    assert check.refused is None
    assert check.open == why or why in check.open


def test_a_process_in_which_nothing_runs_is_not_decided() -> None:
    memory = Memory()
    memory.put("<Q", P0 + LAYOUT.p_m, 0)
    memory.put("<i", P0 + LAYOUT.p_status, 0)
    memory.put("<i", SCHED + LAYOUT.sched_npidle, 2)
    check = looked(LAYOUT, memory)
    assert (check.passed, check.refused) == (False, None)
    assert check.open == "no P was caught running a goroutine"
    # Until a P runs for as long as it takes to see it.
    memory.soon = True
    for _ in range(4):
        check.look(memory)
    assert check.passed


def test_a_process_that_has_just_begun_is_not_decided() -> None:
    memory = Memory()
    begun = bytes(memory.bytes)
    memory.bytes[:] = bytes(len(begun))
    check = looked(LAYOUT, memory)
    assert (check.passed, check.refused) == (False, None)
    memory.bytes[:] = begun
    for _ in range(4):
        check.look(memory)
    assert check.passed


@pytest.mark.parametrize(
    ("wrong_of_ten", "passes"), [(1, True), (4, True), (6, False), (9, False)]
)
def test_looks_may_go_wrong_but_not_most_of_them(wrong_of_ten: int, passes: bool) -> None:
    memory = Memory()
    check = SelfCheck(LAYOUT)
    for number in range(100):
        # The first looks go wrong: a goroutine is on its way to another M.
        goes_wrong = number % 10 < wrong_of_ten
        memory.put("<Q", G + LAYOUT.g_m, P1 if goes_wrong else M)
        check.look(memory)
    assert check.passed == passes
    assert (check.refused is not None) == (wrong_of_ten == 9)
