"""Threads that have another's M in their thread-local storage are not that M."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis.answers.preemptions import preemptions
from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tests.go.looked import inspected
from tests.kernel.started import Started, python
from tests.kernel.watched import Watched
from tracer.capture.layouts import FileIdentity
from tracer.capture.options import CaptureOptions
from tracer.capture.programs import Programs
from tracer.capture.record import record
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

VERSIONS = ("1.19.8", "1.24.11", "1.26.6", "1.27.3")
NR_READ, NR_CLONE, NR_EXECVE, NR_CLONE3 = 0, 56, 59, 435


def child_in_execve(pid: int) -> int:
    """The child of ``pid`` that sleeps in execve; os/exec may make others before it."""
    while True:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children = []
            # A thread or a child may end while we look.
            with contextlib.suppress(OSError):
                children = (thread / "children").read_text().split()
            for child in children:
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/syscall").read_text().startswith(f"{NR_EXECVE} "):
                        return int(child)
        os.sched_yield()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_child_that_blocks_before_its_exec_is_not_its_parent(
    version: str, tmp_path: Path
) -> None:
    binary = inspected("spawn", version)
    target = tmp_path / "true"
    shutil.copy("/bin/true", target)
    programs = Programs(1 << 20)
    programs.layouts.set_binary(FileIdentity.of(binary.path.stat()), binary.layout)
    with Started(
        python("leased", target), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        with Watched([str(binary.path), str(target)], programs=programs) as watched:
            child = child_in_execve(watched.pid)
            holder.stdin.write(b"\n")
            holder.stdin.flush()
    programs.close()
    tasks, blocks = watched.tables["task"], watched.tables["block"]
    # os/exec may make another one before, to try what the kernel can.
    children = set(tasks.loc[tasks["kind"] == "fork", "pid"]) - {watched.pid}
    assert child in children
    assert not children & set(blocks["tid"])
    # The parent's call is one block each, with the P that it keeps; but none for a child that was
    # gone before the parent came to wait for it. The one in execve was not.
    clones = blocks[blocks["nr"].isin([NR_CLONE, NR_CLONE3])]
    assert 1 <= len(clones) <= len(children)
    assert clones["enter_ns"].is_unique
    assert clones["p"].notna().all()
    assert set(clones["p_use"]) == {"raw"}


def worker_of(pid: int) -> int:
    while True:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # A thread may end while we look.
            with contextlib.suppress(OSError):
                if (thread / "comm").read_text().startswith("iou-wrk"):
                    return int(thread.name)
        os.sched_yield()


def asleep(pid: int, tid: int) -> None:
    stat = Path(f"/proc/{pid}/task/{tid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "S":
        os.sched_yield()


def test_a_worker_of_the_kernel_s_is_no_m() -> None:
    if Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() == "2":
        lacking("io_uring is switched off here (kernel.io_uring_disabled)", KERNEL)
    binary = inspected("worker")
    programs = Programs(1 << 20)
    with Started(
        [binary.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        worker = worker_of(process.pid)
        asleep(process.pid, worker)
        programs.probes.attach()
        programs.layouts.set_layout(process.pid, 0, binary.layout)
        programs.followed.follow(process.pid)
        for _ in range(5):
            process.stdin.write("x\n")
            process.stdin.flush()
            assert process.stdout.readline() == "asked\n"
            asleep(process.pid, worker)
        process.stdin.close()
    programs.probes.detach()
    tables = {}
    for name in ("block", "syscall", "sched_switch"):
        tables[name] = TABLES[name].to_arrow(programs.rings.rings[name].peek().copy()).to_pandas()
    programs.close()
    # It is seen to sleep and wake, and makes no call.
    assert worker in set(tables["sched_switch"]["prev_tid"])
    assert worker not in set(tables["block"]["tid"])
    assert worker not in set(tables["syscall"]["tid"])
    assert NR_READ in set(tables["syscall"]["nr"])


@pytest.mark.parametrize("before", [[], ["unshare", "--pid", "--fork"]], ids=["here", "inside"])
def test_a_thread_that_the_runtime_asks_to_stop_is_known_by_its_number_out_here(
    before: list[str], tmp_path: Path
) -> None:
    command = [*before, str(toolchains.build("preempt")), "collect"]
    options = CaptureOptions(probes="exact")
    trace = Trace(record(command, output=tmp_path / "t", options=options))
    tasks, runtime, signals = (trace.frame(n) for n in ("task", "runtime", "signal"))
    (go,) = set(tasks.loc[tasks["comm"] == "preempt", "pid"])
    assert (go == trace.manifest.pid) == (not before)
    threads = set(tasks.loc[tasks["pid"] == go, "tid"])
    requests = runtime[runtime["kind"] == "preempt_request"]
    assert set(requests["target_tid"].dropna()) <= threads
    delivered = signals[signals["kind"] == "deliver"]
    assert set(delivered["tid"]) <= threads
    assert set(signals.loc[signals["kind"] == "tgkill", "tid"]) <= threads
    # Two goroutines that only a signal can stop, and who collects has to stop each, often.
    told = preemptions(trace)
    assert (told["outcome"] == "stopped").sum() > 20
    # Whoever got a signal stopped or refused to, but perhaps for the last of all.
    assert told.loc[told["delivered_ns"].notna(), "outcome"][:-1].notna().all()
