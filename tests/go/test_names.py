"""Whose call it was: of look-alikes, of one process that is two programs, of two file systems."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from pathlib import Path

import pandas as pd
import pytest

from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.trace.reader import Trace

CALLS = 20
LONG = 1000
# Of both programs: where the call itself is made, whichever version of Go it is.
VERSIONS = ("1.19.8", "1.24.11", "1.26.6", "1.27.3")


LOOKS = 4


def captured(script: str, output: Path, first: list[Path]) -> Trace:
    """A capture of a shell's script, once the tracer has looked at some twins.

    Args:
        script: runs when these are known, so that each later process of them is in reach at once.
        output: the trace.
        first: run one after the other, each until it is known.
    """
    fifos = [output.with_name(f"{output.name}.{number}") for number in range(len(first))]
    for fifo in fifos:
        os.mkfifo(fifo)
    waiting = deque(fifos)
    looks = 0

    def told(_: Progress) -> None:
        """Let a twin go on when the drain has come by a few times since it exec'd."""
        nonlocal looks
        if not waiting:
            return
        with contextlib.suppress(OSError):
            # Refused as long as nobody reads there.
            fd = os.open(waiting[0], os.O_WRONLY | os.O_NONBLOCK)
            looks += 1
            if looks == LOOKS:
                os.write(fd, b"go on")
                waiting.popleft()
                looks = 0
            held.append(fd)
        if not looks:
            while held:
                os.close(held.pop())

    held: list[int] = []
    warm = [f"{binary} {fifo}" for binary, fifo in zip(first, fifos, strict=True)]
    command = ["sh", "-c", "; ".join([*warm, script])]
    record(command, output=output, options=CaptureOptions(), progress=told)
    trace = Trace(output)
    assert trace.manifest.exit_status == 0
    assert not any(trace.manifest.lost.values())
    return trace


def sites(trace: Trace) -> dict[tuple[int, int], dict[str, int]]:
    """How many blocks each function of package main made, by process and generation.

    In the order of their execs: the numbers of processes begin again some time.
    """
    frames = trace.frame("stack").merge(
        trace.frame("address"), on=["pid", "generation", "pc"], validate="many_to_one"
    )
    frames = frames[frames["function"].str.startswith("main.blocks", na=False)]
    blocks = trace.frame("block").merge(frames, on="stack_id")
    counts = blocks.groupby(["pid", "generation", "function"]).size()
    told: dict[tuple[int, int], dict[str, int]] = {}
    for (pid, generation, function), count in counts.items():
        told.setdefault((pid, generation), {})[function] = count
    reach = trace.frame("reach").set_index(["pid", "generation"])
    return dict(sorted(told.items(), key=lambda item: reach.loc[item[0], "exec_ns"]))


def only(counts: dict[str, int], function: str) -> bool:
    """Whether all of about :data:`CALLS` blocks are one function's."""
    return set(counts) == {function} and counts[function] >= CALLS - 1


@pytest.mark.parametrize("version", VERSIONS)
def test_programs_of_one_layout_keep_their_own_names(version: str, tmp_path: Path) -> None:
    # How far debug information is compressed depends on each letter of the paths of the programs.
    twins = ("twin_a", "twin_b")
    first, second = (toolchains.build(name, version, "no-dwarf") for name in twins)
    assert first.stat().st_size == second.stat().st_size
    script = f"{first} {CALLS}; {second} {CALLS}; {first} {CALLS}"
    told = sites(captured(script, tmp_path / "t", [first, second]))
    assert len(told) == 3
    for counts, function in zip(told.values(), ("A", "B", "A"), strict=True):
        assert only(counts, f"main.blocks{function}")


def test_a_process_that_execs_is_two_programs(tmp_path: Path) -> None:
    first, second = (toolchains.build(name) for name in ("twin_a", "twin_b"))
    script = f"exec {first} {CALLS} {second} {CALLS} /bin/sleep 0"
    trace = captured(script, tmp_path / "t", [first, second])
    told = sites(trace)
    (pid,) = {pid for pid, _ in told}
    # What waits at the gate is generation 0, the shell of the script 1.
    assert set(told) == {(pid, 2), (pid, 3)}
    assert only(told[pid, 2], "main.blocksA")
    assert only(told[pid, 3], "main.blocksB")
    every = trace.frame("reach")
    reach = every[every["pid"] == pid].set_index("generation")
    assert list(reach.index) == [1, 2, 3, 4]
    assert [Path(path).name for path in reach["path"][1:3]] == ["twin_a", "twin_b"]
    assert list(reach["runtime"]) == ["none", "go", "go", "none"]
    execs = trace.frame("task").query("kind == 'exec'")
    assert list(reach["exec_ns"]) == list(execs.loc[execs["pid"] == pid, "ts_ns"])
    # Both were known by then.
    assert list(reach["ts_ns"][1:3]) == list(reach["exec_ns"][1:3])
    assert pd.isna(reach["ts_ns"][1])
    assert pd.isna(reach["ts_ns"][4])
    # When they were not, they were out of reach for a while.
    twins = every[every["comm"].isin(["twin_a", "twin_b"]) & (every["pid"] != pid)]
    assert (twins["ts_ns"] > twins["exec_ns"]).all()
    assert len(twins) == 2


def test_one_inode_number_on_two_file_systems_is_two_programs(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        lacking("unshare is not installed", KERNEL)
    lines, programs = [], []
    for name in ("a", "b"):
        binary, folder = toolchains.build(f"twin_{name}"), tmp_path / name
        folder.mkdir()
        lines.append(f"mount -t tmpfs none {folder} && cp {binary} {folder}/prog")
        programs.append(folder / "prog")
    inodes = f"stat -c %i {programs[0]} {programs[1]} | uniq | wc -l > {tmp_path}/inodes"
    lines += [inodes, *(f"{program} {LONG}" for program in programs)]
    script = f"unshare --mount --propagation private sh -c '{' && '.join(lines)}'"
    told = sites(captured(script, tmp_path / "t", []))
    assert (tmp_path / "inodes").read_text().strip() == "1"
    assert [set(counts) for counts in told.values()] == [{"main.blocksA"}, {"main.blocksB"}]


def test_symbols_of_a_program_that_is_gone_are_told(tmp_path: Path) -> None:
    binary = tmp_path / "gone"
    shutil.copy(toolchains.build("twin_a"), binary)
    trace = captured(f"{binary} {CALLS}; rm {binary}", tmp_path / "t", [binary])
    (counts,) = sites(trace).values()
    assert only(counts, "main.blocksA")
    assert not binary.exists()


def test_a_program_whose_path_is_no_text_is_told_as_any_other(tmp_path: Path) -> None:
    binary = tmp_path / os.fsdecode(b"bl\xffock")
    shutil.copy(toolchains.build("blockread"), binary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMAXPROCS", "1")
        record([str(binary), "20"], output=tmp_path / "t", options=CaptureOptions())
    trace = Trace(tmp_path / "t")
    assert trace.manifest.exit_status == 0
    assert trace.manifest.target.runtime == "go"
    assert list(trace.frame("reach")["path"].str.rpartition("/")[2]) == ["bl?ock"]
    assert "bl\ufffdock" in set(trace.frame("task")["comm"])
    assert len(trace.frame("block")) >= CALLS
