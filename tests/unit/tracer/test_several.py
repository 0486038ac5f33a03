"""Which processes a watch finds, in a /proc made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.started import Started
from tracer.capture.several import Several
from tracer.errors import PretakeError


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    with Started([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def tell(
    proc: Path, pid: int, program: str, comm: str, cgroup: str = "/", parent: int = 1
) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cmdline").write_bytes(program.encode() + b"\0--port\x0080\0" if program else b"")
    (folder / "comm").write_text(f"{comm}\n")
    (folder / "cgroup").write_text(f"0::{cgroup}\n")
    (folder / "stat").write_text(f"{pid} (a) b) S {parent} 1 1")


@pytest.mark.parametrize(
    ("names", "cgroups", "found"),
    [
        (["api-*"], [], True),
        (["api-server-with-a-lon"], [], True),  # the name of the first thread
        (["api"], [], False),
        (["API-*"], [], False),
        ([], ["/system.slice"], True),
        ([], ["/system.slice/api.service/"], True),
        ([], ["/sys/fs/cgroup/system.slice/api.service"], True),
        ([], ["/system.slice/api"], False),
        ([], ["/"], True),
        (["nothing"], ["/system.slice"], True),
    ],
)
def test_a_process_is_found_by_name_or_cgroup(
    names: list[str],
    cgroups: list[str],
    found: bool,
    tmp_path: Path,
    running: subprocess.Popen[bytes],
) -> None:
    long = "/srv/api-server-with-a-long-name"
    tell(tmp_path, running.pid, long, "api-server-with-a-lon", "/system.slice/api.service")
    several = Several(names=names, cgroups=cgroups, proc=tmp_path)
    assert several.pids == ([running.pid] if found else [])
    assert several.more_may_come
    several.close()


def test_neither_the_watch_nor_what_it_started_nor_the_kernels_own_is_found(
    tmp_path: Path, running: subprocess.Popen[bytes]
) -> None:
    tell(tmp_path, os.getpid(), "/usr/bin/api-x", "api-x")
    tell(tmp_path, running.pid, "/usr/bin/api-x", "api-x", parent=os.getpid())
    tell(tmp_path, os.getppid(), "", "api-x")
    several = Several(names=["*"], proc=tmp_path)
    assert several.pids == []
    several.close()


def test_the_end_of_the_last_is_the_end_unless_others_may_come(
    tmp_path: Path, running: subprocess.Popen[bytes]
) -> None:
    by_pid = Several([running.pid, running.pid])
    by_name = Several([running.pid], names=["api"], proc=tmp_path)
    assert by_pid.pids == [running.pid]
    assert not by_pid.wait(0)
    running.kill()
    assert by_pid.wait(60)
    assert not by_name.wait(60)
    assert (by_pid.take_ended(), by_pid.take_ended(), by_pid.ended) == ([running.pid], [], 1)
    assert (by_name.pids, by_name.pid) == ([], 0)


def test_what_cannot_be_watched_is_told() -> None:
    with pytest.raises(PretakeError, match="nothing to watch: give --pid, --name or --cgroup"):
        Several()
    with pytest.raises(PretakeError, match="there is no process"):
        Several([2**22 - 1])
