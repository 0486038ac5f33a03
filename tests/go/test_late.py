"""Go that is not the program itself: a library in a C program, a plugin in a Go program."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record
from tracer.trace.reader import Trace

LATE = Path(__file__).parent / "late"
BLOCKS = 20


def go(version: str, folder: Path, *arguments: object) -> None:
    """``go build`` with cgo, in a folder."""
    command = [toolchains.goroot(version) / "bin" / "go", "build", *arguments]
    environment = toolchains.environment(version) | {"CGO_ENABLED": "1", "GO111MODULE": "off"}
    subprocess.run(list(map(str, command)), check=True, cwd=folder, env=environment)


def c(*arguments: object) -> None:
    subprocess.run(["cc", *map(str, arguments)], check=True)


def captured(command: list[object], output: Path) -> Trace:
    """A capture that ends the command, by its input, when some of its blocks were seen."""
    fifo = output.with_name("input")
    os.mkfifo(fifo)
    seen = [0, 0]
    # Both ways, so that neither the shell nor this waits.
    held = os.open(fifo, os.O_RDWR)

    def told(progress: Progress) -> None:
        """Each block of a thread in reach is at least a switch off and one on."""
        seen[0] += 1
        if seen[0] > 12 and progress.events > 5000:
            os.write(held, b"x")

    script = f'exec "$@" < {fifo}'
    try:
        record(
            ["sh", "-c", script, "sh", *map(str, command)],
            output=output,
            options=CaptureOptions(),
            progress=told,
        )
    finally:
        os.close(held)
    trace = Trace(output)
    assert trace.manifest.exit_status == 0
    return trace


def sites(trace: Trace) -> set[str]:
    """Where the calls that blocked were made, by function and file."""
    frames = trace.frame("stack").merge(trace.frame("address"), on=["pid", "generation", "pc"])
    blocks = trace.frame("block")
    assert len(blocks) > BLOCKS
    stacks = blocks.loc[blocks["nr"] == 35, "stack_id"]  # nanosleep
    frames = frames[frames["stack_id"].isin(stacks)]
    plumbing = frames["function"].str.match(r"^(?:runtime|syscall|internal/.*)\.", na=True)
    inner = frames[~plumbing].sort_values("depth").drop_duplicates("stack_id")
    return {
        f"{function.rpartition('.')[2]} {Path(file).name}"
        for function, file in zip(inner["function"], inner["file"], strict=True)
    }


@pytest.mark.parametrize("how", ["linked", "opened", "archive"])
@pytest.mark.parametrize("version", ["1.24.11", "1.27.3"])
def test_a_go_library_in_a_c_program_is_in_reach(version: str, how: str, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        lacking("there is no C compiler", KERNEL)
    shared, program = LATE / "shared", tmp_path / "program"
    source = shutil.copy(shared / "lib.go", tmp_path)
    mode = "c-archive" if how == "archive" else "c-shared"
    library = tmp_path / ("libwork.a" if how == "archive" else "libwork.so")
    go(version, tmp_path, f"-buildmode={mode}", "-o", library, source)
    if how == "opened":
        c("-o", program, shared / "opened.c", "-ldl")
    else:
        c("-o", program, shared / "linked.c", library, f"-Wl,-rpath,{tmp_path}", "-lpthread")
    command = [program, library] if how == "opened" else [program]
    trace = captured(command, tmp_path / "t")
    assert sites(trace) == {"blocks lib.go"}
    assert trace.manifest.target.runtime == "go"
    assert trace.manifest.target.version == f"go{version}"
    # All calls with a P: the thread is C's, and borrows an M for the call.
    blocks = trace.frame("block").query("nr == 35")
    assert set(blocks["p_use"]) <= {"syscall", "handed_off"}
    assert (blocks["goid"] > 0).all()
    (reach,) = trace.frame("reach").query("comm == 'program'").itertuples()
    # The program has no runtime that is known at its exec, but for the archive's.
    assert reach.ts_ns > reach.exec_ns
    # What is told before is of the moment in which it came into reach.
    assert (blocks["ts_ns"] > reach.exec_ns).all()
    assert (blocks["ts_ns"] > reach.ts_ns).sum() > BLOCKS


def test_calls_of_a_plugin_are_the_plugin_s(tmp_path: Path) -> None:
    version = toolchains.VERSIONS[-1]
    if shutil.which("cc") is None:
        lacking("there is no C compiler", KERNEL)
    for source in (LATE / "main.go", LATE / "plug" / "plug.go"):
        shutil.copy(source, tmp_path)
    go(version, tmp_path, "-buildmode=plugin", "-o", "plug.so", "plug.go")
    go(version, tmp_path, "-o", "program", "main.go")
    trace = captured([tmp_path / "program", tmp_path / "plug.so"], tmp_path / "t")
    assert sites(trace) == {"Block plug.go"}
    assert trace.manifest.target.path == str(tmp_path / "program")
    # A plugin has no runtime of its own to be missed.
    assert not any("plug.so" in f"{lack}" for lack in trace.manifest.missing)
