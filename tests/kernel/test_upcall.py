"""Policy ``upcall`` on this kernel: who is told of a block, and by how many wake-ups."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from reference_runtime import Deadlock, Runtime
from reference_runtime.goroutines import gopark
from reference_runtime.workloads import run_workload
from tracer.kernel.btf import VMLINUX_BTF, kernel_btf
from tracer.kernel.upcall import Upcalls


def has_upcall() -> bool:
    return VMLINUX_BTF.exists() and kernel_btf().has_name("bpf_send_signal_task")


HAS_UPCALL = pytest.mark.skipif(
    not has_upcall(), reason="this kernel has no bpf_send_signal_task (Linux 6.13)"
)
pytestmark = [HAS_UPCALL]


@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize("poller", [False, True])
def test_echo_comes_back(procs: int, poller: bool) -> None:
    result: dict[str, Any] = run_workload(
        "echo", policy="upcall", procs=procs, rounds=97, poller=poller
    )
    assert result["rounds"] == 97


@pytest.mark.parametrize("name", ["calls", "files", "timers", "fanout", "mix"])
def test_every_workload_ends(name: str) -> None:
    result: dict[str, Any] = run_workload(name, policy="upcall", procs=2, rounds=53)
    assert result["rounds"] >= 53


def test_each_call_that_blocks_is_taken_from_by_the_kernels_word() -> None:
    """23 reads of 23 goroutines block beside one that always has work: the net is never needed."""
    result: dict[str, Any] = run_workload("prime", policy="upcall", rounds=23)
    counters = result["runtime"]
    assert counters["retakes"] == 23
    assert counters["handoffs"] == 0


def test_a_deadlock_is_told_although_an_m_is_on_call() -> None:
    async def main() -> None:
        await gopark("nobody")

    with pytest.raises(Deadlock):
        Runtime(2, "upcall").run(main)


def test_the_program_tells_blocks_of_its_threads_and_not_their_ends() -> None:
    """A thread that is watched blocks once, in a read, and ends; another one is not watched."""
    read_fd, write_fd = os.pipe()
    upcalls = Upcalls(int(signal.SIGRTMIN) + 7)
    blocked = threading.Event()

    def blocks(watched: bool) -> None:
        if watched:
            upcalls.add(threading.get_native_id(), 0)
        blocked.set()
        os.read(read_fd, 1)

    try:
        for watched in (True, False):
            blocked.clear()
            thread = threading.Thread(target=blocks, args=(watched,))
            thread.start()
            blocked.wait()
            stat = Path(f"/proc/self/task/{thread.native_id}/stat")
            while stat.read_text().rpartition(")")[2].split()[0] != "S":
                os.sched_yield()
            os.write(write_fd, b"x")
            thread.join()
    finally:
        upcalls.close()
    blocks_told, failed = upcalls.counts()
    assert (blocks_told, failed) == (1, 0)
