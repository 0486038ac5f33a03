"""What a capture may do to its machine, and what a program's names may do to a capture."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.go import toolchains
from tests.kernel.started import PRETAKE, Started, python, wait_for_file
from tracer.capture.attendant import KEPT
from tracer.capture.keeper import FOR_FILES
from tracer.capture.options import CaptureOptions
from tracer.capture.privilege import may_load_bpf
from tracer.capture.record import record
from tracer.kernel.compiler import UPROBE_PREFIXES
from tracer.trace.reader import Trace

HOSTILE = "\x1b[2J<b>$(x)"


def capabilities(pid: int) -> set[int]:
    """Of each thread, permitted and effective."""
    held = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        held |= {int(x.split()[1], 16) for x in lines if x.startswith(("CapEff:", "CapPrm:"))}
    return held


TRIES = """
import ctypes, json, os, sys
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

libc = ctypes.CDLL(None, use_errno=True)
bpf, perf_event_open, kill = 321, 298, 62
tried = {}

def attempt(name, result):
    tried[name] = "done" if result >= 0 else os.strerror(ctypes.get_errno())

def progress(_):
    if tried:
        return
    stranger = int(sys.argv[3])
    for name, path, flags in (
        ("write", sys.argv[2], os.O_WRONLY),
        ("make", sys.argv[2] + ".new", os.O_WRONLY | os.O_CREAT),
        ("read memory", f"/proc/{stranger}/mem", os.O_RDONLY),
        ("read secrets", "/etc/shadow", os.O_RDONLY),
    ):
        attempt(name, libc.open(path.encode(), flags, 0o600))
    attempt("ptrace", libc.ptrace(0x4206, stranger, 0, 0))  # PTRACE_SEIZE
    # r0 = 0; exit: a program that anybody could load who may load one
    code = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" "9500000000000000"))
    licence = ctypes.create_string_buffer(b"GPL")
    load = ctypes.create_string_buffer(
        (2).to_bytes(4, "little") + (2).to_bytes(4, "little")
        + ctypes.addressof(code).to_bytes(8, "little")
        + ctypes.addressof(licence).to_bytes(8, "little"), 128)
    attempt("load", libc.syscall(bpf, 5, load, 128))
    attempt("kill", libc.kill(stranger, 9))
    attempt("root", libc.setuid(0))
    os.write(writer, b"\\n")

