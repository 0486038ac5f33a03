"""Which processes a watch finds, in a /proc made by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.go import toolchains
from tests.kernel.started import Started
from tracer.capture.go_programs import GoPrograms
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
    with pytest.raises(
        PretakeError, match="nothing to watch: give --pid, --name, --cgroup or --go"
    ):
        Several()
    with pytest.raises(PretakeError, match="there is no process"):
        Several([2**22 - 1])


def look_alike(tmp_path: Path, linkage: str = "stripped") -> Path:
    """A Go program whose name tells nothing; it runs until its input has something."""
    program = tmp_path / "python3"
    shutil.copy(toolchains.build("blockread", linkage=linkage), program)
    return program


@contextlib.contextmanager
def several_of(*command: str | Path, count: int = 1) -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        started = [stack.enter_context(Started(command, **pipes)) for _ in range(count)]
        yield [process.pid for process in started]
        for process in started:
            process.kill()


def test_go_programs_are_found_and_others_are_not(
    tmp_path: Path, running: subprocess.Popen[bytes]
) -> None:
    proc = tmp_path / "proc"
    with several_of(look_alike(tmp_path), "0", count=2) as (own, other):
        tell(proc, running.pid, "/usr/bin/server", "server", "/a")
        tell(proc, own, "/usr/bin/python3", "python3", "/a")
        tell(proc, other, "/usr/bin/api", "api", "/b")
        for names, cgroups, found in (
            ([], [], [own, other]),
            (["api", "server"], [], [other]),
            ([], ["/a"], [own]),
        ):
            several = Several(names=names, cgroups=cgroups, proc=proc, go=True)
            assert (several.pids, several.more_may_come) == ([], True)
            assert sorted(several.find()) == sorted(found)
            assert several.unread == {}
            several.close()


def test_a_file_is_read_once_for_all_its_processes_while_one_is_there(tmp_path: Path) -> None:
    programs = GoPrograms()
    with several_of(look_alike(tmp_path), "0", count=3) as pids:
        for _ in range(2):
            assert [programs.ask(pid) for pid in pids] == [True] * 3
        assert programs.read == 1
        programs.forget_unused()
        assert programs.ask(pids[0]) is True
        assert programs.read == 1
    programs.forget_unused()
    programs.forget_unused()
    with several_of(tmp_path / "python3", "0") as (pid,):
        assert programs.ask(pid) is True
        assert programs.read == 2


def test_one_whose_file_is_damaged_is_told_and_not_taken_for_another_program(
    tmp_path: Path,
) -> None:
    program, proc = look_alike(tmp_path, "static"), tmp_path / "proc"
    with program.open("r+b") as file:
        file.seek(0x28)  # e_shoff, which the kernel does not look at
        file.write((1 << 40).to_bytes(8, "little"))
    with several_of(program, "0") as (pid,):
        tell(proc, pid, "/usr/bin/api", "api")
        several = Several(proc=proc, go=True)
        assert several.find() == []
        assert "is no whole ELF file" in several.unread[pid]
        assert (several.take_unread(), several.take_unread()) == ([pid], [])
        several.close()


def test_one_that_has_ended_is_not_told(tmp_path: Path) -> None:
    programs = GoPrograms()
    with several_of(look_alike(tmp_path), "0") as (pid,):
        pass
    assert isinstance(programs.ask(pid), str)
    tell(tmp_path / "proc", pid, "", "python3")
    several = Several(proc=tmp_path / "proc", go=True)
    assert several.find() == []
    assert several.unread == {}
