"""Every version of Go, every way to link and strip: P, M and G are read, retakes are told.

The programs of the kernel are loaded once for all of them, so that a version costs little more
than the quarter of a second that each of its binaries runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.go import toolchains
from tests.go.looked import built, inspected, rows_of, run
from tracer.capture.programs import Programs
from tracer.targets import go_offsets
from tracer.targets.elf import Elf
from tracer.targets.go_data import all_ps_address, scheduler_address, syscalltick_offset
from tracer.targets.pclntab import Pclntab

ALWAYS = ("static", "pie", "stripped")
# Both models of a P in a system call, and the oldest: every way to link.
THOROUGH = ("1.19.8", "1.25.5", "1.27.3")
READS = "80"
NR_READ, NR_WRITE, NR_FUTEX = 0, 1, 202
STRIPPED = ("no-symbols", "stripped", "stripped-pie", "stripped-cgo-pie")
WITHOUT_DWARF = (*STRIPPED, "no-dwarf")
CASES = [
    (version, linkage)
    for version in toolchains.VERSIONS
    for linkage in (toolchains.LINKAGES if version in THOROUGH else ALWAYS)
]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Programs]:
    programs = Programs(buffer_bytes=16 << 20)
    yield programs
    programs.close()


@pytest.mark.parametrize(
    ("version", "linkage"), [case for case in CASES if case[1] not in STRIPPED]
)
def test_code_tells_the_addresses_that_symbols_tell(version: str, linkage: str) -> None:
    with Elf(built(toolchains.build, "blockread", version, linkage)) as elf:
        table, offsets = Pclntab(elf), go_offsets.shipped_offsets()[f"go{version}"]
        sched = scheduler_address(elf, table, offsets["sched_lock"])
        assert sched == elf.symbol("runtime.sched")
        assert all_ps_address(elf, table) == elf.symbol("runtime.allp")
        tick = offsets["p_syscalltick"]
        assert syscalltick_offset(elf, table, tick) == offsets["m_syscalltick"]
        assert syscalltick_offset(elf, table, tick + 4) != offsets["m_syscalltick"]
        assert syscalltick_offset(elf, table, offsets["p_status"]) != offsets["m_syscalltick"]


@pytest.mark.parametrize(("version", "linkage"), CASES)
def test_blocks_and_retakes_are_told(kernel: Programs, version: str, linkage: str) -> None:
    binary = inspected("blockread", version, linkage)
    assert binary.version == f"go{version}"
    assert binary.position_independent == ("pie" in linkage)
    assert binary.offsets_from == (f"go{version}" if linkage in WITHOUT_DWARF else "dwarf")
    assert binary.layout.model == ("psyscall" if toolchains.minor(version) <= 25 else "prunning")
    assert not binary.missing

    run(kernel, binary, READS, probes=binary.probes)
    tables = rows_of(kernel)
    blocks, runtime = tables["block"], tables["runtime"]
    # Elsewhere a thread may wait for a page, or for a lock of the runtime that another M has. And
    # the runtime's own calls may have to wait in the kernel (mmap for a thread that has a page
    # made): they are raw.
    calls = blocks[(blocks["why"] == "syscall") & (blocks["p_use"] != "raw")]
    assert set(calls["nr"]) <= {NR_READ, NR_WRITE, NR_FUTEX}
    blocks = blocks[blocks["nr"] == NR_READ]
    assert len(blocks) > 60
    assert set(blocks["goid"]) == {1}
    # A thread that got no CPU on its way into the call lost P before it blocked, and blocks
    # without it. That may be from entersyscall on, before the kernel is entered. And sysmon's
    # thread, which takes P and then calls handoffp, where the retake is told, may lose its CPU in
    # between. Until then nobody has that P, so the goroutine enters no other call.
    holds = blocks["p_use"] == "syscall"
    taken = runtime[runtime["kind"] == "retake"]
    exits = tables["syscall"]["exit_ns"][tables["syscall"]["nr"] == NR_READ]
    for call in blocks[~holds].itertuples():
        assert call.p_use == "handed_off"
        # No call before the first nor after the last one: NaN, which is no bound.
        since = exits[exits < call.enter_ns].max()
        until = blocks["enter_ns"][blocks["enter_ns"] > call.enter_ns].min()
        assert any(not (at <= since or at >= until) for at in taken["ts_ns"]), call
    assert len(taken) >= (~holds).sum()
    blocks = blocks[holds]
    assert len(blocks) > 2
    assert set(blocks["p"]) == {0}
    assert blocks["runq"].between(0, 10).all()
    # One P, and the goroutine in read has it: none is idle, and the other waits most of the time.
    assert set(blocks["npidle"]) == {0}
    assert blocks["nmspinning"].between(0, 1).all()
    assert blocks["global_runq"].between(0, 10).all()
    assert (blocks["runq"] + blocks["global_runq"] > 0).mean() > 0.5

    retakes = runtime[runtime["kind"] == "retake"]
    assert len(retakes) > 2
    assert set(retakes["reason"]) == {"sysmon"}
    assert set(retakes["p"]) == {0}
    assert set(runtime.loc[runtime["kind"] == "handoff", "reason"]) <= {"sysmon", "locked"}
    # After each retake, P is given to an M, which comes on a CPU with it.
    first = retakes["ts_ns"].iloc[0]
    assert {"startm", "acquirep"} <= set(runtime.loc[runtime["ts_ns"] > first, "kind"])