# It ends when all was tried.
reader, writer = os.pipe()
os.dup2(reader, 0)
command = ["sh", "-c", "read line"]
record(command, output=sys.argv[1], options=CaptureOptions(), progress=progress, drop=True)
print(json.dumps([tried, os.getresuid(), os.getresgid(), os.getgroups()]))
"""


@pytest.mark.parametrize("sudo", [False, True])
def test_the_tracer_may_do_nothing_that_its_caller_may_not(tmp_path: Path, sudo: bool) -> None:
    assert may_load_bpf()
    environment = dict(os.environ)
    if sudo:
        environment |= {"SUDO_UID": "1234", "SUDO_GID": "4321"}
    victim, path = tmp_path / "victim", tmp_path / "x.pretake"
    victim.write_text("mine")
    victim.chmod(0o600)
    with Started(["sleep", "1000"]) as stranger:
        done = subprocess.run(
            [sys.executable, "-c", TRIES, path, victim, str(stranger.pid)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert stranger.poll() is None
        stranger.kill()
    assert done.stderr == ""
    tried, *who = json.loads(done.stdout)
    refused = {"Permission denied", "Operation not permitted"}
    assert {name: why for name, why in tried.items() if why not in refused} == {}
    assert set(tried) == {
        *("write", "make", "read memory", "read secrets", "ptrace", "load", "kill", "root")
    }
    user = (1234, 4321) if sudo else (65534, 65534)
    assert who == [[user[0]] * 3, [user[1]] * 3, []]
    assert victim.read_text() == "mine"
    # And the trace is the caller's.
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (path, *path.rglob("*"))}
    assert owners == {user if sudo else (0, 0)}
    assert Trace(path).manifest.complete


def test_no_thread_of_the_tracer_has_a_capability(tmp_path: Path) -> None:
    path = tmp_path / "x.pretake"
    tracer = subprocess.Popen([*PRETAKE, "record", "-q", "-o", path, "--", "sleep", "1000"])
    # The command runs only after the capabilities went.
    while b"sleep" not in running(tracer.pid):
        assert tracer.poll() is None
    assert capabilities(tracer.pid) == {0}
    tracer.send_signal(signal.SIGINT)
    assert tracer.wait(120) == 0
    assert Trace(path).manifest.exit_status == -signal.SIGTERM


def running(pid: int) -> set[bytes]:
    """The names of a process's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = set()
    for child in children:
        with contextlib.suppress(OSError):
            names.add(Path(f"/proc/{child}/comm").read_bytes().strip())
    return names


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def open_files(pid: int) -> list[str]:
    """What a process holds open; not what it closed while we looked."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(str(link.readlink()))
    return names


def test_a_tracer_that_is_killed_leaves_its_trace_to_who_asked_for_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pretake"
    tracer = subprocess.Popen([*PRETAKE, "record", "-q", "-o", path, "--", "sleep", "1000"])
    while b"sleep" not in running(tracer.pid):
        assert tracer.poll() is None
    held = {child: capabilities(child) for child in children(tracer.pid)}
    (attendant,) = [child for child, sets in held.items() if sets == {KEPT}]
    assert path.stat().st_uid == 65534
    # It has what it needs, and none of the tracer's programs and maps.
    names = open_files(attendant)
    assert not [name for name in names if "bpf" in name.replace("bpf-stats", "")]
    (command,) = [child for child in held if comm(child) == "sleep"]
    fd = os.pidfd_open(attendant)
    tracer.kill()
    tracer.wait()
    assert select.select([fd], [], [], 120)[0]
    os.close(fd)
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (path, *path.rglob("*"))}
    assert owners == {(0, 0)}
    os.kill(command, signal.SIGKILL)


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_command_that_is_no_program_leaves_nothing_of_root_s(tmp_path: Path) -> None:
    script, folder = tmp_path / "script", tmp_path / "folder"
    folder.mkdir(mode=0o755)
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    record = [*PRETAKE, "record", "-q", "-o", folder / "x.pretake", "--", script]
    done = subprocess.run(record, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be run" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.go
def test_a_go_program_is_captured_by_a_keeper_of_three_capabilities(tmp_path: Path) -> None:
    binary, path = toolchains.build("blockread"), tmp_path / "x.pretake"
    tracer = subprocess.Popen([*PRETAKE, "record", "-q", "-o", path, "--", binary, "1000000"])
    while b"blockread" not in running(tracer.pid):
        assert tracer.poll() is None
    held = [capabilities(child) for child in children(tracer.pid)]
    assert {FOR_FILES} in held
    assert {KEPT} in held
    tracer.send_signal(signal.SIGINT)
    assert tracer.wait(120) == 0
    manifest = Trace(path).manifest
    assert manifest.target.runtime == "go"
    # Not a program for a uprobe was loaded, nor one put.
    assert not [name for name in manifest.attached if name.startswith("uprobe:")]
    assert manifest.capture.bpf_runs
    assert not [name for name in manifest.capture.bpf_runs if name.startswith(UPROBE_PREFIXES)]


@pytest.mark.go
def test_a_program_that_comes_later_is_probed_without_those_capabilities(tmp_path: Path) -> None:
    binary = toolchains.build("blockread")
    path = tmp_path / "x.pretake"
    shell = ["sh", "-c", '"$@"; exit 0', "sh", str(binary), "300"]
    # Exact calls: else a call that a signal broke off, as SIGURG may, has no end and is told.
    exact = ["--probes", "exact", "--calls", "exact"]
    subprocess.run([*PRETAKE, "record", "-q", *exact, "-o", path, "--", *shell], check=True)
    manifest = Trace(path).manifest
    assert manifest.target.runtime == "go"
    assert manifest.missing == []
    # Counted by the one helper that may.
    assert manifest.capture.bpf_run_s is not None
    assert any(name.startswith("uprobe:runtime.handoffp") for name in manifest.attached)


def test_no_link_in_the_output_folder_is_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "x.pretake", tmp_path / "victim"
    (victim / "folder").mkdir(parents=True)
    (victim / "file").write_text("mine")
    program = python("calls", 10**9, 1000)
    tracer = subprocess.Popen(
        [*PRETAKE, "record", "-q", "--detail", "full", "-o", path, "--", *program],
        stderr=subprocess.PIPE,
    )
    wait_for_file(path / "manifest.json", tracer)
    # As the user whose folder it is could do: no table has a folder before a part is due.
    (path / "syscall").symlink_to(victim / "folder")
    (path / "manifest.json").unlink()
    (path / "manifest.json").symlink_to(victim / "file")
    tracer.send_signal(signal.SIGINT)
    _, said = tracer.communicate(timeout=120)
    assert tracer.returncode == 2
    assert said.startswith(b"pretake: cannot write")
    assert (victim / "file").read_text() == "mine"
    assert list((victim / "folder").iterdir()) == []


def test_names_are_data(tmp_path: Path) -> None:
    folder = tmp_path / f"a;$(touch pwned)'\" {HOSTILE}"
    folder.mkdir()
    script = folder / "script\n"
    script.write_text(
        f"#!{sys.executable} -IS\n"
        "import os\n"
        f"open('/proc/self/comm', 'wb').write({HOSTILE.encode()!r} + b'\\xff')\n"
        "r, w = os.pipe()\n"
        "if not os.fork():\n"
        "    os.write(w, b'x')\n"
        "    os._exit(0)\n"
        "os.read(r, 1)\n"
    )
    script.chmod(0o755)
    path = tmp_path / "x.pretake"
    record([str(script)], output=path, options=CaptureOptions())
    names = set(Trace(path).frame("task")["comm"])
    assert HOSTILE + "\ufffd" in names
    page = tmp_path / "x.html"
    said = subprocess.run([*PRETAKE, "summary", path], capture_output=True, check=True).stdout
    subprocess.run([*PRETAKE, "report", path, "-o", page], capture_output=True, check=True)
    assert b"\x1b[2J" not in said
    assert HOSTILE not in page.read_text()
    assert "<b>$(x)" not in page.read_text()
    assert not list(tmp_path.rglob("pwned"))
    assert not Path("pwned").exists()
