"""What the parser of strangers' files cannot do, and what comes of it when it goes wrong."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.errors import PretakeError
from tracer.targets import NoRuntime, look_at
from tracer.targets.jail.client import Jail, LookUp, begin_look, look
from tracer.targets.jail.confine import ADDRESS_SPACE_BYTES, CPU_S, NOBODY
from tracer.targets.program_file import open_program

PRISONER = Path(__file__).with_name("in_jail.py")
ROOT = Path(__file__).resolve().parents[3]
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers are x86-64's")


def prisoner(report: Path, what: str) -> subprocess.Popen[bytes]:
    report.touch()
    report.chmod(0o666)
    return subprocess.Popen(
        [sys.executable, PRISONER, report, what],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )


def shut_in(report: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a prisoner says that it is in."""
    while process.poll() is None and not report.read_bytes().endswith(b"\1"):
        time.sleep(0.001)


@x86_only
def test_from_inside_nothing_can_be_reached(tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert prisoner(report, "try").wait() == 0
    told = json.loads(report.read_bytes().rstrip(b"\1").rstrip(b"\0"))
    assert told.pop("600 MB") == "no memory"
    assert len(told) > 30
    assert set(told.values()) == {"Operation not permitted"}


@x86_only
def test_a_call_of_another_numbering_is_the_end(tmp_path: Path) -> None:
    assert prisoner(tmp_path / "report", "x32").wait() == -signal.SIGSYS


@pytest.mark.parametrize("what", ["spin", "sleep"])
def test_nobody_with_no_descriptor_is_ended_by_the_kernel(tmp_path: Path, what: str) -> None:
    process = prisoner(tmp_path / "report", what)
    shut_in(tmp_path / "report", process)
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    # It ignored and blocked the signal before it was shut in, and had descriptors open.
    assert process.wait() in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL)
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert status["Uid"].split() == status["Gid"].split() == [str(user)] * 4
    assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    if os.geteuid() == 0:
        assert status["Groups"].split() == []
        assert status["CapBnd"] == "0" * 16
    rows = {line[:25].strip(): line[25:].split()[:2] for line in limits[1:]}
    assert rows["Max address space"] == [str(ADDRESS_SPACE_BYTES)] * 2
    assert rows["Max cpu time"] == [str(CPU_S)] * 2
    assert rows["Max open files"] == rows["Max processes"] == ["0", "0"]
    assert rows["Max file size"] == rows["Max core file size"] == ["0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="its descriptors are root's to see")
def test_a_prisoner_has_no_descriptor(tmp_path: Path) -> None:
    process = prisoner(tmp_path / "report", "sleep")
    shut_in(tmp_path / "report", process)
    descriptors = list(Path(f"/proc/{process.pid}/fd").iterdir())
    process.wait()
    assert descriptors == []


@pytest.fixture(scope="module")
def hostile() -> Iterator[Jail]:
    jail = Jail("tests.unit.targets.hostile_server")
    yield jail
    jail.close()


def asked(jail: Jail, path: str) -> LookUp:
    fd = open_program(Path("/bin/true"))
    try:
        return LookUp(jail.ask(fd, Path(path), {"deep": True}), Path(path), 1 << 16)
    finally:
        os.close(fd)


def killed(jail: Jail) -> None:
    """Kill its server, and wait until it is dead."""
    assert jail.server_pid is not None
    fd = os.pidfd_open(jail.server_pid)
    os.kill(jail.server_pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()
    os.close(fd)


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("crash", "its parser ended by SIGSEGV"),
        ("end", "its parser ended by itself with status 3"),
        ("spin", "its parser took (longer|more)"),
        ("much", "its parser took more memory"),
        ("long", "its parser ended by itself with status 1"),
        ("nest", "its parser answered nonsense"),
        ("empty", "its parser answered nonsense"),
        ("list", "its parser answered nonsense"),
        ("text", "its parser answered nonsense"),
        ("runtime", "its parser answered nonsense"),
    ],
)
def test_whatever_a_file_does_is_one_line(hostile: Jail, deed: str, told: str) -> None:
    with pytest.raises(PretakeError, match=told) as error:
        asked(hostile, deed).result()
    assert "\n" not in str(error.value)
    # And the next file is read as if nothing had been.
    assert isinstance(asked(hostile, "honest").result(), NoRuntime)


def test_files_are_read_side_by_side_and_none_waits_for_another(hostile: Jail) -> None:
    spins = [asked(hostile, "spin") for _ in range(3)]
    assert isinstance(asked(hostile, "honest").result(), NoRuntime)
    for spin in spins:
        with pytest.raises(PretakeError, match="took"):
            spin.result()


def test_a_server_that_is_gone_is_started_again(hostile: Jail) -> None:
    asked(hostile, "honest").result()
    pid = hostile.server_pid
    killed(hostile)
    assert isinstance(asked(hostile, "honest").result(), NoRuntime)
    assert hostile.server_pid != pid


def test_a_server_that_stands_still_is_not_waited_for_for_ever(hostile: Jail) -> None:
    asked(hostile, "honest").result()
    assert hostile.server_pid is not None
    os.kill(hostile.server_pid, signal.SIGSTOP)
    with pytest.raises(PretakeError, match="did not answer"):
        asked(hostile, "honest").result()
    killed(hostile)
    assert isinstance(asked(hostile, "honest").result(), NoRuntime)


def test_a_server_ends_with_its_tracer() -> None:
    jail = Jail()
    jail.start()
    pid = jail.server_pid
    assert pid is not None
    fd = os.pidfd_open(pid)
    jail.close()
    os.close(fd)
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_ends_with_a_tracer_that_is_killed() -> None:
    script = (
        "import os, signal, sys\n"
        "from tracer.targets.jail.client import Jail\n"
        "jail = Jail(); jail.start(); print(jail.server_pid, flush=True); sys.stdin.read(1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    tracer = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert tracer.stdin is not None
    assert tracer.stdout is not None
    fd = os.pidfd_open(int(tracer.stdout.readline()))
    tracer.communicate(b"x")
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(60_000)
    os.close(fd)


def test_a_close_ends_the_server_though_a_fork_lives_on() -> None:
    jail = Jail()
    jail.start()
    pid = jail.server_pid
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        os._exit(0)
    jail.close()
    assert not Path(f"/proc/{pid}").exists()
    os.write(writer, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(reader)
    os.close(writer)


def test_a_fork_of_the_tracer_has_a_server_of_its_own() -> None:
    look_at(Path("/bin/true"))
    pid = os.fork()
    if pid == 0:
        found = look_at(Path("/bin/true"))
        os._exit(0 if isinstance(found, NoRuntime) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert isinstance(look_at(Path("/bin/true")), NoRuntime)


def test_a_fifo_a_device_and_a_folder_are_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path, what in (
        (tmp_path / "pipe", r"a FIFO \(named pipe\)"),
        (Path("/dev/zero"), "a character device"),
        (tmp_path, "a directory"),
    ):
        with pytest.raises(PretakeError, match=f"{path} is {what}, no program"):
            look_at(path)
    found = look_at(tmp_path / "empty")
    assert isinstance(found, NoRuntime)
    assert found.why == "an empty file"


def test_a_look_can_be_waited_for_beside_other_things() -> None:
    fd = open_program(Path("/bin/true"))
    begun = begin_look(fd, Path("true"), deep=False)
    assert begun.fileno() >= 0
    assert begun.result() == look(fd, Path("true"), deep=True)
    os.close(fd)
