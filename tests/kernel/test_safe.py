"""What a capture may do to its machine, and what a program's names may do to a capture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.privilege import may_load_bpf
from tracer.capture.record import record
from tracer.trace.reader import Trace

pytestmark = pytest.mark.kernel

PROGRAMS = Path(__file__).parent / "programs"
PRETAKE = [sys.executable, "-m", "pretake"]
CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF = 1 << 19, 1 << 38, 1 << 39
CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE, CAP_CHOWN = 1 << 2, 1 << 1, 1 << 0
KEPT = CAP_SYS_PTRACE | CAP_PERFMON | CAP_BPF | CAP_DAC_READ_SEARCH
HOSTILE = "\x1b[2J<b>$(x)"


def wait_for(path: Path, tracer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert tracer.poll() is None
        assert time.monotonic() < deadline


def capabilities(pid: int) -> set[int]:
    """Of each thread, permitted and effective."""
    held = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        held |= {int(x.split()[1], 16) for x in lines if x.startswith(("CapEff:", "CapPrm:"))}
    return held


@pytest.mark.parametrize("sudo", [False, True])
def test_no_thread_of_the_tracer_keeps_more_than_it_needs(tmp_path: Path, sudo: bool) -> None:
    assert may_load_bpf()
    environment = dict(os.environ)
    if sudo:
        environment |= {"SUDO_UID": "1234", "SUDO_GID": "4321"}
    path = tmp_path / "x.pretake"
    tracer = subprocess.Popen(
        [*PRETAKE, "record", "-q", "-o", path, "--", "sleep", "1000"], env=environment
    )
    # The manifest comes after the capabilities went.
    wait_for(path / "manifest.json", tracer)
    kept = KEPT | (CAP_DAC_OVERRIDE | CAP_CHOWN if sudo else 0)
    assert capabilities(tracer.pid) == {kept}
    tracer.send_signal(signal.SIGINT)
    assert tracer.wait(30) == 0
    assert Trace(path).manifest.complete
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (path, *path.rglob("*"))}
    assert owners == ({(1234, 4321)} if sudo else {(0, 0)})


@pytest.mark.go
def test_a_program_that_comes_later_is_probed_without_those_capabilities(tmp_path: Path) -> None:
    binary = toolchains.build("blockread")
    path = tmp_path / "x.pretake"
    shell = ["sh", "-c", '"$@"; exit 0', "sh", str(binary), "300"]
    subprocess.run([*PRETAKE, "record", "-q", "-o", path, "--", *shell], check=True)
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
    program = [sys.executable, "-I", "-S", str(PROGRAMS / "calls.py"), str(10**9), "1000"]
    tracer = subprocess.Popen(
        [*PRETAKE, "record", "-q", "--detail", "full", "-o", path, "--", *program],
        stderr=subprocess.PIPE,
    )
    wait_for(path / "manifest.json", tracer)
    # As the user whose folder it is could do: no table has a folder before a part is due.
    (path / "syscall").symlink_to(victim / "folder")
    (path / "manifest.json").unlink()
    (path / "manifest.json").symlink_to(victim / "file")
    tracer.send_signal(signal.SIGINT)
    _, said = tracer.communicate(timeout=30)
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
