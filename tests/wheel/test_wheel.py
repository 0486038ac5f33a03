"""What pip installs, on a machine without a compiler: ``make test-wheel`` (as root).

The environment has the wheel, and the packages that it depends on (tests/wheel/installed.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.go import toolchains
from tests.wheel.installed import Run, environment, installed_in, open_to_all, pip
from tools.cross import bcc_environment
from tools.wheels import MACHINES
from tracer.kernel.shipped import archive_name, ship


@pytest.fixture(scope="module", params=["compiled", "interpreted"])
def installed(
    request: pytest.FixtureRequest,
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Run, Path]:
    """How the runtime is built, what runs the command in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp(request.param)
    open_to_all(folder)
    python = environment(sys.executable, folder / "venv")
    pip(python, "--no-deps", "--no-index", files[request.param])
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = sysconfig.get_path("platlib", vars=paths)
    # What it depends on; a clone that is installed there is not seen, nor Debian's own packages.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")
    empty = folder / "empty"
    return request.param, installed_in(folder / "venv", empty), empty


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_byte_code_in_each_file_is_that_of_a_rebuild(
    files: dict[str, Path], compiled: list[Path], tmp_path: Path, machine: str
) -> None:
    ship(tmp_path / "rebuilt", bcc_environment(machine))
    rebuilt = (tmp_path / "rebuilt").read_bytes()
    byte_code = f"tracer/bpf/{archive_name(machine)}"
    for wheel in (*compiled, files["interpreted"]):
        with zipfile.ZipFile(wheel) as members:
            assert members.read(byte_code) == rebuilt, wheel.name
    with tarfile.open(files["sources"]) as members:
        [name] = [name for name in members.getnames() if name.endswith(byte_code)]
        member = members.extractfile(name)
        assert member is not None
        assert member.read() == rebuilt


def test_the_command_is_the_wheel_s(installed: tuple[str, Run, Path]) -> None:
    how, run, _ = installed
    assert run("--version").split(", ")[-1].strip() == f"reference runtime {how}"


@pytest.mark.timeout(600)
def test_the_doctor_tells_that_the_byte_code_is_used(installed: tuple[str, Run, Path]) -> None:
    _, run, _ = installed
    checks: dict[str, dict[str, Any]] = {c["name"]: c for c in json.loads(run("doctor", "--json"))}
    told = checks["BPF programs"]
    assert (told["ok"], told["mend"]) == (True, "")
    assert told["detail"].startswith("the byte code of this installation, made by bcc ")
    assert "bcc" not in checks
    # Every mode, of which each program is loaded.
    assert {name: c["detail"] for name, c in checks.items() if c["needed"] and not c["ok"]} == {}
    assert [n for n in checks if n.startswith("pretake ") and not checks[n]["ok"]] == []


@pytest.mark.timeout(600)
def test_a_stripped_go_program_is_captured_call_by_call(installed: tuple[str, Run, Path]) -> None:
    _, run, _ = installed
    program = toolchains.build("sleeps", linkage="stripped")
    calls = int(run("record", "-q", "-o", "go.pretake", "--", str(program)))
    rows = [json.loads(line) for line in run("episodes", "go.pretake", "--json").splitlines()]
    assert [row["syscall"] for row in rows].count("nanosleep") == calls
    run("check", "go.pretake")
    run("report", "go.pretake", "-o", "go.html")


@pytest.mark.timeout(600)
def test_a_stripped_go_server_is_captured_while_it_runs(installed: tuple[str, Run, Path]) -> None:
    _, run, _ = installed
    program = toolchains.build("server", linkage="stripped")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(started([program, "serve"]))
        assert server.stdout is not None
        stack.enter_context(started([program, "load", server.stdout.readline().strip()]))
        run("record", "-q", "-o", "server.pretake", "--pid", str(server.pid), "--seconds", "3")
    told = run("callsites", "server.pretake")
    # By the program's own function table, which strip leaves.
    assert "main.readSlowly" in told
    run("check", "server.pretake")


@contextlib.contextmanager
def started(command: list[str | Path]) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended behind."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(1200)
def test_the_demo_runs(installed: tuple[str, Run, Path]) -> None:
    _, run, folder = installed
    run("demo", "--seconds", "0.2")
    assert "plotly" in (folder / "demo/report.html").read_text()
