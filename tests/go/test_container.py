"""A program in a container: other pid and mount namespaces, a root of its own, its file unseen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tests.go.capture import until_events
from tests.kernel.started import Started
from tracer.capture.record import record
from tracer.trace.reader import Trace

LINKER = Path("/lib64/ld-linux-x86-64.so.2")
NR_READ = 0
EVENTS = 5000


@contextmanager
def contained(binary: Path, root: Path) -> Iterator[int]:
    """Run a binary as process 1 of a container; yields the pid that it has out here.

    The binary is on a file system that is mounted in there only.
    """
    root.mkdir()
    # A position-independent program asks for the dynamic linker, even where it links nothing.
    copies = f"cp {binary} {root}/server && mkdir {root}/lib64 && cp {LINKER} {root}/lib64"
    script = f"mount -t tmpfs none {root} && {copies} && exec chroot {root}"
    unshare = ["unshare", "--pid", "--fork", "--mount", "--propagation", "private"]
    with Started(
        [*unshare, "sh", "-c", f"{script} /server 100000"], stdout=subprocess.PIPE
    ) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        pid = 0
        while not (pid and Path(f"/proc/{pid}/exe").readlink().name == "server"):
            assert outer.poll() is None
            pid = int((children.read_text().split() or ["0"])[0])
        try:
            yield pid
            assert outer.poll() is None, "it did not survive the capture"
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("linkage", ["static", "stripped-pie"])
def test_a_contained_program_is_read_by_its_pid_out_here(linkage: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        lacking("unshare is not installed", KERNEL)
    with contained(toolchains.build("blockread", linkage=linkage), tmp_path / "root") as pid:
        assert not Path("/server").exists()
        status = Path(f"/proc/{pid}/status").read_text()
        (line,) = [row for row in status.splitlines() if row.startswith("NSpid:")]
        assert line.split()[1:] == [str(pid), "1"]
        record(pid=pid, output=tmp_path / "t", progress=until_events(EVENTS))
    trace = Trace(tmp_path / "t")
    assert trace.manifest.target.runtime == "go"
    assert trace.manifest.target.version == f"go{toolchains.VERSIONS[-1]}"
    blocks, runtime = trace.frame("block"), trace.frame("runtime")
    # Elsewhere a thread may wait for a page, or for a lock of the runtime that another M has.
    blocks = blocks[blocks["nr"] == NR_READ]
    assert not blocks.empty
    # Threads and processes have the numbers that they have out here.
    assert set(trace.frame("task")["pid"]) == {pid}
    assert set(blocks["tid"]) <= set(trace.frame("task")["tid"])
    assert set(blocks["goid"]) == {1}
    retakes = runtime[runtime["kind"] == "retake"]
    assert (retakes["reason"] == "sysmon").sum() > 2
    # Sysmon's thread is known from its first sleep in the capture on, and whom it gives a P once
    # that M was seen to park: until then somebody else may be told to have taken it.
    others = retakes.loc[retakes["reason"] != "sysmon", "reason"]
    assert set(others) <= {"other", "exitsyscall"}
    assert len(others) <= trace.frame("task")["tid"].nunique()
    functions = trace.frame("address").merge(trace.frame("stack"), on=["pid", "generation", "pc"])
    assert "main.main" in set(functions["function"])
